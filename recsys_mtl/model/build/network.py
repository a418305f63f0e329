"""A model spec over fitted features -> the network."""

from collections.abc import Mapping

import torch

from recsys_mtl.config.feature import FeatureSpec
from recsys_mtl.config.model import ModelSpec
from recsys_mtl.config.task import TaskSpec
from recsys_mtl.features.manifest import TaskStats
from recsys_mtl.features.schema import FeatureSchema
from recsys_mtl.model.build.bottom import build_bottom, pools_histories
from recsys_mtl.model.build.chain import build_chain
from recsys_mtl.model.build.embedding import build_embedding
from recsys_mtl.model.build.gating import build_gating
from recsys_mtl.model.build.head import build_head
from recsys_mtl.model.build.history import lay_out_histories
from recsys_mtl.model.build.tower import build_tower, tower_contexts
from recsys_mtl.model.network import Network, Trunk

__all__ = ["build_network"]


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
    task_heads = tuple(build_head(task, stats[task.name]) for task in tasks)
    num_logits = tuple(head.num_logits for head in task_heads)
    dim = model.embedding.dim
    histories = lay_out_histories(features, schema)
    by_bottom = pools_histories(model.bottom)
    embedding = build_embedding(
        model.embedding,
        histories,
        schema,
        device=device,
        pool_histories=not by_bottom,
        contexts=tower_contexts(
            model.tower, schema, num_logits=num_logits, context_dim=dim
        ),
    )
    bottom = build_bottom(
        model.bottom,
        num_fields=embedding.num_fields,
        dim=dim,
        num_dense=0 if embedding.numbers is not None else len(schema.dense),
        num_tasks=len(tasks),
        histories=histories if by_bottom else (),
    )
    names = tuple(task.name for task in tasks)
    gating = build_gating(model.gating, dim=bottom.out_dim, tasks=names)
    chain = build_chain(model.chain, dim=gating.out_dim, tasks=names)
    tower = build_tower(
        model.tower, dim=gating.out_dim, num_logits=num_logits, context_dim=dim
    )
    tower.start_at(chain.start([head.initial_logits for head in task_heads]))
    return Network(embedding, Trunk(bottom, gating, chain, tower), task_heads)
