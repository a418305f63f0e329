"""The tree of settings as a table for people."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from serving.settings import ServingSettings

__all__ = ["settings_table"]


def settings_table(spec: type[BaseModel] = ServingSettings) -> str:
    """Write every setting with its default as rows of a Markdown table.

    Example:
        >>> "| `server.port` | 8000 | 0 takes any free one |" in settings_table()
        True
    """
    rows = "\n".join(_rows(spec, ""))
    return f"| setting | default | what it does |\n|---|---|---|\n{rows}\n"


def _rows(spec: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in spec.model_fields.items():
        if name == "kind":
            continue
        path = f"{prefix}{name}"
        groups = list(_groups(field.annotation))
        if field.description or not groups:
            said = " ".join((field.description or "").split())
            yield f"| `{path}` | {_default(field)} | {said} |"
        several = "[]" if isinstance(field.default, tuple) else ""
        for group in groups:
            # Alternatives have a kind: settings of one after those of the other.
            kind = group.model_fields.get("kind")
            which = f"({get_args(kind.annotation)[0]})" if kind else ""
            yield from _rows(group, f"{path}{several}{which}.")


def _groups(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _groups(inner)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    match field.get_default(call_default_factory=True):
        case None | ():
            return "none"
        case bool(value):
            return str(value).lower()
        case int(value) if value > 9_999:
            return f"{value:,}"
        case BaseModel():
            return ""
        case tuple(values):
            return ", ".join(map(str, values))
        case value:
            return str(value)


def _write_into(page: Path) -> None:
    """Put the table between its two marks."""
    head, begin, rest = page.read_text().partition("<!-- settings -->\n")
    _, end, tail = rest.partition("<!-- end of settings -->")
    page.write_text(head + begin + settings_table() + end + tail)


if __name__ == "__main__":
    _write_into(Path(sys.argv[1]))
