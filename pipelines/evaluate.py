"""Measure a trained network on feature tables, and keep its predictions."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys_mtl.calibrate import Calibration
from recsys_mtl.config.recipe import Recipe
from recsys_mtl.data.reader import FeatureReader
from recsys_mtl.evaluate.curve import Curve
from recsys_mtl.evaluate.metric import evaluate_tasks
from recsys_mtl.export.bundle import load_bundle
from recsys_mtl.model.network import Network
from recsys_mtl.progress import OnProgress, Progress, silent
from recsys_mtl.train.predict import Predictions, predict

__all__ = [
    "evaluate_bundle",
    "evaluate_network",
    "read_predictions",
    "read_uncalibrated",
]

Metrics = dict[str, dict[str, float]]

_BATCH_SIZE = 4_096
"""Bounds memory; predictions do not depend on it."""

_UNCALIBRATED = "uncalibrated."

_POINTS = b"points"
"""Metadata of a column of curves: the labels at which they are known."""


def evaluate_bundle(
    bundle: Path,
    tables: Path,
    split: str = "test",
    *,
    predictions: Path | None = None,
    on_progress: OnProgress = silent,
) -> Metrics:
    """Measure a bundle again.

    Args:
        bundle: Folder that ``write_bundle`` wrote.
        tables: Feature tables made with the bundle's encoders.
        split: ``train``, ``valid`` or ``test``.
        predictions: Parquet file to write labels and predictions to.
        on_progress: Told of rows.

    Raises:
        ArtifactError: The bundle or the tables cannot be used.
    """
    loaded = load_bundle(bundle)
    return evaluate_network(
        loaded.network,
        loaded.recipe,
        tables,
        split,
        calibration=loaded.calibration,
        predictions=predictions,
        on_progress=on_progress,
    )


def evaluate_network(
    network: Network,
    recipe: Recipe,
    tables: Path,
    split: str,
    *,
    calibration: Calibration | None = None,
    predictions: Path | None = None,
    on_progress: OnProgress = silent,
) -> Metrics:
    """Predict a split and compare with its labels; arguments as ``evaluate_bundle``.

    Negatives that the recipe's rows are without stay out of the comparison.

    Args:
        network: Predicts.
        recipe: Of the network.
        tables: Feature tables of the recipe.
        split: ``train``, ``valid`` or ``test``.
        calibration: What is done to predictions; nothing if left out.
        predictions: Parquet file to write labels and predictions to; of calibrated
            tasks also, as ``uncalibrated.<task>``, what the network itself says.
        on_progress: Told of rows.
    """
    names = tuple(task.name for task in recipe.tasks)
    reader = FeatureReader(tables, split, batch_size=_BATCH_SIZE, tasks=names)
    on_progress(Progress("evaluate", 0, reader.num_rows))
    raw = predict(network, reader)
    calibration = calibration or Calibration()
    made = raw._replace(
        prediction_BT=calibration.apply(raw.prediction_BT, names, as_read=True)
    )
    user_B = reader.users() if recipe.data.keys.user is not None else None
    metrics = evaluate_tasks(
        recipe.tasks, made.label_BT, made.prediction_BT, user_B, curves=made.curves
    )
    if predictions is not None:
        predictions.parent.mkdir(parents=True, exist_ok=True)
        table = _table(made, names, _keys(tables / split))
        for task in calibration.tasks:
            column = pa.array(raw.prediction_BT[:, names.index(task)])
            table = table.append_column(f"{_UNCALIBRATED}{task}", column)
        pq.write_table(table, predictions)
    on_progress(Progress("evaluate", reader.num_rows, reader.num_rows))
    return metrics


def read_predictions(path: Path, recipe: Recipe) -> Predictions:
    """Read back what ``evaluate_network`` wrote."""
    table = pq.read_table(path)

    def columns(kind: str) -> np.ndarray:
        names = [f"{kind}.{task.name}" for task in recipe.tasks]
        return np.stack([table.column(name).to_numpy() for name in names], axis=1)

    curves = {}
    for task in recipe.tasks:
        place = table.schema.get_field_index(f"curve.{task.name}")
        if place >= 0:
            points = json.loads(table.schema.field(place).metadata[_POINTS])
            flat = table.column(place).combine_chunks().flatten().to_numpy()
            curves[task.name] = Curve(tuple(points), flat.reshape(-1, len(points)))
    return Predictions(columns("prediction"), columns("label"), curves)


def read_uncalibrated(path: Path) -> dict[str, np.ndarray]:
    """Read what the network itself said of calibrated tasks, by task."""
    names = pq.read_schema(path).names
    names = [name for name in names if name.startswith(_UNCALIBRATED)]
    table = pq.read_table(path, columns=names)
    return {
        name.removeprefix(_UNCALIBRATED): table.column(name).to_numpy()
        for name in names
    }


def _table(made: Predictions, names: tuple[str, ...], table: pa.Table) -> pa.Table:
    """Labels, predictions and curves beside the keys."""
    for t, name in enumerate(names):
        label = pa.array(made.label_BT[:, t], from_pandas=True)  # NaN: no label
        table = table.append_column(f"label.{name}", label)
        table = table.append_column(
            f"prediction.{name}", pa.array(made.prediction_BT[:, t])
        )
        if name in made.curves:
            curve = made.curves[name]
            cells = pa.FixedSizeListArray.from_arrays(
                pa.array(curve.above_BP.reshape(-1)), len(curve.points)
            )
            field = pa.field(
                f"curve.{name}",
                cells.type,
                metadata={_POINTS: json.dumps(curve.points)},
            )
            table = table.append_column(field, cells)
    return table


def _keys(split: Path) -> pa.Table:
    """Who saw what when, row by row in file order."""
    parts = []
    for path in sorted(split.glob("part-*.parquet")):
        names = [n for n in pq.read_schema(path).names if n.startswith("key.")]
        parts.append(pq.read_table(path, columns=names))
    return pa.concat_tables(parts)
