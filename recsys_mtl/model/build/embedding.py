"""Feature specs and fitted sizes -> embedding tables and poolings."""

from typing import NamedTuple, assert_never

import torch

from recsys_mtl.config.feature import (
    AttentionPooling,
    Bert4RecPooling,
    FeatureSpec,
    HistoryFeature,
    MeanPooling,
    PoolingSpec,
)
from recsys_mtl.config.model import EmbeddingSpec
from recsys_mtl.errors import ConfigError
from recsys_mtl.features.schema import (
    GAP,
    NUM_GAPS,
    FeatureSchema,
    HistoryField,
    IdField,
)
from recsys_mtl.model.embeddings import (
    BatchEmbedding,
    ContextEmbedding,
    HistoryEmbedding,
    LinearNumbers,
    Table,
)
from recsys_mtl.model.embeddings import pooling as poolings

__all__ = ["ContextColumns", "build_embedding", "build_pooling"]


class ContextColumns(NamedTuple):
    """What a tower reads through tables of its own.

    Attributes:
        columns: Encoded columns: ids or numbers.
        dim: Width of each one's vector.
    """

    columns: tuple[str, ...]
    dim: int


def build_embedding(
    spec: EmbeddingSpec,
    features: tuple[FeatureSpec, ...],
    schema: FeatureSchema,
    *,
    device: torch.device,
    contexts: tuple[ContextColumns, ...] = (),
) -> BatchEmbedding:
    """Lay out one table a field, shared by the histories whose events have it."""
    shared = schema.sequence_tables
    own = [field for field in schema.ids if not field.history_only]
    candidates = tuple(field.name for field in own if field.name in shared)
    # Names of tables are attributes of a module: a prefix keeps a field named `type`
    # or `values` from shadowing one, and there must be no dot.
    pooled = [
        Table(f"id_{field.name}", field.size, (field.name,))
        for field in own
        if field.name not in shared
    ]
    sequence = [
        Table(f"id_{field.name}", field.size, _readers(field, schema))
        for field in schema.ids
        if field.name in shared
    ]
    sequence += [
        Table(f"gap_{history.name}", NUM_GAPS, (f"{history.name}.{GAP}",))
        for history in schema.histories
        if history.gaps
    ]
    specs = {f.name: f for f in features if isinstance(f, HistoryFeature)}
    return BatchEmbedding(
        spec.dim,
        pooled=pooled,
        sequence=sequence,
        candidates=candidates,
        histories=[
            _history(specs[history.name], history, candidates, dim=spec.dim)
            for history in schema.histories
        ],
        init_std=spec.init_std,
        device=device,
        numbers=(
            LinearNumbers(len(schema.dense), dim=spec.dim)
            if spec.numeric == "linear" and schema.dense
            else None
        ),
        contexts=[
            _context(f"context{number}", context, schema, spec.init_std, device)
            for number, context in enumerate(contexts, start=1)
        ],
    )


def build_pooling(
    spec: PoolingSpec, *, dim: int, num_fields: int, num_matched: int, length: int
) -> poolings.AbstractPooling:
    """Build the pooling that ``spec`` names."""
    match spec:
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
        case Bert4RecPooling():
            width = num_fields * dim
            masked = spec.masked_loss
            return poolings.Bert4Rec(
                poolings.EventEncoder(
                    width,
                    length=length,
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
            assert_never(spec)


def _context(
    name: str,
    context: ContextColumns,
    schema: FeatureSchema,
    init_std: float,
    device: torch.device,
) -> ContextEmbedding:
    # Names of their own, so that they do not start like the tables of the fields.
    tables = {
        field.name: Table(f"{name}_{field.name}", field.size, (field.name,))
        for field in schema.ids
        if field.name in context.columns
    }
    shared = schema.sequence_tables
    return ContextEmbedding(
        context.dim,
        pooled=[table for column, table in tables.items() if column not in shared],
        sequence=[table for column, table in tables.items() if column in shared],
        numbers=tuple(
            place for place, c in enumerate(schema.dense) if c in context.columns
        ),
        init_std=init_std,
        device=device,
    )


def _readers(field: IdField, schema: FeatureSchema) -> tuple[str, ...]:
    own = () if field.history_only else (field.name,)
    histories = (h.name for h in schema.histories if field.name in h.fields)
    return (*own, *(f"{history}.{field.name}" for history in histories))


def _history(
    spec: HistoryFeature,
    history: HistoryField,
    candidates: tuple[str, ...],
    *,
    dim: int,
) -> HistoryEmbedding:
    matched = tuple(field for field in history.fields if field in candidates)
    if _compares(spec.pooling) and not matched:
        raise ConfigError(
            f"history {spec.name!r} with pooling {spec.pooling.kind!r} must have a "
            f"field that the scored row has too, got {', '.join(history.fields)}, all "
            "history_only; add one or pool by 'mean'"
        )
    columns = tuple(f"{history.name}.{field}" for field in matched)
    rest = tuple(column for column in history.columns if column not in columns)
    pooling = build_pooling(
        spec.pooling,
        dim=dim,
        num_fields=len(history.columns),
        num_matched=len(matched),
        length=history.length,
    )
    return HistoryEmbedding((*columns, *rest), matched, pooling)


def _compares(spec: PoolingSpec) -> bool:
    """Whether events are compared with the candidate."""
    if isinstance(spec, Bert4RecPooling):
        return spec.pool == "target"
    return isinstance(spec, AttentionPooling)
