"""A matplotlib figure as inline SVG that follows the page's colours, light and dark.

Same data, same bytes: no dates, no random ids.
"""

import html
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

__all__ = ["FIRST", "FULL_WIDTH", "INK", "MUTED", "SECOND", "Chart", "draw_svg"]

# Matplotlib draws in these stand-ins; the page gives each variable a value per theme.
INK, MUTED, _GRID = "#000001", "#000002", "#000003"
FIRST, SECOND = "#000004", "#000005"
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    _GRID: "var(--grid)",
    FIRST: "var(--first)",
    SECOND: "var(--second)",
}

_WIDTH, _HEIGHT, FULL_WIDTH = 3.5, 2.5, 5.4  # inches
_PIXELS_PER_POINT = 1.35  # never drawn larger, so that text keeps one size


@final
@dataclass(frozen=True)
class Chart:
    """One figure of the page.

    Attributes:
        title: What it shows.
        note: How to read it.
        svg: Trusted markup; all text in it is escaped.
    """

    title: str
    note: str
    svg: str


def draw_svg(
    draw: Callable[[Axes], None],
    *,
    alt: str,
    width: float = _WIDTH,
    height: float = _HEIGHT,
    left: float = 0.15,
    right: float = 0.85,
    foot: float = 0.48,
) -> str:
    """Let ``draw`` fill one pair of axes, and give the markup.

    Args:
        draw: Uses no colours but those of this module.
        alt: What the figure shows, for those who do not see it.
        width: In inches.
        height: In inches.
        left: Where the axes begin, as a share of the width.
        right: Where they end.
        foot: Inches below them.
    """
    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": alt,
        "text.parse_math": False,
        "font.family": "DejaVu Sans",
        "font.size": 9.0,
        "axes.edgecolor": _GRID,
        "axes.labelcolor": MUTED,
        "xtick.color": _GRID,
        "ytick.color": _GRID,
        "xtick.labelcolor": MUTED,
        "ytick.labelcolor": MUTED,
        "grid.color": _GRID,
        "text.color": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "grid.linewidth": 0.6,
        "ytick.major.size": 0.0,
    }
    with rc_context(style):
        figure = Figure(figsize=(width, height))
        FigureCanvasSVG(figure)
        bottom, top = foot / height, 1 - 0.2 / height
        axes = figure.add_axes((left, bottom, right - left, top - bottom))
        draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _for_page(buffer.getvalue(), alt)


def _for_page(svg: str, alt: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[a-zA-Z0-9.]+_\d+"', "", svg)  # repeat from chart to chart
    svg = re.sub(
        r"<style.*?</style>", "", svg, flags=re.DOTALL
    )  # meant for its own page
    svg = svg.replace("font-family: 'DejaVu Sans'", "font-family: var(--font)")
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    size = re.search(r'<svg [^>]*?viewBox="([^"]+)"', svg)
    assert size is not None
    label = html.escape(alt, quote=True)
    widest = float(size[1].split()[2]) * _PIXELS_PER_POINT
    head = (
        f'<svg viewBox="{size[1]}" style="max-width: {widest:.0f}px" role="img" '
        f'aria-label="{label}">'
    )
    return re.sub(r"<svg [^>]*>", lambda _: head, svg, count=1).strip()
