"""How close a model came to the best there is: only the simulator can tell."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from recsys_mtl.config.condition import Condition
from recsys_mtl.config.recipe import Recipe
from recsys_mtl.config.source import SimulatorSource
from recsys_mtl.data.simulator import Simulator
from recsys_mtl.evaluate.metric import binary_metrics

__all__ = ["best_possible"]

_TRUTH = {
    # label column: the true probability, given a click but for the click itself
    "is_click": "true.click",
    "long_view": "true.long_view",
    "like": "true.like",
    "follow": "true.follow",
    "order": "true.order",
}


def best_possible(
    recipe: Recipe, predictions: Path, metrics: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, float]]:
    """Score the predicted rows by the probabilities that made their labels.

    Args:
        recipe: Its interactions may come from the simulator; otherwise there is no
            truth to compare with, and nothing is returned.
        predictions: Written by ``evaluate_network``.
        metrics: What it measured on them.

    Returns:
        For each binary task on one of the simulator's labels: ``best_auc``, and
        ``reached``, the share of the way from .5 to it that the predictions came.
    """
    source = recipe.data.interactions
    if not isinstance(source, SimulatorSource):
        return {}
    rows = pq.read_table(predictions).to_pandas()
    rows["time_ms"] = rows["key.time"] // 1_000
    rows = rows.rename(columns={"key.user": "user_id"})
    truth = rows[["user_id", "time_ms"]].merge(
        _truth(source, rows), on=["user_id", "time_ms"], how="left", validate="1:1"
    )
    best: dict[str, dict[str, float]] = {}
    for task in recipe.tasks:
        if task.kind != "binary" or isinstance(task.label, Condition):
            continue
        if task.label not in _TRUTH:
            continue
        true_B = truth[_TRUTH[task.label]].to_numpy()
        if task.label != "is_click" and task.sample_space is None:
            true_B = true_B * truth["true.click"].to_numpy()
        label_B = rows[f"label.{task.name}"].to_numpy()
        known_B = ~np.isnan(label_B)
        top = binary_metrics(label_B[known_B], true_B[known_B]).get("auc")
        ours = metrics[task.name].get("auc")
        if top is not None and ours is not None and top > 0.5:
            best[task.name] = {
                "best_auc": top,
                "reached": (ours - 0.5) / (top - 0.5),
            }
    return best


def _truth(source: SimulatorSource, rows: pd.DataFrame) -> pd.DataFrame:
    """Truth of the chunks' rows in the time of ``rows``, one chunk after another."""
    simulator = Simulator(source)
    columns = ["user_id", "time_ms", *_TRUTH.values()]
    first, last = rows["time_ms"].min(), rows["time_ms"].max()
    parts: list[pd.DataFrame] = []
    for index in range(simulator.num_chunks):
        chunk: pd.DataFrame = simulator.chunk(index).select(columns).to_pandas()
        parts.append(chunk[chunk["time_ms"].between(first, last)])
    truth: pd.DataFrame = pd.concat(parts, ignore_index=True)
    return truth
