"""The report's charts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import (
    EngFormatter,
    FixedLocator,
    FuncFormatter,
    Locator,
    LogLocator,
    MaxNLocator,
    NullLocator,
)

from recsys_mtl.evaluate.calibration import CalibrationTable
from recsys_mtl.evaluate.canvas import (
    FIRST,
    FULL_WIDTH,
    INK,
    MUTED,
    SECOND,
    Chart,
    draw_svg,
)

__all__ = [
    "Chart",
    "Line",
    "calibration_chart",
    "distribution_chart",
    "interval_chart",
    "line_chart",
]

_SERIES = (FIRST, SECOND)
_WIDE_RANGE = 30.0  # predictions that span more than this factor get log axes
_NUM_HISTOGRAM_BINS = 50


@final
@dataclass(frozen=True)
class Line:
    """One named series of at least one point; its name is written at its end."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def line_chart(
    title: str, lines: Sequence[Line], *, note: str = "", mark: float | None = None
) -> Chart:
    """Draw at most two series over training steps.

    Args:
        title: Heading, also the start of the alternative text.
        lines: Series with their own points each.
        note: How to read it.
        mark: Step of the check whose weights were kept.
    """

    def draw(axes: Axes) -> None:
        if mark is not None:
            axes.axvline(mark, color=MUTED, lw=0.8, ls=(0, (2, 2)))
            axes.annotate(
                "kept",
                (mark, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                color=MUTED,
                fontsize=8,
            )
        for line, colour in zip(lines, _SERIES, strict=False):
            axes.plot(line.x, line.y, color=colour, lw=1.6, marker="o", ms=3)
        _label_ends(axes, lines)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("step")

    ends = "; ".join(
        f"{line.name} from {line.y[0]:.4g} to {line.y[-1]:.4g}" for line in lines
    )
    return Chart(title, note, draw_svg(draw, alt=f"{title} over steps: {ends}"))


def calibration_chart(title: str, table: CalibrationTable) -> Chart:
    """Draw actual against predicted means with their intervals, and the diagonal."""
    wide = _is_wide(table.mean_prediction)

    def draw(axes: Axes) -> None:
        seen = np.concatenate([table.mean_prediction, table.mean_label])
        top = float(seen.max()) * (1.6 if wide else 1.08) or 1.0
        bottom = float(seen[seen > 0].min()) / 2 if wide else 0.0
        axes.set(xlim=(bottom, top), ylim=(bottom, top))
        if wide:
            _log_axes(axes, both=True)
        axes.plot([bottom, top], [bottom, top], color=MUTED, lw=0.8, ls=(0, (2, 2)))
        axes.vlines(
            table.mean_prediction,
            np.maximum(table.label_low, bottom),
            np.maximum(table.label_high, bottom),
            color=FIRST,
            lw=1.2,
            alpha=0.55,
        )
        some = table.mean_label > 0 if wide else table.mean_label >= 0
        axes.plot(
            table.mean_prediction[some],
            table.mean_label[some],
            color=FIRST,
            ls="",
            marker="o",
            ms=3.5,
        )
        axes.set_xlabel("predicted")
        axes.set_ylabel("actual")

    note = f"{len(table.rows)} bins, 95 % intervals"
    note += ", log axes" if wide else ""
    inside = (table.label_low <= table.mean_prediction) & (
        table.mean_prediction <= table.label_high
    )
    alt = (
        f"{title}: in {int(inside.sum())} of {len(inside)} bins the interval of the "
        "actual mean holds the predicted mean"
    )
    return Chart(title, note, draw_svg(draw, alt=alt, left=0.2, right=0.97))


def distribution_chart(
    title: str,
    parts: Sequence[tuple[str, Float[np.ndarray, " _"]]],
    *,
    log_counts: bool = False,
) -> Chart:
    """Draw two histograms over each other, each as shares of its own rows.

    Args:
        title: Heading, also the start of the alternative text.
        parts: Name and values of each.
        log_counts: Values are amounts with a long tail: log(1 + x) on the axis.
    """
    parts = [(name, values) for name, values in parts if len(values)]
    values = np.concatenate([v for _, v in parts]) if parts else np.zeros(1)
    wide = not log_counts and _is_wide(np.quantile(values, [0.01, 0.99]))
    edges = _histogram_edges(values, wide=wide, log_counts=log_counts)

    def draw(axes: Axes) -> None:
        if wide:
            _log_axes(axes, both=False)
        elif log_counts:
            axes.set_xscale("function", functions=(np.log1p, np.expm1))
            axes.xaxis.set_major_locator(_amount_ticks(float(edges[-1])))
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        for (name, part), colour in zip(parts, _SERIES, strict=False):
            counts = np.histogram(np.clip(part, edges[0], edges[-1]), edges)[0]
            share = 100 * counts / len(part)
            axes.stairs(share, edges, color=colour, lw=1.4)
            axes.stairs(share, edges, fill=True, color=colour, alpha=0.14)
            peak = int(share.argmax())
            axes.annotate(
                name,
                ((edges[peak] + edges[peak + 1]) / 2, share[peak]),
                xytext=(0, 4),
                textcoords="offset points",
                ha="center",
                color=colour,
                fontsize=9,
            )
        axes.set_ylim(0, axes.get_ylim()[1] * 1.12)
        axes.set_ylabel("% of its rows")
        axes.set_xlabel("amount" if log_counts else "predicted probability")

    medians = "; ".join(f"{name} median {np.median(v):.3g}" for name, v in parts)
    note = "log(1 + x) axis" if log_counts else "log axis" if wide else ""
    return Chart(title, note, draw_svg(draw, alt=f"{title}: {medians}", right=0.97))


def interval_chart(
    title: str, names: Sequence[str], points: Sequence[tuple[float, float, float]]
) -> Chart:
    """Draw one point with its interval per name, first name on top.

    Args:
        title: Heading, also the start of the alternative text.
        names: One per row.
        points: Value, low and high end of each.
    """

    def draw(axes: Axes) -> None:
        value, low, high = np.array(points).T
        at = np.arange(len(points))[::-1]
        axes.hlines(at, low, high, color=FIRST, lw=1.6, alpha=0.55)
        axes.plot(value, at, color=FIRST, ls="", marker="o", ms=4.5)
        axes.set_yticks(at, names)
        axes.set_ylim(-0.6, len(points) - 0.4)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", labelsize=9, labelcolor=INK)
        axes.xaxis.set_major_locator(MaxNLocator(6))

    rows = "; ".join(
        f"{name} {value:.4f} ({low:.4f} to {high:.4f})"
        for name, (value, low, high) in zip(names, points, strict=True)
    )
    height = 0.62 + 0.27 * len(points)
    svg = draw_svg(
        draw, alt=f"{title}: {rows}", width=FULL_WIDTH, height=height, left=0.24
    )
    return Chart(title, "points with 95 % intervals", svg)


def _is_wide(values: Float[np.ndarray, " values"]) -> bool:
    low, high = float(values.min()), float(values.max())
    return low > 0 and high / low > _WIDE_RANGE


def _histogram_edges(
    values: Float[np.ndarray, " values"], *, wide: bool, log_counts: bool
) -> Float[np.ndarray, " edges"]:
    # The outer 0.1 % fall into the first and last bin: one outlier is not the picture.
    low, high = (
        float(q) for q in np.quantile(values.astype(np.float64), [1e-3, 0.999])
    )
    if high <= low:
        low, high = low - 0.5 * abs(low) - 1e-6, high + 0.5 * abs(high) + 1e-6
    num = _NUM_HISTOGRAM_BINS + 1
    if wide and low > 0:
        return np.geomspace(low, high, num)
    if log_counts:
        return np.expm1(np.linspace(np.log1p(max(low, 0.0)), np.log1p(high), num))
    return np.linspace(low, high, num)


def _amount_ticks(top: float) -> Locator:
    if top < 10:
        return MaxNLocator(5)
    return FixedLocator([0.0, *(10.0**n for n in range(int(np.log10(top)) + 1))])


def _log_axes(axes: Axes, *, both: bool) -> None:
    axes.set_xscale("log")
    if both:
        axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis) if both else (axes.xaxis,):
        axis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=12))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())


def _label_ends(axes: Axes, lines: Sequence[Line]) -> None:
    """Write each name at its line's end, apart from one another."""
    low, high = axes.get_ylim()
    ends = [line.y[-1] for line in lines]
    close = max(ends) - min(ends) < 0.09 * (high - low)
    upper = int(np.argmax(ends))
    for i, (line, colour) in enumerate(zip(lines, _SERIES, strict=False)):
        shift = (5.0 if i == upper else -5.0) if close and len(ends) > 1 else 0.0
        axes.annotate(
            line.name,
            (line.x[-1], line.y[-1]),
            xytext=(6, shift),
            textcoords="offset points",
            va="center",
            color=colour,
            fontsize=9,
            annotation_clip=False,
        )
