"""Tower specs -> towers."""

from typing import assert_never

from recsys_mtl.config.tower import (
    DCNV2Spec,
    FinalMLPSpec,
    MLPTowerSpec,
    StreamSpec,
    TowerSpec,
    WideDeepSpec,
)
from recsys_mtl.features.schema import FeatureSchema
from recsys_mtl.model.build.embedding import ContextColumns
from recsys_mtl.model.towers import (
    AbstractTower,
    DCNV2Tower,
    FinalMLPTower,
    MLPTower,
    Selection,
    Stream,
    WideDeepTower,
)

__all__ = ["build_tower", "tower_contexts"]

_FUSED_WIDTH = 4
"""Fused updates of tables want a multiple of it."""


def build_tower(
    spec: TowerSpec, *, dim: int, num_logits: tuple[int, ...], context_dim: int
) -> AbstractTower:
    """Build the towers that ``spec`` names.

    Args:
        spec: Which, and how large.
        dim: Width of a task's hidden vector.
        num_logits: Logits of each task.
        context_dim: Width of an embedding.
    """
    match spec:
        case MLPTowerSpec(hidden=hidden, dropout=dropout, batch_norm=batch_norm):
            return MLPTower(
                dim,
                hidden,
                num_logits=num_logits,
                dropout=dropout,
                batch_norm=batch_norm,
            )
        case FinalMLPSpec(num_heads=num_heads, batch_norm=batch_norm):
            return FinalMLPTower(
                dim,
                _stream(spec, spec.first, context_dim),
                _stream(spec, spec.second, context_dim),
                num_logits=num_logits,
                num_heads=num_heads,
                batch_norm=batch_norm,
            )
        case DCNV2Spec(hidden=hidden, dropout=dropout, batch_norm=batch_norm):
            return DCNV2Tower(
                dim,
                hidden,
                num_layers=spec.num_layers,
                structure=spec.structure,
                num_logits=num_logits,
                dropout=dropout,
                batch_norm=batch_norm,
            )
        case WideDeepSpec(hidden=hidden, dropout=dropout, batch_norm=batch_norm):
            return WideDeepTower(
                dim,
                hidden,
                num_logits=num_logits,
                dropout=dropout,
                batch_norm=batch_norm,
            )
        case _:
            assert_never(spec)


def tower_contexts(
    spec: TowerSpec,
    schema: FeatureSchema,
    *,
    num_logits: tuple[int, ...],
    context_dim: int,
) -> tuple[ContextColumns, ...]:
    """List what the tower reads through tables of its own, in its order.

    Args:
        spec: The tower.
        schema: Columns there are.
        num_logits: Logits of each task.
        context_dim: Width of an embedding.
    """
    match spec:
        case MLPTowerSpec() | DCNV2Spec():
            return ()
        case FinalMLPSpec(first=first, second=second):
            return tuple(
                ContextColumns(stream.context, context_dim)
                for stream in (first, second)
                if stream.context
            )
        case WideDeepSpec(wide=wide):
            ids = (field.name for field in schema.ids if not field.history_only)
            width = -(-sum(num_logits) // _FUSED_WIDTH) * _FUSED_WIDTH
            return (ContextColumns(wide or (*ids, *schema.dense), width),)
        case _:
            assert_never(spec)


def _stream(spec: FinalMLPSpec, stream: StreamSpec, context_dim: int) -> Stream:
    selection = Selection(
        max(len(stream.context), 1) * context_dim,
        spec.gate_hidden,
        learned=not stream.context,
        init_std=spec.context_init_std,
    )
    return Stream(
        stream.hidden, stream.dropout, selection if spec.feature_selection else None
    )
