"""Weights, optimizer state and position on disk, for any number of workers.

``<folder>/state.json`` names the newest and the best checkpoint, each a folder that
``torch.distributed.checkpoint`` wrote. Folders are written under a temporary name,
renamed, and named by ``state.json`` only then; what it no longer names is deleted last.
So whatever happens, ``state.json`` tells of complete checkpoints.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from recsys_mtl.config.recipe import Recipe
from recsys_mtl.errors import ArtifactError
from recsys_mtl.features.manifest import FeatureManifest
from recsys_mtl.model.build import build_network
from recsys_mtl.model.network import Network
from recsys_mtl.train.optimizer import Optimizer
from recsys_mtl.train.quiet import quiet
from recsys_mtl.train.shard import process_group
from recsys_mtl.train.state import RunState

__all__ = ["Checkpointer", "build", "load_network", "read_state"]

_FORMAT_VERSION = 1


class _Index(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int
    newest: str
    best: str | None
    state: RunState


class Checkpointer:
    """Saves and restores one run; all workers call every method together.

    Args:
        folder: Holds the checkpoints of this run alone.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def unfinished(self, digest: str) -> RunState | None:
        """State of the run to continue, or ``None`` to start anew.

        Raises:
            ArtifactError: The unfinished run in the folder is of another recipe or of
                other feature tables, or of another version of this library.
        """
        index = _read_index(self._folder)
        if index is None or index.state.finished:
            return None
        if index.state.digest != digest:
            raise ArtifactError(
                f"{self._folder} holds an unfinished run of another recipe or of other "
                f"feature tables (digest {index.state.digest[:12]}, now "
                f"{digest[:12]}); finish it with its own recipe, delete the folder, or "
                "choose another one"
            )
        return index.state

    def save(
        self, model: nn.Module, optimizer: Optimizer, state: RunState, *, best: bool
    ) -> None:
        """Write a checkpoint.

        Args:
            model: The sharded network.
            optimizer: Its optimizer.
            state: Where the run stands.
            best: Whether these are the best weights yet.
        """
        index = _read_index(self._folder)
        name = f"step-{state.step:09d}"
        final, temporary = self._folder / name, self._folder / f".{name}.tmp"
        if not final.exists() or index is None or index.state.step != state.step:
            if _first():
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir(parents=True)
            _barrier()
            with quiet():
                # One file for all tensors would hold them all in memory once more.
                writer = FileSystemWriter(temporary, single_file_per_rank=False)
                save(_tensors(model, optimizer), storage_writer=writer)
            if _first():
                shutil.rmtree(final, ignore_errors=True)
                temporary.rename(final)
        kept_best = name if best else (index.best if index else None)
        self._commit(newest=name, best=kept_best, state=state)

    def restore(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Load the newest checkpoint into ``model`` and ``optimizer``."""
        optimizer.allocate()
        self._load(_tensors(model, optimizer), self._index().newest)

    def finish(self, model: nn.Module, state: RunState) -> None:
        """Load the best weights into ``model`` and keep them alone."""
        best = self._index().best
        assert best is not None, "a run ends with a check"
        self._load({"model": model.state_dict()}, best)
        self._commit(newest=best, best=best, state=state)

    def _index(self) -> _Index:
        index = _read_index(self._folder)
        assert index is not None, f"{self._folder} has no checkpoint"
        return index

    def _load(self, tensors: dict[str, Any], name: str) -> None:
        with quiet():
            load(tensors, checkpoint_id=self._folder / name)

    def _commit(self, *, newest: str, best: str | None, state: RunState) -> None:
        if _first():
            index = _Index(
                format_version=_FORMAT_VERSION, newest=newest, best=best, state=state
            )
            temporary = self._folder / ".state.json.tmp"
            temporary.write_text(index.model_dump_json(indent=1))
            temporary.replace(self._folder / "state.json")
            for folder in self._folder.iterdir():
                if folder.is_dir() and folder.name not in (newest, best):
                    shutil.rmtree(folder)
        _barrier()


def build(
    recipe: Recipe, manifest: FeatureManifest, *, device: torch.device
) -> Network:
    """Build the recipe's network over the columns and labels of ``manifest``."""
    return build_network(
        recipe.model,
        recipe.features,
        manifest.feature_schema,
        recipe.tasks,
        {task.name: manifest.tasks[task.name]["train"] for task in recipe.tasks},
        device=device,
    )


def load_network(recipe: Recipe, tables: Path, run_dir: Path) -> Network:
    """Load the best weights of a run into a network on the CPU, in eval mode.

    Raises:
        ArtifactError: There is no checkpoint, or none that fits.
    """
    folder = run_dir / "checkpoint"
    index = _read_index(folder)
    if index is None or index.best is None:
        raise ArtifactError(
            f"{folder} holds no checkpoint with a validation; train first"
        )
    cpu = torch.device("cpu")
    network = build(recipe, FeatureManifest.load(tables), device=cpu)
    with process_group(cpu), quiet():
        try:
            load({"model": network.state_dict()}, checkpoint_id=folder / index.best)
        except (CheckpointException, RuntimeError, ValueError) as fault:
            raise ArtifactError(
                f"{folder / index.best} does not fit the network of recipe "
                f"{recipe.name!r} ({fault}); train again with this recipe"
            ) from fault
    return network.eval()


def read_state(run_dir: Path) -> RunState:
    """Read where a run stands.

    Raises:
        ArtifactError: There is no checkpoint, or it is of another version.
    """
    index = _read_index(run_dir / "checkpoint")
    if index is None:
        raise ArtifactError(f"{run_dir} holds no checkpoint; train first")
    return index.state


def _tensors(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    return {"model": model.state_dict(), "optimizer": optimizer.keyed.state_dict()}


def _read_index(folder: Path) -> _Index | None:
    path = folder / "state.json"
    if not path.exists():
        return None
    try:
        index = _Index.model_validate_json(path.read_text())
    except ValidationError as fault:
        raise ArtifactError(
            f"{path} is no checkpoint index of this version ({fault}); delete {folder}"
        ) from fault
    if index.format_version != _FORMAT_VERSION:
        raise ArtifactError(
            f"{path} has format version {index.format_version}, this version reads "
            f"{_FORMAT_VERSION}; delete {folder} or use the version that wrote it"
        )
    return index


def _first() -> bool:
    return dist.get_rank() == 0


def _barrier() -> None:
    if dist.get_world_size() > 1:
        dist.barrier()
