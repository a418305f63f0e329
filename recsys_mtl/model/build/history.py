"""History specs and fitted columns -> what an event is made of, and its pooling."""

from typing import NamedTuple, assert_never

from recsys_mtl.config.feature import (
    AttentionPooling,
    Bert4RecPooling,
    FeatureSpec,
    HistoryFeature,
    MeanPooling,
    PoolingSpec,
)
from recsys_mtl.errors import ConfigError
from recsys_mtl.features.schema import FeatureSchema, HistoryField
from recsys_mtl.model.embeddings import pooling as poolings

__all__ = ["HistoryLayout", "build_pooling", "lay_out_histories"]


class HistoryLayout(NamedTuple):
    """What the events of one history are made of.

    Attributes:
        columns: Encoded columns; first those whose field the candidate has too, in
            the order of ``matched``.
        matched: Encoded columns of the candidate.
        length: Longest list of events.
        pooling: How they become one vector a field.
    """

    columns: tuple[str, ...]
    matched: tuple[str, ...]
    length: int
    pooling: PoolingSpec


def lay_out_histories(
    features: tuple[FeatureSpec, ...], schema: FeatureSchema
) -> tuple[HistoryLayout, ...]:
    """Lay out all histories, in the order of the schema.

    Raises:
        ConfigError: An attention has nothing to compare events with.
    """
    specs = {f.name: f for f in features if isinstance(f, HistoryFeature)}
    own = {field.name for field in schema.ids if not field.history_only}
    return tuple(
        _layout(specs[history.name], history, own) for history in schema.histories
    )


def build_pooling(layout: HistoryLayout, *, dim: int) -> poolings.AbstractPooling:
    """Build the pooling of a history.

    Args:
        layout: Of its events.
        dim: Width of an embedding.
    """
    num_fields, num_matched = len(layout.columns), len(layout.matched)
    match layout.pooling:
        case MeanPooling():
            return poolings.MeanPooling()
        case AttentionPooling(hidden=hidden, dropout=dropout):
            return poolings.TargetAttention(
                dim,
                num_fields=num_fields,
                num_matched=num_matched,
                hidden=hidden,
                dropout=dropout,
            )
        case Bert4RecPooling() as spec:
            width = num_fields * dim
            masked = spec.masked_loss
            return poolings.Bert4Rec(
                poolings.EventEncoder(
                    width,
                    length=layout.length,
                    num_layers=spec.num_layers,
                    num_heads=spec.num_heads,
                    dropout=spec.dropout,
                ),
                guess=None
                if masked is None
                else poolings.MaskedGuess(
                    width, dim, weight=masked.weight, share=masked.share
                ),
                pool=spec.pool,
                query_width=num_matched * dim,
            )
        case _:
            assert_never(layout.pooling)


def _layout(
    spec: HistoryFeature, history: HistoryField, own: set[str]
) -> HistoryLayout:
    matched = tuple(field for field in history.fields if field in own)
    if _compares(spec.pooling) and not matched:
        raise ConfigError(
            f"history {spec.name!r} with pooling {spec.pooling.kind!r} must have a "
            f"field that the scored row has too, got {', '.join(history.fields)}, all "
            "history_only; add one or pool by 'mean'"
        )
    columns = tuple(f"{history.name}.{field}" for field in matched)
    rest = tuple(column for column in history.columns if column not in columns)
    return HistoryLayout((*columns, *rest), matched, history.length, spec.pooling)


def _compares(spec: PoolingSpec) -> bool:
    """Whether events are compared with the candidate."""
    if isinstance(spec, Bert4RecPooling):
        return spec.pool == "target"
    return isinstance(spec, AttentionPooling)
