"""Feature specs and fitted sizes -> embedding tables and poolings."""

from typing import NamedTuple

import torch

from recsys_mtl.config.model import EmbeddingSpec
from recsys_mtl.features.schema import (
    GAP,
    NUM_GAPS,
    FeatureSchema,
    IdField,
)
from recsys_mtl.model.build.history import HistoryLayout, build_pooling
from recsys_mtl.model.embeddings import (
    BatchEmbedding,
    ContextEmbedding,
    HistoryEmbedding,
    LinearNumbers,
    Table,
)

__all__ = ["ContextColumns", "build_embedding"]


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
    histories: tuple[HistoryLayout, ...],
    schema: FeatureSchema,
    *,
    device: torch.device,
    contexts: tuple[ContextColumns, ...] = (),
    pool_histories: bool = True,
) -> BatchEmbedding:
    """Lay out one table a field, shared by the histories whose events have it.

    Args:
        spec: How wide, and how it starts.
        histories: What their events are made of.
        schema: Tables and columns, as fitted.
        device: Where tables lie.
        contexts: What the tower reads through tables of its own.
        pool_histories: Whether events are pooled here, and not by the bottom.
    """
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
    return BatchEmbedding(
        spec.dim,
        pooled=pooled,
        sequence=sequence,
        candidates=candidates,
        histories=[
            HistoryEmbedding(
                layout.columns,
                layout.matched,
                build_pooling(layout, dim=spec.dim) if pool_histories else None,
            )
            for layout in histories
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
