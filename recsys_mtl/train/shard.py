"""One network over one or many workers, by one road."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import HashStore
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torchrec import EmbeddingBagCollection, EmbeddingCollection
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.planner import (
    EmbeddingShardingPlanner,
    ParameterConstraints,
    Topology,
)
from torchrec.distributed.types import ModuleSharder, ShardingPlan, ShardingType
from torchrec.modules.embedding_configs import BaseEmbeddingConfig, EmbeddingBagConfig
from torchrec.optim import RowWiseAdagrad
from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward

from recsys_mtl.config.train import (
    EmbeddingOptimizerSpec,
    RowwiseAdagradEmbeddings,
)
from recsys_mtl.train.quiet import quiet

__all__ = ["full_state", "local_tables", "process_group", "shard"]

_INIT_ROWS = 65_536
"""Rows of a table that are drawn at once; part of the meaning of a seed."""

_COLLECTIONS = (EmbeddingBagCollection, EmbeddingCollection)


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Give the block a process group: the one there is, or one of a single process.

    A group of one meets in memory, so that no port is opened and nothing is left over.
    """
    if dist.is_initialized():
        yield
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def shard(
    network: nn.Module,
    spec: EmbeddingOptimizerSpec,
    *,
    device: torch.device,
    seed: int,
) -> DistributedModelParallel:
    """Spread a network whose tables lie on ``meta`` over the process group.

    With row-wise Adagrad the tables are sharded by TorchRec's planner and updated by
    the fused kernel inside the backward pass. With Adam every worker holds whole
    tables with dense gradients, like all other parameters.

    Tables start from ``seed`` alone, whatever the number of workers: blocks of rows
    are drawn by the table's own ``init_fn`` from generators seeded by table and block.

    Args:
        network: Built with ``device=meta``.
        spec: How tables are updated.
        device: Where this worker computes.
        seed: Start of the tables.
    """
    collections = {
        path: module
        for path, module in network.named_modules()
        if isinstance(module, _COLLECTIONS)
    }
    configs = {path: _configs(module) for path, module in collections.items()}
    _move(network, device)
    with quiet():
        if isinstance(spec, RowwiseAdagradEmbeddings):
            for collection in collections.values():
                apply_optimizer_in_backward(
                    RowWiseAdagrad, collection.parameters(), {"lr": spec.learning_rate}
                )
            names = [config.name for group in configs.values() for config in group]
            plan = _plan(network, device, names)
        else:
            plan = ShardingPlan(plan={})
            for collection in collections.values():
                collection.to_empty(device=device)
        model = DistributedModelParallel(
            network,
            device=device,
            plan=plan,
            sharders=_sharders(),
            # A group of one has nothing to reduce, and DDP would copy every gradient.
            init_data_parallel=dist.get_world_size() > 1,
        )
        weights = model.state_dict()
        for path, group in configs.items():
            for config in group:
                _start(weights[_weight_name(path, config)], config, seed)
    return model


def full_state(model: nn.Module) -> dict[str, Tensor]:
    """Gather all weights as plain CPU tensors under the names of an unsharded network.

    Every worker must call it; the first gets the weights and the others nothing.
    """
    state: dict[str, Tensor] = {}
    first = not dist.is_initialized() or dist.get_rank() == 0
    with quiet():
        for name, value in model.state_dict().items():
            if isinstance(value, ShardedTensor):
                whole = torch.empty(value.size()) if first else None
                value.gather(dst=0, out=whole)
            else:
                whole = value.detach().cpu().clone()
            if first and whole is not None:
                state[name] = whole
    return state


def local_tables(model: nn.Module) -> Iterator[Tensor]:
    """Yield whole embedding tables with dense gradients, if the model has such."""
    for module in model.modules():
        if isinstance(module, _COLLECTIONS):
            yield from module.parameters()


def _configs(
    module: EmbeddingBagCollection | EmbeddingCollection,
) -> list[BaseEmbeddingConfig]:
    if isinstance(module, EmbeddingBagCollection):
        return list(module.embedding_bag_configs())
    return list(module.embedding_configs())


def _weight_name(path: str, config: BaseEmbeddingConfig) -> str:
    bag = isinstance(config, EmbeddingBagConfig)
    return f"{path}.{'embedding_bags' if bag else 'embeddings'}.{config.name}.weight"


def _sharders() -> list[ModuleSharder[nn.Module]]:
    return [EmbeddingBagCollectionSharder(), EmbeddingCollectionSharder()]


def _plan(network: nn.Module, device: torch.device, tables: list[str]) -> ShardingPlan:
    world = dist.get_world_size()
    # The planner splits rows even over one worker, which only costs time.
    types = [ShardingType.TABLE_WISE.value]
    if world > 1:
        types.append(ShardingType.ROW_WISE.value)
    constraint = ParameterConstraints(
        sharding_types=types, compute_kernels=[EmbeddingComputeKernel.FUSED.value]
    )
    planner = EmbeddingShardingPlanner(
        topology=Topology(
            world_size=world,
            compute_device=device.type,
            local_world_size=int(os.environ.get("LOCAL_WORLD_SIZE", world)),
        ),
        constraints=dict.fromkeys(tables, constraint),
    )
    return planner.collective_plan(network, _sharders(), dist.GroupMember.WORLD)


def _move(network: nn.Module, device: torch.device) -> None:
    """Move what is not on ``meta``, which ``Module.to`` refuses to do in part."""
    for module in network.modules():
        for parameter in module.parameters(recurse=False):
            if not parameter.is_meta:
                parameter.data = parameter.data.to(device)
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))


@torch.no_grad()
def _start(
    weight: Tensor | ShardedTensor, config: BaseEmbeddingConfig, seed: int
) -> None:
    shards = [(0, weight)]
    if isinstance(weight, ShardedTensor):
        shards = [
            (shard.metadata.shard_offsets[0], shard.tensor)
            for shard in weight.local_shards()
        ]
    assert config.init_fn is not None, config.name
    with torch.random.fork_rng(devices=[]):
        for first_row, rows_VD in shards:
            stop_row = first_row + len(rows_VD)
            for start in range(0, config.num_embeddings, _INIT_ROWS):
                stop = min(start + _INIT_ROWS, config.num_embeddings)
                begin, end = max(start, first_row), min(stop, stop_row)
                if begin >= end:
                    continue
                digest = blake2b(
                    f"{seed}/{config.name}/{start}".encode(), digest_size=8
                )
                torch.manual_seed(int.from_bytes(digest.digest()))
                block_VD = torch.empty(stop - start, config.embedding_dim)
                config.init_fn(block_VD)
                rows_VD[begin - first_row : end - first_row] = block_VD[
                    begin - start : end - start
                ]
