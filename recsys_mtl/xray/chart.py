"""Heat maps, bars and lines of an x-ray, as inline SVG in the page's colours."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter, MaxNLocator

from recsys_mtl.evaluate.canvas import (
    FIRST,
    FULL_WIDTH,
    INK,
    MUTED,
    SECOND,
    Chart,
    draw_svg,
)

__all__ = ["bar_chart", "cosine_chart", "heat_map", "need_chart"]

_ROW = 0.27  # inches
_LETTER = 0.075  # inches of a character, about
_MOST_TEXT = 16  # columns of a heat map in whose cells a number has room


def heat_map(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    *,
    note: str = "",
    signed: bool = False,
) -> Chart:
    """Draw values of -1 to 1 as cells, the darker the further from 0.

    Args:
        title: Heading, also the start of the alternative text.
        rows: Names, first on top.
        columns: Names.
        values: By row and column; ``None`` leaves a cell empty.
        note: How to read it.
        signed: Whether values may be negative, which have a colour of their own.
    """

    def draw(axes: Axes) -> None:
        for r, row in enumerate(values):
            for c, value in enumerate(row):
                if value is None:
                    continue
                colour = SECOND if value < 0 else FIRST
                # From invisible to half covered, so that the number stays legible.
                alpha = 0.6 * min(abs(value), 1.0)
                axes.add_patch(
                    Rectangle((c, r), 1, 1, facecolor=colour, alpha=alpha, lw=0)
                )
                if len(columns) <= _MOST_TEXT:
                    text = f"{value:+.2f}" if signed else f"{value:.2f}"
                    axes.text(
                        c + 0.5,
                        r + 0.5,
                        text,
                        ha="center",
                        va="center",
                        color=INK,
                        fontsize=8,
                    )
        axes.set(xlim=(0, len(columns)), ylim=(len(rows), 0))
        axes.set_xticks(
            [c + 0.5 for c in range(len(columns))],
            columns,
            rotation=40,
            ha="right",
            rotation_mode="anchor",
        )
        axes.tick_params(axis="x", labelsize=8, length=0)
        axes.set_yticks([r + 0.5 for r in range(len(rows))], rows)
        axes.tick_params(axis="y", labelsize=8, labelcolor=INK)
        axes.spines["bottom"].set_visible(False)
        axes.grid(visible=False)

    parts = [
        f"{name}: "
        + ", ".join(
            f"{column} {value:.2f}"
            for column, value in zip(columns, row, strict=True)
            if value is not None
        )
        for name, row in zip(rows, values, strict=True)
    ]
    left = _margin(rows)
    foot = 0.35 + 0.75 * _LETTER * max(map(len, columns), default=0)
    width = max(2.2, left + 0.15 + 0.42 * len(columns))
    svg = draw_svg(
        draw,
        alt=f"{title}; {'; '.join(parts)}",
        width=width,
        height=_ROW * len(rows) + foot + 0.2,
        left=left / width,
        right=1 - 0.1 / width,
        foot=foot,
    )
    return Chart(title, note, svg)


def bar_chart(
    title: str,
    names: Sequence[str],
    values: Sequence[float],
    *,
    note: str = "",
    marks: Sequence[float] = (),
    percent: bool = True,
) -> Chart:
    """Draw one bar a name, first name on top.

    Args:
        title: Heading, also the start of the alternative text.
        names: One a bar.
        values: Shares, or amounts.
        note: How to read it.
        marks: A threshold for each bar, drawn as a tick; none if left out.
        percent: Whether values are shares, on an axis from 0 to 100 %.
    """
    factor = 100.0 if percent else 1.0

    def draw(axes: Axes) -> None:
        at = range(len(names))
        axes.barh(at, [factor * value for value in values], 0.62, color=FIRST)
        for place, mark in zip(at, marks, strict=False):
            x = factor * mark
            axes.plot([x, x], [place - 0.42, place + 0.42], color=SECOND, lw=1.6)
        axes.set_yticks(list(at), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        if percent:
            axes.set_xlim(0, 100)
            axes.set_xlabel("%")
        _rows_style(axes)

    parts = "; ".join(
        f"{name} {factor * value:.3g}{' %' if percent else ''}"
        for name, value in zip(names, values, strict=True)
    )
    left = _margin(names)
    width = left + 2.4
    svg = draw_svg(
        draw,
        alt=f"{title}: {parts}",
        width=width,
        height=0.7 + _ROW * len(names),
        left=left / width,
        right=0.96,
    )
    return Chart(title, note, svg)


def need_chart(
    title: str,
    names: Sequence[str],
    points: Sequence[tuple[float, float, float]],
    *,
    note: str = "",
) -> Chart:
    """Draw what is lost without each name, with its interval, and the line of nothing.

    Args:
        title: Heading, also the start of the alternative text.
        names: One a row, first on top.
        points: Value, low and high end of each; those whose interval holds 0 are pale.
        note: How to read it.
    """

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=MUTED, lw=0.8)
        for place, (value, low, high) in enumerate(points):
            colour = FIRST if low > 0 else MUTED
            axes.hlines(place, low, high, color=colour, lw=1.6, alpha=0.55)
            axes.plot([value], [place], color=colour, ls="", marker="o", ms=4.5)
        axes.set_yticks(list(range(len(names))), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        _rows_style(axes)

    parts = "; ".join(
        f"{name} {value:.4f} ({low:.4f} to {high:.4f})"
        for name, (value, low, high) in zip(names, points, strict=True)
    )
    svg = draw_svg(
        draw,
        alt=f"{title}: {parts}",
        width=FULL_WIDTH,
        height=0.7 + _ROW * len(names),
        left=min(0.5, _margin(names) / FULL_WIDTH),
        right=0.96,
    )
    return Chart(title, note, svg)


def cosine_chart(
    title: str,
    steps: Sequence[int],
    cosines: Sequence[float],
    *,
    threshold: float,
    most: float,
) -> Chart:
    """Draw the cosine of two tasks over training steps.

    Args:
        title: Heading, also the start of the alternative text.
        steps: Of the checks.
        cosines: At each.
        threshold: Drawn as a line.
        most: The axis goes from minus this to this.
    """

    def draw(axes: Axes) -> None:
        axes.axhline(0, color=MUTED, lw=0.8)
        axes.axhline(threshold, color=SECOND, lw=0.8, ls=(0, (2, 2)))
        axes.plot(steps, cosines, color=FIRST, lw=1.6, marker="o", ms=3)
        axes.set_ylim(-1.05 * most, 1.05 * most)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel("step")

    alt = f"{title}: from {cosines[0]:+.2f} to {cosines[-1]:+.2f}"
    svg = draw_svg(draw, alt=alt, height=1.9, right=0.97)
    return Chart(title, "", svg)


def _rows_style(axes: Axes) -> None:
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.tick_params(axis="y", labelsize=9, labelcolor=INK)
    axes.xaxis.set_major_locator(MaxNLocator(5))


def _margin(names: Sequence[str]) -> float:
    """Inches that the longest name needs."""
    return 0.2 + _LETTER * max(map(len, names), default=0)
