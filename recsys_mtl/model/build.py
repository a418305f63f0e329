"""The only place that knows both specs and modules."""

from collections.abc import Mapping
from typing import Literal, assert_never

import torch

from recsys_mtl.config.feature import (
    AttentionPooling,
    FeatureSpec,
    HistoryFeature,
    MeanPooling,
    PoolingSpec,
)
from recsys_mtl.config.gating import GatingSpec, MMoESpec, SharedBottomSpec
from recsys_mtl.config.model import (
    BottomSpec,
    EmbeddingSpec,
    FlatSpec,
    MLPTowerSpec,
    ModelSpec,
)
from recsys_mtl.config.task import BinaryTask, TaskSpec, ValueTask
from recsys_mtl.errors import ConfigError
from recsys_mtl.features.manifest import TaskStats
from recsys_mtl.features.schema import (
    GAP,
    NUM_GAPS,
    FeatureSchema,
    HistoryField,
    IdField,
)
from recsys_mtl.model.bottoms import AbstractBottom, FlatBottom
from recsys_mtl.model.embeddings import BatchEmbedding, HistoryEmbedding, Table
from recsys_mtl.model.embeddings import pooling as poolings
from recsys_mtl.model.gating import AbstractGating, MMoE, SharedBottom
from recsys_mtl.model.heads import (
    AbstractHead,
    BinaryHead,
    LogNormalHead,
    SquaredHead,
)
from recsys_mtl.model.network import Network, Trunk
from recsys_mtl.model.towers import AbstractTower, MLPTower

__all__ = [
    "build_bottom",
    "build_embedding",
    "build_gating",
    "build_head",
    "build_network",
    "build_pooling",
    "build_tower",
]


def build_network(
    model: ModelSpec,
    features: tuple[FeatureSpec, ...],
    schema: FeatureSchema,
    tasks: tuple[TaskSpec, ...],
    stats: Mapping[str, TaskStats],
    *,
    device: torch.device,
) -> Network:
    """Assemble the network of a recipe over the encoded columns of ``schema``.

    Args:
        model: What each stage is.
        features: The recipe's features; histories say how they are pooled.
        schema: Tables and columns, as fitted.
        tasks: What is predicted.
        stats: Training labels of each task; the network starts at their means.
        device: Where embedding tables lie; ``meta`` leaves making them to
            ``DistributedModelParallel``. All other parameters are made on the CPU.

    Raises:
        ConfigError: An attention has nothing to compare events with.
    """
    embedding = build_embedding(model.embedding, features, schema, device=device)
    bottom = build_bottom(
        model.bottom,
        num_fields=embedding.num_fields,
        dim=model.embedding.dim,
        num_dense=len(schema.dense),
    )
    gating = build_gating(model.gating, dim=bottom.out_dim, num_tasks=len(tasks))
    task_heads = tuple(build_head(task, stats[task.name]) for task in tasks)
    tower = build_tower(
        model.tower,
        dim=gating.out_dim,
        num_logits=tuple(head.num_logits for head in task_heads),
    )
    tower.start_at([head.initial_logits for head in task_heads])
    return Network(embedding, Trunk(bottom, gating, tower), task_heads)


def build_embedding(
    spec: EmbeddingSpec,
    features: tuple[FeatureSpec, ...],
    schema: FeatureSchema,
    *,
    device: torch.device,
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
    )


def build_pooling(
    spec: PoolingSpec, *, dim: int, num_fields: int, num_matched: int
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
        case _:
            assert_never(spec)


def build_bottom(
    spec: BottomSpec, *, num_fields: int, dim: int, num_dense: int
) -> AbstractBottom:
    """Build the bottom that ``spec`` names."""
    match spec:
        case FlatSpec(dropout=dropout):
            return FlatBottom(
                num_fields=num_fields, dim=dim, num_dense=num_dense, dropout=dropout
            )
        case _:
            assert_never(spec)


def build_gating(spec: GatingSpec, *, dim: int, num_tasks: int) -> AbstractGating:
    """Build the gating that ``spec`` names."""
    match spec:
        case SharedBottomSpec(hidden=hidden, dropout=dropout):
            return SharedBottom(dim, hidden, num_tasks=num_tasks, dropout=dropout)
        case MMoESpec(hidden=hidden, num_experts=num_experts, dropout=dropout):
            return MMoE(
                dim,
                hidden,
                num_experts=num_experts,
                num_tasks=num_tasks,
                dropout=dropout,
            )
        case _:
            assert_never(spec)


def build_tower(
    spec: MLPTowerSpec, *, dim: int, num_logits: tuple[int, ...]
) -> AbstractTower:
    """Build the towers that ``spec`` names."""
    match spec:
        case MLPTowerSpec(hidden=hidden, dropout=dropout):
            return MLPTower(dim, hidden, num_logits=num_logits, dropout=dropout)
        case _:
            assert_never(spec)


def build_head(task: TaskSpec, stats: TaskStats) -> AbstractHead:
    """Build the head of a task's kind of label, to start at its training labels."""
    match task:
        case BinaryTask():
            return BinaryHead(base_rate=stats.mean)
        case ValueTask(loss=loss):
            return _value_head(loss, stats)
        case _:
            assert_never(task)


def _value_head(
    loss: Literal["log_normal", "squared"], stats: TaskStats
) -> AbstractHead:
    match loss:
        case "log_normal":
            return LogNormalHead(log_mean=stats.log_mean, log_std=stats.log_std)
        case "squared":
            return SquaredHead(mean=stats.mean)
        case _:
            assert_never(loss)


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
    if isinstance(spec.pooling, AttentionPooling) and not matched:
        raise ConfigError(
            f"history {spec.name!r} with pooling 'din' must have a field that the "
            f"scored row has too, got {', '.join(history.fields)}, all history_only; "
            "add one or pool by 'mean'"
        )
    columns = tuple(f"{history.name}.{field}" for field in matched)
    rest = tuple(column for column in history.columns if column not in columns)
    pooling = build_pooling(
        spec.pooling,
        dim=dim,
        num_fields=len(history.columns),
        num_matched=len(matched),
    )
    return HistoryEmbedding((*columns, *rest), matched, pooling)
