"""One self-contained page about one trained model."""

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxtyping import Float
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from recsys_mtl.config.recipe import Recipe
from recsys_mtl.config.task import BinaryTask, TaskSpec
from recsys_mtl.evaluate.calibration import calibration_table
from recsys_mtl.evaluate.chart import (
    Chart,
    Line,
    calibration_chart,
    interval_chart,
    line_chart,
)
from recsys_mtl.evaluate.curve import Curve
from recsys_mtl.evaluate.metric import binary_metrics
from recsys_mtl.evaluate.report_column import CALIBRATION_COLUMNS, COLUMNS, Column
from recsys_mtl.evaluate.rounding import Rounding
from recsys_mtl.evaluate.task_chart import task_charts

__all__ = ["write_report"]

Metrics = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Split -> task -> metric -> value."""


_PACKAGES = ("recsys-mtl", "torch", "torchrec", "numpy", "pyarrow", "ray")


def write_report(
    path: Path,
    *,
    recipe: Recipe,
    history: Sequence[Mapping[str, Any]],
    metrics: Metrics,
    label_BT: Float[np.ndarray, "batch tasks"],
    prediction_BT: Float[np.ndarray, "batch tasks"],
    command: str,
    counts: Mapping[str, Mapping[str, Mapping[str, int]]],
    seconds: Mapping[str, float],
    curves: Mapping[str, Curve] | None = None,
    uncalibrated: Mapping[str, Float[np.ndarray, " batch"]] | None = None,
    rounding: Rounding | None = None,
) -> None:
    """Write the page: metrics, curves, calibration, distributions, recipe, command.

    It needs no network and no other file, and the same arguments give the same bytes.

    Args:
        path: The HTML file; its folder must exist.
        recipe: What was trained.
        history: One entry per check on validation data, oldest first, as in
            ``history.json``: ``epoch``, ``step``, ``train_loss`` by task, ``metrics``
            by task and name, ``learning_rates``, ``best``.
        metrics: By split, task and name; ``test`` makes the headline.
        label_BT: Test labels, NaN where a task has none.
        prediction_BT: Test predictions.
        command: What to type to make this again.
        counts: Split -> feature -> what was counted (missing, unseen, ...) -> values.
        seconds: By stage, in order.
        curves: Test curves by task of levels or times.
        uncalibrated: By calibrated task, what the network itself says of test rows.
        rounding: What rounding costs the bundle, if it rounds.
    """
    best = [check for check in history if check["best"]][-1:]
    kept = float(best[0]["step"]) if best else None
    splits = [s for s in ("test", "valid", "train") if s in metrics]
    environment = Environment(
        loader=PackageLoader("recsys_mtl", "evaluate"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(
        recipe=recipe,
        recipe_yaml=yaml.safe_dump(
            recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True
        ),
        command=command,
        facts=_facts(recipe, history, best, seconds),
        tables={split: _tables(recipe, metrics[split]) for split in splits},
        legend=_legend(recipe),
        calibrated=_calibrated(recipe, label_BT, prediction_BT, uncalibrated or {}),
        overview=_overview(recipe, metrics[splits[0]]) if splits else None,
        tasks=[
            (
                task,
                [
                    *_curves(task, history, kept),
                    *_before(label_BT[:, t], (uncalibrated or {}).get(task.name)),
                    *task_charts(
                        task,
                        label_BT[:, t],
                        prediction_BT[:, t],
                        (curves or {}).get(task.name),
                    ),
                ],
            )
            for t, task in enumerate(recipe.tasks)
        ],
        learning_rate=_learning_rate(history),
        calibration_heads=[column.head for column in CALIBRATION_COLUMNS],
        rounding=rounding,
        counts=counts,
        count_names=_in_order(of for split in counts.values() for of in split.values()),
        count_rows=_in_order(counts.values()),
        seconds=seconds,
        versions=_versions(),
        trusted=Markup,  # only for charts, which escape their text
    )
    path.write_text(page, encoding="utf-8")


def _tables(
    recipe: Recipe, by_task: Mapping[str, Mapping[str, float]]
) -> list[dict[str, Any]]:
    """One table per kind of task, as text."""
    tables = []
    for kind, columns in COLUMNS.items():
        names = [t.name for t in recipe.tasks if t.kind == kind and t.name in by_task]
        rows = [(n, [_cell(column, by_task[n]) for column in columns]) for n in names]
        if rows:
            tables.append({"heads": [column.head for column in columns], "rows": rows})
    return tables


def _cell(column: Column, of: Mapping[str, float]) -> tuple[str, str]:
    """A value and its interval as text; empty where undefined."""
    if column.metric not in of:
        return "", ""
    interval = ""
    if column.low in of and column.high in of:
        ends = (of[column.low], of[column.high])
        interval = " – ".join(format(end, column.form) for end in ends)  # noqa: RUF001
    return format(of[column.metric], column.form), interval


def _legend(recipe: Recipe) -> dict[str, str]:
    kinds = {task.kind for task in recipe.tasks}
    return {
        column.head: column.explain
        for kind, columns in COLUMNS.items()
        if kind in kinds
        for column in columns
        if column.explain
    }


def _overview(
    recipe: Recipe, by_task: Mapping[str, Mapping[str, float]]
) -> Chart | None:
    names, points = [], []
    for task in recipe.tasks:
        of = by_task.get(task.name, {})
        if "auc_low" in of:
            names.append(task.name)
            points.append((of["auc"], of["auc_low"], of["auc_high"]))
    return interval_chart("AUC by task", names, points) if len(names) > 1 else None


def _curves(
    task: TaskSpec, history: Sequence[Mapping[str, Any]], kept: float | None
) -> list[Chart]:
    train = _series("train", history, lambda check: check["train_loss"].get(task.name))
    charts = []
    if task.kind == "binary":
        valid = _valid(task.name, "log_loss", history)
        lines = [line for line in (train, valid) if line is not None]
        if lines:
            charts.append(line_chart("Log loss", lines, mark=kept))
        rising = _valid(task.name, "auc", history)
        if rising is not None:
            charts.append(line_chart("AUC, validation", [rising], mark=kept))
    else:
        if train is not None:
            charts.append(line_chart("Training loss", [train], mark=kept))
        of_kind = {
            "ordinal": ("kappa", "Kappa"),
            "survival": ("c_index", "C-index"),
            "value": ("rank_correlation", "Rank correlation"),
        }
        metric, head = of_kind[task.kind]
        rising = _valid(task.name, metric, history)
        if rising is not None:
            title = f"{head}, validation"
            charts.append(line_chart(title, [rising], mark=kept))
    return charts


def _before(
    label_B: Float[np.ndarray, " batch"],
    prediction_B: Float[np.ndarray, " batch"] | None,
) -> list[Chart]:
    """How far a calibrated task's network is off by itself."""
    exists_B = ~np.isnan(label_B)
    if prediction_B is None or not exists_B.any():
        return []
    table = calibration_table(label_B[exists_B], prediction_B[exists_B])
    return [calibration_chart("Before calibration, test", table)]


