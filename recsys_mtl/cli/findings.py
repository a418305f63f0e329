"""What ``xray`` prints at the end."""

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    # Only for their types: they bring in torch.
    from pathlib import Path

    from recsys_mtl.xray.result import XRay

__all__ = ["findings_page"]

_LOOK = {"fine": ("fine", "green"), "found": ("look", "yellow"), "moot": ("–", "dim")}  # noqa: RUF001


def findings_page(xray: "XRay", page: "Path") -> RenderableType:
    """Say what was found, what to try, and where the page is."""
    table = Table(box=None, pad_edge=False)
    table.add_column("about", no_wrap=True)
    table.add_column("")
    table.add_column("found")
    for finding in xray.findings:
        word, style = _LOOK[finding.state]
        said = Text(finding.says)
        if finding.advice:
            said.append(f"\n{finding.advice}", style="dim")
        table.add_row(finding.subject, Text(word, style=style), said)
    places = f"\npage: {page}\nfigures: {page.with_suffix('.json')}"
    return Group(table, Text(places, no_wrap=True, overflow="ignore"))
