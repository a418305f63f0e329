"""The network in a bundle: weights, rounded tables, and the program that runs it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file
from torch import Tensor

from recsys_mtl.config.recipe import Recipe
from recsys_mtl.data.request_batch import RequestBatch, SchemaSplit
from recsys_mtl.errors import ArtifactError
from recsys_mtl.evaluate.rounding import Rounding
from recsys_mtl.export.program import (
    EngineInfo,
    StartedEngine,
    load_engine,
    write_program,
)
from recsys_mtl.export.rounding import (
    load_rows,
    round_network,
    save_rows,
    unrounded,
)
from recsys_mtl.export.weights import map_weights
from recsys_mtl.features.manifest import TaskStats
from recsys_mtl.features.schema import FeatureSchema
from recsys_mtl.model.build import build_network
from recsys_mtl.model.embeddings import AbstractTableRows, stacks_of
from recsys_mtl.model.network import Network
from recsys_mtl.model.request_network import RequestNetwork

__all__ = ["NetworkFiles", "empty_network", "load_network_files", "write_network"]

_WEIGHTS: Final = "network.safetensors"
_TABLES: Final = "tables.safetensors"


class NetworkFiles(NamedTuple):
    """A network as a bundle has it.

    Attributes:
        network: In evaluation mode, weights mapped from disk. Rounded tables are not in
            it: they stay on ``meta`` until ``fill_tables``.
        rows: Rounded tables; ``None`` if they are as trained.
        started: Scores requests with both.
    """

    network: Network
    rows: list[AbstractTableRows] | None
    started: StartedEngine

    def fill_tables(self) -> None:
        """Give the network rounded tables as float32, in memory of this process."""
        if self.rows is not None:
            state = unrounded(stacks_of(self.network.embedding), self.rows)
            self.network.load_state_dict(state, strict=False, assign=True)
            self.network.requires_grad_(requires_grad=False)


def empty_network(
    recipe: Recipe, schema: FeatureSchema, stats: Mapping[str, TaskStats]
) -> Network:
    """Build the network of a recipe without tables."""
    # On meta, tables take no memory and no time until weights are assigned.
    return build_network(
        recipe.model,
        recipe.features,
        schema,
        recipe.tasks,
        stats,
        device=torch.device("meta"),
    )


def write_network(
    folder: Path,
    recipe: Recipe,
    network: Network,
    state: Mapping[str, Tensor],
    tables: Path,
    split: SchemaSplit,
) -> tuple[Rounding, EngineInfo]:
    """Write weights, tables as the recipe wants them, and the program.

    Args:
        folder: Of the bundle.
        recipe: What was trained.
        network: Of the recipe, empty.
        state: Its weights.
        tables: Feature tables: what rounding costs is measured on validation rows, and
            the program is compared with the network on training rows.
        split: What candidates share.

    Raises:
        ArtifactError: The weights do not fit the network, rounding costs too much, or
            there is no program where the recipe insists on one.
    """
    _check_weights(network, state, where="the given weights")
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    network.load_state_dict(state, strict=True, assign=True)
    network.requires_grad_(requires_grad=False).eval()
    stacks = stacks_of(network.embedding)
    rows, about = round_network(recipe, network, tables)
    if about.kind != "float32":
        save_rows(stacks, rows, folder / _TABLES)
        rounded = {name for stack in stacks for name in stack.spans}
        state = {name: state[name] for name in state if name not in rounded}
    save_file(dict(state), folder / _WEIGHTS)
    prepared = RequestNetwork(network, split, rows)
    examples = _examples(tables, split)
    return about, write_program(recipe.export.engine, prepared, examples, folder)


def load_network_files(
    folder: Path,
    network: Network,
    split: SchemaSplit,
    rounding: Rounding,
    engine: EngineInfo,
) -> NetworkFiles:
    """Map what ``write_network`` wrote.

    Args:
        folder: Of the bundle.
        network: Of the recipe, empty.
        split: What candidates share.
        rounding: How tables are stored and products made.
        engine: What runs it.

    Raises:
        ArtifactError: A file is damaged, or does not fit the recipe.
    """
    path = folder / _WEIGHTS
    state = map_weights(path)
    stacks = stacks_of(network.embedding)
    rows: list[AbstractTableRows] | None = None
    rounded: frozenset[str] = frozenset()
    if rounding.kind != "float32":
        rows = load_rows(stacks, folder / _TABLES)
        rounded = frozenset(name for stack in stacks for name in stack.spans)
    _check_weights(network, state, where=str(path), besides=rounded)
    # Assigned, not copied: the parameters then are the mapped file.
    network.load_state_dict(state, strict=not rounded, assign=True)
    network.requires_grad_(requires_grad=False).eval()
    whole = rows or [stack.rows(state) for stack in stacks]
    prepared = RequestNetwork(network, split, whole)
    started = load_engine(engine, prepared, folder, precision=rounding.precision)
    return NetworkFiles(network, rows, started)


def _check_weights(
    network: Network,
    state: Mapping[str, Tensor],
    *,
    where: str,
    besides: frozenset[str] = frozenset(),
) -> None:
    """Refuse weights of other names, shapes or types than the network's."""
    wanted = {n: w for n, w in network.state_dict().items() if n not in besides}
    for name in sorted(wanted.keys() | state.keys()):
        want, got = (_form(weights.get(name)) for weights in (wanted, state))
        if want != got:
            raise ArtifactError(
                f"{name!r} of {where} must be {want}, got {got}; weights, recipe and "
                "feature tables must be of one training run"
            )


def _form(tensor: Tensor | None) -> str:
    if tensor is None:
        return "absent"
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def _examples(tables: Path, split: SchemaSplit) -> list[RequestBatch]:
    """Make requests of the first training rows: of several users, and of one."""
    columns = list(split.schema.columns)
    for path in sorted((tables / "train").glob("part-*.parquet")):
        with pq.ParquetFile(path) as file:
            rows = next(file.iter_batches(64, columns=columns, use_threads=False), None)
        if rows is not None and rows.num_rows:
            table = pa.Table.from_batches([rows])
            return [_request(table, split, users) for users in (3, 1)]
    return []


def _request(table: pa.Table, split: SchemaSplit, num_requests: int) -> RequestBatch:
    num_requests = min(num_requests, table.num_rows)
    request_N = np.arange(table.num_rows) * num_requests // table.num_rows
    return RequestBatch.of_tables(split, table.slice(0, num_requests), table, request_N)
