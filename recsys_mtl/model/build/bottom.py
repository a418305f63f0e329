"""Bottom specs -> bottoms."""

from typing import assert_never

from recsys_mtl.config.bottom import APEMSpec, BottomSpec, DTRNSpec, FlatSpec
from recsys_mtl.model.bottoms import (
    APEM,
    DTRN,
    AbstractBottom,
    EventHistory,
    FlatBottom,
    TaskEncoder,
    TaskInterest,
)
from recsys_mtl.model.build.history import HistoryLayout, build_pooling

__all__ = ["build_bottom", "pools_histories"]


def build_bottom(
    spec: BottomSpec,
    *,
    num_fields: int,
    dim: int,
    num_dense: int,
    num_tasks: int,
    histories: tuple[HistoryLayout, ...] = (),
) -> AbstractBottom:
    """Build the bottom that ``spec`` names.

    Args:
        spec: Which, and how large.
        num_fields: Vectors of a row.
        dim: Width of a vector.
        num_dense: Numbers of a row.
        num_tasks: Number of tasks.
        histories: Those that the bottom pools, if it ``pools_histories``.
    """
    match spec:
        case FlatSpec(dropout=dropout):
            return FlatBottom(
                num_fields=num_fields, dim=dim, num_dense=num_dense, dropout=dropout
            )
        case DTRNSpec(reduction=reduction, dropout=dropout):
            return DTRN(
                num_fields=num_fields,
                dim=dim,
                num_dense=num_dense,
                num_tasks=num_tasks,
                interest=_interest(spec, histories, dim=dim, num_tasks=num_tasks),
                reduction=reduction,
                dropout=dropout,
            )
        case APEMSpec(num_layers=num_layers, num_groups=num_groups):
            return APEM(
                dim,
                num_dense=num_dense,
                num_tasks=num_tasks,
                num_layers=num_layers,
                num_groups=num_groups,
                num_inducing=spec.num_inducing,
                num_indicators=spec.num_indicators,
            )
        case _:
            assert_never(spec)


def pools_histories(spec: BottomSpec) -> bool:
    """Say whether the bottom reads events itself, so that nothing pools them before."""
    match spec:
        case FlatSpec() | APEMSpec():
            return False
        case DTRNSpec():
            return True
        case _:
            assert_never(spec)


def _interest(
    spec: DTRNSpec, histories: tuple[HistoryLayout, ...], *, dim: int, num_tasks: int
) -> TaskInterest | None:
    if not histories:
        return None
    return TaskInterest(
        dim,
        [
            EventHistory(
                num_fields=len(layout.columns),
                length=layout.length,
                pooling=build_pooling(layout, dim=dim),
            )
            for layout in histories
        ],
        encoder=TaskEncoder(
            spec.width, num_heads=spec.num_heads, num_layers=spec.num_layers
        ),
        num_tasks=num_tasks,
        code_dim=spec.code_dim,
        hidden=spec.hidden,
    )
