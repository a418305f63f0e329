"""Embedding tables and products in fewer bits, and what that costs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from recsys_mtl.config.export import ExportSpec
from recsys_mtl.config.recipe import Recipe
from recsys_mtl.data.reader import FeatureReader
from recsys_mtl.errors import ArtifactError
from recsys_mtl.evaluate.metric import evaluate_tasks
from recsys_mtl.evaluate.rounding import Rounding
from recsys_mtl.export.weights import map_weights
from recsys_mtl.model.embeddings import (
    AbstractTableRows,
    ByteRows,
    FloatRows,
    TableStack,
    stacks_of,
)
from recsys_mtl.model.network import Network
from recsys_mtl.train.predict import predict

__all__ = ["load_rows", "round_network", "save_rows", "unrounded"]

_BATCH_SIZE = 4096


def round_network(
    recipe: Recipe, network: Network, tables: Path
) -> tuple[list[AbstractTableRows], Rounding]:
    """Round all tables as the recipe says, and measure what tasks lose.

    Products are not changed here, but what rounding them costs is measured too.

    Args:
        recipe: What was trained.
        network: As trained; its tables are replaced by what rounding left of them.
        tables: Feature tables, whose validation rows are predicted twice if anything
            is rounded.

    Raises:
        ArtifactError: A task loses more AUC than the recipe allows.
    """
    spec = recipe.export
    state: Mapping[str, Tensor] = network.state_dict()
    stacks = stacks_of(network.embedding)
    trained = [stack.rows(state) for stack in stacks]
    rows = [_rounded(whole, spec.tables) for whole in trained]
    info = Rounding(
        kind=spec.tables,
        precision=spec.precision,
        bytes=sum(part.num_bytes for part in rows),
        float32_bytes=sum(part.num_bytes for part in trained),
    )
    if not info.rounds:
        return rows, info
    before = _auc(recipe, network, tables)
    network.load_state_dict(unrounded(stacks, rows), strict=False, assign=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=spec.precision == "bf16"):
        after = _auc(recipe, network, tables)
    auc = {task: (before[task], after[task]) for task in before}
    for task, (trained_auc, served_auc) in auc.items():
        if trained_auc - served_auc > spec.max_auc_loss:
            raise ArtifactError(_too_much(task, trained_auc, served_auc, spec))
    return rows, info.model_copy(update={"auc": auc})


def _rounded(whole: FloatRows, kind: str) -> AbstractTableRows:
    if kind == "int8":
        return ByteRows.of(whole.rows_VD)
    return FloatRows(whole.rows_VD.half()) if kind == "float16" else whole


def _too_much(task: str, before: float, after: float, spec: ExportSpec) -> str:
    causes, ways = [], []
    if spec.tables != "float32":
        causes.append(f"{spec.tables} tables")
        finer = "float16 or float32" if spec.tables == "int8" else "float32"
        ways.append(f"export.tables to {finer}")
    if spec.precision != "fp32":
        causes.append(f"{spec.precision} products")
        ways.append("export.precision to fp32")
    return (
        f"task {task!r} must lose at most {spec.max_auc_loss} AUC by "
        f"{' and '.join(causes)} (export.max_auc_loss), got {before:.5f} before and "
        f"{after:.5f} after on validation rows; set {' or '.join(ways)}, or allow more"
    )


def save_rows(
    stacks: Sequence[TableStack], rows: Sequence[AbstractTableRows], path: Path
) -> None:
    """Write rounded rows."""
    state = {}
    for stack, part in zip(stacks, rows, strict=True):
        if isinstance(part, ByteRows):
            state[f"{stack.name}.byte"] = part.byte_VD
            state[f"{stack.name}.affine"] = part.affine_V2
            state[f"{stack.name}.unit"] = torch.tensor([part.unit], dtype=torch.float64)
        else:
            assert isinstance(part, FloatRows)
            state[f"{stack.name}.rows"] = part.rows_VD
    save_file(state, path)


def load_rows(stacks: Sequence[TableStack], path: Path) -> list[AbstractTableRows]:
    """Map what ``save_rows`` wrote.

    Raises:
        ArtifactError: The file is damaged, or of other tables.
    """
    state = map_weights(path)
    rows: list[AbstractTableRows] = []
    for stack in stacks:
        name, shape = stack.name, (stack.num_rows, stack.dim)
        numbers = state.get(f"{name}.byte", state.get(f"{name}.rows"))
        if numbers is None or numbers.shape != shape:
            got = "none" if numbers is None else str(list(numbers.shape))
            raise ArtifactError(
                f"tables {name!r} of {path} must have the shape {list(shape)}, got "
                f"{got}; build the bundle again"
            )
        if f"{name}.byte" in state:
            unit = float(state[f"{name}.unit"][0])
            rows.append(ByteRows(numbers, state[f"{name}.affine"], unit))
        else:
            rows.append(FloatRows(numbers))
    return rows


def unrounded(
    stacks: Sequence[TableStack], rows: Sequence[AbstractTableRows]
) -> dict[str, Tensor]:
    """Give tables by their names in a ``state_dict``, as float32."""
    return {
        name: part.table(start, stop)
        for stack, part in zip(stacks, rows, strict=True)
        for name, (start, stop) in stack.spans.items()
    }


def _auc(recipe: Recipe, network: Network, tables: Path) -> dict[str, float]:
    names = tuple(task.name for task in recipe.tasks)
    reader = FeatureReader(tables, "valid", batch_size=_BATCH_SIZE, tasks=names)
    made = predict(network, reader)
    binary = [t for t, task in enumerate(recipe.tasks) if task.kind == "binary"]
    metrics = evaluate_tasks(
        [recipe.tasks[t] for t in binary],
        made.label_BT[:, binary],
        made.prediction_BT[:, binary],
    )
    # A task whose validation labels are all alike has no AUC.
    return {task: of["auc"] for task, of in metrics.items() if "auc" in of}
