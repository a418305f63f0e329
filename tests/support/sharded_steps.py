"""A few training steps on one worker of one or several.

Started as a program it is one worker: ``sharded_steps.py RANK WORLD TABLES FOLDER``.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from feature_tables import SCHEMA, encoded_table, recipe

from recsys_mtl.data.batch import to_batch
from recsys_mtl.features.manifest import FeatureManifest
from recsys_mtl.train.checkpoint import Checkpointer, build
from recsys_mtl.train.optimizer import Optimizer
from recsys_mtl.train.quiet import quiet
from recsys_mtl.train.shard import full_state, process_group, shard
from recsys_mtl.train.state import RunState
from recsys_mtl.train.step import Stepper

CPU = torch.device("cpu")
EMBEDDINGS = {
    "fused": {"kind": "rowwise_adagrad", "learning_rate": 0.1},
    "adam": {"kind": "adam", "learning_rate": 0.02, "l2": 1e-3},
}


def take(
    kind: str,
    tables: Path,
    steps: range,
    *,
    load: Path | None = None,
    save: Path | None = None,
) -> dict[str, torch.Tensor]:
    """Take ``steps`` of 60 rows in all, from ``load`` if given; give all weights."""
    spec = recipe(embedding_optimizer=EMBEDDINGS[kind], dropout=0.0)
    with quiet(), process_group(CPU):
        rank, world = dist.get_rank(), dist.get_world_size()
        torch.manual_seed(0)
        network = build(spec, FeatureManifest.load(tables), device=torch.device("meta"))
        embeddings = spec.train.embedding_optimizer
        model = shard(network, embeddings, device=CPU, seed=0)
        optimizer = Optimizer(model, spec.train)
        if load is not None:
            Checkpointer(load).restore(model, optimizer)
        step = Stepper(model, optimizer, tasks=spec.tasks, bf16=False, seed=0)
        share = 60 // world
        for number in steps:
            rows = encoded_table(60, seed=number).slice(rank * share, share)
            step(to_batch(rows, SCHEMA, ("click", "stay")), number)
        if save is not None:
            state = RunState.start("digest", num_tasks=2)
            Checkpointer(save).save(model, optimizer, state, best=True)
        return full_state(model)


def main(rank: int, world: int, tables: Path, folder: Path) -> None:
    """Take three steps and save; then go on from what one worker has saved."""
    store = dist.FileStore(str(folder / "store"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    for kind in EMBEDDINGS:
        three = take(kind, tables, range(3), save=folder / f"{kind}-by-{world}")
        on = take(kind, tables, range(3, 5), load=folder / f"{kind}-by-1")
        if rank == 0:
            torch.save({"three": three, "on": on}, folder / f"{kind}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
