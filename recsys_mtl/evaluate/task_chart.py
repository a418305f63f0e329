"""Charts of what a model predicted for the test rows of one task."""

from typing import Any, assert_never

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from recsys_mtl.config.task import (
    BinaryTask,
    OrdinalTask,
    SurvivalTask,
    TaskSpec,
    ValueTask,
)
from recsys_mtl.evaluate.calibration import calibration_table
from recsys_mtl.evaluate.canvas import FIRST, MUTED, SECOND, Chart, draw_svg
from recsys_mtl.evaluate.chart import calibration_chart, distribution_chart
from recsys_mtl.evaluate.curve import Curve
from recsys_mtl.evaluate.survival import (
    GroupTable,
    KaplanMeier,
    Observed,
    risk_groups,
)

__all__ = ["level_chart", "survival_chart", "task_charts"]

_Floats = Float[np.ndarray, " batch"]


def task_charts(
    task: TaskSpec, label_B: _Floats, prediction_B: _Floats, curve: Curve | None = None
) -> list[Chart]:
    """Draw what suits the task's kind of label; nothing without rows.

    Args:
        task: Whose rows.
        label_B: NaN where the task has no label.
        prediction_B: Expected labels.
        curve: Of tasks of levels or times; charts that need it are left out without.
    """
    exists_B = ~np.isnan(label_B)
    label_R, prediction_R = label_B[exists_B], prediction_B[exists_B]
    if not len(label_R):
        return []
    curve = None if curve is None else curve.rows(exists_B)
    title = "Calibration, test"
    match task:
        case BinaryTask():
            parts = [
                ("negatives", prediction_R[label_R == 0]),
                ("positives", prediction_R[label_R == 1]),
            ]
            return [
                calibration_chart(title, calibration_table(label_R, prediction_R)),
                distribution_chart("Scores by label, test", parts),
            ]
        case ValueTask():
            parts = [("actual", label_R), ("predicted", prediction_R)]
            return [
                calibration_chart(title, calibration_table(label_R, prediction_R)),
                distribution_chart("Amounts, test", parts, log_counts=True),
            ]
        case OrdinalTask():
            table = calibration_table(label_R, prediction_R)
            charts = [calibration_chart("Expected level, test", table)]
            return charts if curve is None else [*charts, level_chart(label_R, curve)]
        case SurvivalTask(horizons=horizons):
            if curve is None:
                return []
            tables = risk_groups(label_R, curve, horizons)
            return [survival_chart(label_R, curve), *map(_group_chart, tables)]
        case _:
            assert_never(task)


def survival_chart(label_B: _Floats, curve: Curve) -> Chart:
    """Draw the mean predicted survival over Kaplan and Meier's estimate."""
    time = np.array([0.0, *curve.points])
    predicted = np.array([1.0, *curve.above_BP.mean(axis=0, dtype=np.float64)])
    estimate = KaplanMeier.of(Observed.of(label_B))
    inside_N = estimate.time_N <= time[-1]
    step_time = np.array([0.0, *estimate.time_N[inside_N], time[-1]])
    step_share = np.array([1.0, *estimate.share_N[inside_N], np.nan])
    step_share[-1] = step_share[-2]
    # More steps than the page has pixels tell nothing.
    some = np.unique(np.linspace(0, len(step_time) - 1, 400).astype(np.int64))

    def draw(axes: Axes) -> None:
        axes.step(step_time[some], step_share[some], where="post", color=FIRST, lw=1.6)
        axes.plot(time, predicted, color=SECOND, lw=1.2, marker="o", ms=2.5)
        axes.set(xlim=(0, time[-1]), ylim=(0, 1.02))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("time")
        axes.text(0.98, 0.98, "actual", color=FIRST, **_at_the_top(axes))
        axes.text(0.98, 0.88, "predicted", color=SECOND, **_at_the_top(axes))

    gap = np.abs(estimate.at(time) - predicted).max()
    alt = (
        f"Survival, test: mean predicted survival and Kaplan and Meier's differ by at "
        f"most {gap:.3f}"
    )
    svg = draw_svg(draw, alt=alt, right=0.97)
    return Chart("Survival, test", "mean predicted, Kaplan and Meier's estimate", svg)


def level_chart(label_B: _Floats, curve: Curve) -> Chart:
    """Draw the share of each level and the mean probability predicted for it."""
    num_levels = len(curve.points) + 1
    actual = np.bincount(label_B.astype(np.int64), minlength=num_levels) / len(label_B)
    above = np.array([1.0, *curve.above_BP.mean(axis=0, dtype=np.float64), 0.0])
    predicted = -np.diff(above)
    level = np.arange(num_levels)

    def draw(axes: Axes) -> None:
        axes.bar(level - 0.2, actual, 0.4, color=FIRST)
        axes.bar(level + 0.2, predicted, 0.4, color=SECOND)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.set_xlabel("level")
        axes.text(0.98, 0.98, "actual", color=FIRST, **_at_the_top(axes))
        axes.text(0.98, 0.88, "predicted", color=SECOND, **_at_the_top(axes))

    pairs = zip(actual, predicted, strict=True)
    rows = "; ".join(f"{k} {a:.3f} ({p:.3f})" for k, (a, p) in enumerate(pairs))
    alt = f"Levels, test, actual share (predicted): {rows}"
    svg = draw_svg(draw, alt=alt, right=0.97)
    return Chart("Levels, test", "share of each, mean predicted probability", svg)


def _group_chart(table: GroupTable) -> Chart:
    """Draw actual against predicted survival of risk groups, and the diagonal."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, lw=0.8, ls=(0, (2, 2)))
        axes.plot(table.predicted, table.actual, color=FIRST, ls="", marker="o", ms=3.5)
        low = float(min(table.predicted.min(), table.actual.min()))
        axes.set(xlim=(0.98 * low, 1.0), ylim=(0.98 * low, 1.005))
        axes.set_xlabel("predicted")
        axes.set_ylabel("actual")

    title = f"Survival at {table.horizon:g}, test"
    gap = float(np.abs(table.predicted - table.actual).max())
    alt = (
        f"{title}: in {len(table.rows)} risk groups predicted and actual survival "
        f"differ by at most {gap:.3f}"
    )
    note = f"{len(table.rows)} risk groups, Kaplan and Meier's estimate"
    return Chart(title, note, draw_svg(draw, alt=alt, left=0.2, right=0.97))


def _at_the_top(axes: Axes) -> dict[str, Any]:
    """Place text in the upper right corner."""
    return {"transform": axes.transAxes, "ha": "right", "va": "top", "fontsize": 9}