def _calibrated(
    recipe: Recipe,
    label_BT: Float[np.ndarray, "batch tasks"],
    prediction_BT: Float[np.ndarray, "batch tasks"],
    uncalibrated: Mapping[str, Float[np.ndarray, " batch"]],
) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Task, its calibration, and metrics before and after it, as text."""
    rows = []
    for t, task in enumerate(recipe.tasks):
        if not isinstance(task, BinaryTask) or task.name not in uncalibrated:
            continue
        exists_B = ~np.isnan(label_BT[:, t])
        before, after = (
            binary_metrics(label_BT[exists_B, t], prediction_B[exists_B])
            for prediction_B in (uncalibrated[task.name], prediction_BT[:, t])
        )
        cells = [
            (_cell(column, before)[0], _cell(column, after)[0])
            for column in CALIBRATION_COLUMNS
        ]
        how: list[str] = (
            [task.calibration.kind] if task.calibration.kind != "none" else []
        )
        if task.negative_sampling is not None:
            sampling = task.negative_sampling
            how.append(f"{sampling.rate:g} of negatives in {sampling.splits}")
        rows.append((task.name, ", ".join(how), cells))
    return rows


def _series(
    name: str,
    history: Sequence[Mapping[str, Any]],
    read: Callable[[Mapping[str, Any]], float | None],
) -> Line | None:
    points = [(float(check["step"]), read(check)) for check in history]
    known = [(x, float(y)) for x, y in points if y is not None and np.isfinite(y)]
    if not known:
        return None
    return Line(name, [x for x, _ in known], [y for _, y in known])


def _valid(task: str, metric: str, history: Sequence[Mapping[str, Any]]) -> Line | None:
    return _series(
        "valid", history, lambda check: check["metrics"].get(task, {}).get(metric)
    )


def _learning_rate(history: Sequence[Mapping[str, Any]]) -> Chart | None:
    """All rates follow one schedule, so one of them shows it."""
    line = _series("rate", history, lambda check: check["learning_rates"][0])
    # A rate that never moved is a line of the recipe, not a picture.
    if line is None or len(set(line.y)) == 1 or line.y[0] == 0:
        return None
    share = [100 * rate / line.y[0] for rate in line.y]
    return line_chart(
        "Learning rates", [Line("all", line.x, share)], note="% of the first check's"
    )


def _facts(
    recipe: Recipe,
    history: Sequence[Mapping[str, Any]],
    best: Sequence[Mapping[str, Any]],
    seconds: Mapping[str, float],
) -> dict[str, str]:
    """What a reader wants to know first."""
    gating = recipe.model.gating.kind
    facts = {
        "Model": f"{gating} of {_plural(len(recipe.tasks), 'task')}, "
        f"{_plural(len(recipe.features), 'feature')}",
        "Checks": str(len(history)),
    }
    if best:
        facts["Kept"] = f"step {best[0]['step']:,} (epoch {best[0]['epoch']})"
    if seconds:
        facts["Time"] = f"{sum(seconds.values()):,.0f} s"
    return facts


def _in_order(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    """All keys, each once, as they first come."""
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # ray may be absent where only the library is
            continue
    return versions
