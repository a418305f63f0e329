"""How much each task needs each feature."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.special import stdtrit

from recsys_mtl.config.task import TaskSpec
from recsys_mtl.data.batch import Batch, EncodedRows
from recsys_mtl.evaluate.auc import auc_with_interval
from recsys_mtl.evaluate.ties import Ties
from recsys_mtl.features.schema import FeatureSchema
from recsys_mtl.model.network import Network
from recsys_mtl.progress import OnProgress, Progress, silent
from recsys_mtl.xray.result import FeatureImportance

__all__ = ["Needs", "feature_columns", "measure_needs"]

_BATCH_SIZE = 4_096
"""Bounds memory; predictions do not depend on it."""


class Needs(NamedTuple):
    """What shuffling came to.

    Attributes:
        features: By feature and task; a task that cannot be measured on these rows,
            as the AUC of one class, is left out.
        baseline: Metric of each task with nothing shuffled.
    """

    features: tuple[FeatureImportance, ...]
    baseline: dict[str, float]


def measure_needs(
    network: Network,
    rows: EncodedRows,
    schema: FeatureSchema,
    tasks: Sequence[TaskSpec],
    *,
    shuffles: int,
    on_progress: OnProgress = silent,
) -> Needs:
    r"""Deal one feature's values out to other rows, and see what each task loses.

    Of binary tasks the AUC falls, of others the mean loss rises. All columns of a
    history go together. With :math:`\bar d` and :math:`s` the mean and deviation over
    :math:`K` shuffles the interval is :math:`\bar d \pm t_{K-1} s \sqrt{1 + 1/K}`: if
    the feature says nothing, its values as they are are one shuffle more, and 0 lies
    outside the interval once in twenty times.

    Args:
        network: In evaluation mode.
        rows: With labels.
        schema: What its columns mean.
        tasks: In the order of the labels.
        shuffles: For each feature; two or more.
        on_progress: Told of shuffles.

    Deviations:
        Features that tell the same stand in for each other, and then neither seems
        needed. Shuffling also makes rows that cannot be, as a user with another's
        age. Both are true of every permutation importance.

    References:
        L. Breiman. Random forests. Machine Learning 45 (2001).
        doi:10.1023/A:1010933404324
    """
    assert shuffles > 1, "one shuffle has no spread"
    columns = feature_columns(schema)
    baseline = _measure(network, rows, tasks)
    measured = [task for task in tasks if task.name in baseline]
    features: list[FeatureImportance] = []
    for place, (feature, names) in enumerate(columns.items()):
        losses: dict[str, list[float]] = {task.name: [] for task in measured}
        for number in range(shuffles):
            order_N = np.random.default_rng((place, number)).permutation(rows.num_rows)
            worse = _measure(network, _shuffled(rows, schema, names, order_N), tasks)
            for task in measured:
                fall = baseline[task.name] - worse[task.name]
                losses[task.name].append(fall if task.kind == "binary" else -fall)
            done, total = place * shuffles + number + 1, len(columns) * shuffles
            on_progress(Progress("features", done, total, feature))
        features += [_summary(feature, task, losses[task.name]) for task in measured]
    return Needs(tuple(features), baseline)


def feature_columns(schema: FeatureSchema) -> dict[str, tuple[str, ...]]:
    """Give the encoded columns of each feature that a row is scored by."""
    columns = {
        field.name: (field.name,) for field in schema.ids if not field.history_only
    }
    for name in schema.dense:
        # An aggregate has two columns, NAME.rate and NAME.count.
        feature = name.partition(".")[0]
        columns[feature] = (*columns.get(feature, ()), name)
    return columns | {history.name: history.columns for history in schema.histories}


def _shuffled(
    rows: EncodedRows,
    schema: FeatureSchema,
    columns: tuple[str, ...],
    order_N: Int[np.ndarray, " rows"],
) -> EncodedRows:
    """Give row ``n`` the columns of row ``order_N[n]``; other columns are shared."""
    mixed = replace(
        rows,
        ids=dict(rows.ids),
        starts=dict(rows.starts),
        lengths=dict(rows.lengths),
    )
    dense = [place for place, name in enumerate(schema.dense) if name in columns]
    if dense:
        mixed.dense_NM = rows.dense_NM.copy()
        mixed.dense_NM[:, dense] = rows.dense_NM[:, dense][order_N]
    moved: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for column in columns:
        if column in rows.ids:
            mixed.ids[column] = rows.ids[column][order_N]
        elif column in rows.starts:
            starts = rows.starts[column]
            # Columns of one history share their arrays, and must go on doing so.
            if id(starts) not in moved:
                moved[id(starts)] = starts[order_N], rows.lengths[column][order_N]
            mixed.starts[column], mixed.lengths[column] = moved[id(starts)]
    return mixed


@torch.no_grad()
def _measure(
    network: Network, rows: EncodedRows, tasks: Sequence[TaskSpec]
) -> dict[str, float]:
    """AUC of binary tasks and mean loss of others, where there is such."""
    predictions, labels = [], []
    loss_T = torch.zeros(len(tasks), dtype=torch.float64)
    count_T = torch.zeros_like(loss_T)
    for batch in _batches(rows):
        assert batch.label_BT is not None, "the rows have no labels"
        logits = network(batch).logits
        predictions.append(network.predict(logits).numpy())
        labels.append(batch.label_BT.numpy())
        mean_T, labelled_T = network.loss_T(logits, batch.label_BT)
        loss_T += mean_T.double() * labelled_T
        count_T += labelled_T
    prediction_BT, label_BT = np.concatenate(predictions), np.concatenate(labels)
    metrics = {}
    for t, task in enumerate(tasks):
        if task.kind == "binary":
            auc = _auc(label_BT[:, t], prediction_BT[:, t])
            if auc is not None:
                metrics[task.name] = auc
        elif count_T[t] > 0:
            metrics[task.name] = float(loss_T[t] / count_T[t])
    return metrics


def _auc(
    label_B: Float[np.ndarray, " batch"], prediction_B: Float[np.ndarray, " batch"]
) -> float | None:
    exists_B = ~np.isnan(label_B)
    if not exists_B.any():
        return None
    ties = Ties.of(label_B[exists_B], prediction_B[exists_B])
    return auc_with_interval(ties).get("auc")


def _batches(rows: EncodedRows) -> Iterator[Batch]:
    for start in range(0, rows.num_rows, _BATCH_SIZE):
        yield rows.batch(start, min(start + _BATCH_SIZE, rows.num_rows))


def _summary(
    feature: str, task: TaskSpec, losses: Sequence[float]
) -> FeatureImportance:
    count = len(losses)
    mean, deviation = float(np.mean(losses)), float(np.std(losses, ddof=1))
    half = float(stdtrit(count - 1, 0.975)) * deviation * (1 + 1 / count) ** 0.5
    return FeatureImportance(
        feature=feature,
        task=task.name,
        metric="auc" if task.kind == "binary" else "loss",
        loss=mean,
        low=mean - half,
        high=mean + half,
        shuffles=tuple(losses),
    )
