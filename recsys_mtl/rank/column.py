"""JSON cells -> Arrow columns of the types that a bundle's signature asks for."""

import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, assert_never

import pyarrow as pa

from recsys_mtl.errors import RequestError

__all__ = ["ColumnType", "unknown_name", "whole_column"]

ColumnType = Literal["int", "string", "float", "string_list", "int_list", "float_list"]
"""Types of the signature, and lists of them, as histories have."""

_INT64 = range(-(2**63), 2**63)
_EXACT_FLOAT = 2**53


def whole_column(
    cells: Sequence[Any], kind: ColumnType, path: Callable[[int], str]
) -> pa.Array:
    """Type a column.

    Args:
        cells: Values as JSON gives them; ``None`` where missing.
        kind: Type of the column.
        path: From the position of a cell to its place in the request.

    Raises:
        RequestError: A cell is no value of the column's type, is not finite, or is a
            whole number outside 64 bits.

    Example:
        >>> whole_column([1, None], "int", lambda i: f"age[{i}]").to_pylist()
        [1, None]
    """
    match kind:
        case "int" | "string" | "float":
            return pa.array(
                [_scalar(cell, kind, path, i) for i, cell in enumerate(cells)],
                type=_ARROW[kind],
            )
        case "string_list" | "int_list" | "float_list":
            element = _ELEMENT[kind]
            if kind == "string_list" and _all_text(cells):
                # Text that the feature splits by its separator.
                return pa.array(cells, type=pa.string())
            return pa.array(
                [_list(cell, element, path, i) for i, cell in enumerate(cells)],
                type=pa.list_(_ARROW[element]),
            )
        case _:
            assert_never(kind)


def unknown_name(field: str, name: str, allowed: Iterable[str]) -> RequestError:
    """Refuse ``name``, and point at the nearest allowed one."""
    names = sorted(allowed)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        hint = f"did you mean {near[0]!r}?"
    elif names:
        more = ", ..." if len(names) > _MANY else ""
        hint = f"there are {', '.join(names[:_MANY])}{more}"
    else:
        hint = "there are none"
    return RequestError(field, f"unknown name {_short(name)}; {hint}")


_MANY = 20
_Scalar = Literal["int", "string", "float"]
_ARROW = {"int": pa.int64(), "string": pa.string(), "float": pa.float64()}
_ELEMENT: dict[str, _Scalar] = {
    "int_list": "int",
    "string_list": "string",
    "float_list": "float",
}
_WANTED = {
    "int": "a whole number",
    "string": "text",
    "float": "a number",
}


def _all_text(cells: Sequence[Any]) -> bool:
    return any(isinstance(cell, str) for cell in cells) and all(
        cell is None or isinstance(cell, str) for cell in cells
    )


def _list(
    cell: Any, element: _Scalar, path: Callable[[int], str], i: int
) -> list[Any] | None:
    if cell is None:
        return None
    if not isinstance(cell, list):
        raise RequestError(path(i), f"must be a list, got {_short(cell)}")

    def inside(j: int) -> str:
        return f"{path(i)}[{j}]"

    return [_scalar(part, element, inside, j) for j, part in enumerate(cell)]


def _scalar(cell: Any, kind: _Scalar, path: Callable[[int], str], i: int) -> Any:
    if cell is None:
        return None
    if isinstance(cell, bool):
        if kind == "int":  # truth values are 1 and 0, as in tables
            return int(cell)
        raise _wrong(cell, kind, path(i))
    if isinstance(cell, int):
        if kind == "float":
            return _real(cell, path(i))
        if cell not in _INT64:
            raise RequestError(
                path(i), f"must fit 64 bits, -2^63 to 2^63 - 1, got {_short(cell)}"
            )
        return str(cell) if kind == "string" else cell
    if isinstance(cell, float):
        if not math.isfinite(cell):
            raise RequestError(path(i), f"must be a finite number, got {cell}")
        if kind == "float":
            return cell
        # Whole numbers come as 3.0 from tables with gaps; beyond 2^53 they would have
        # lost digits on the way.
        if kind == "int" and cell.is_integer() and abs(cell) <= _EXACT_FLOAT:
            return int(cell)
    if isinstance(cell, str) and kind == "string":
        return cell
    raise _wrong(cell, kind, path(i))


def _real(cell: int, field: str) -> float:
    try:
        return float(cell)
    except OverflowError as fault:
        raise RequestError(
            field, f"must be below 1.8e308, got {_short(cell)}"
        ) from fault


def _wrong(cell: Any, kind: _Scalar, field: str) -> RequestError:
    return RequestError(field, f"must be {_WANTED[kind]}, got {_short(cell)}")


def _short(cell: Any) -> str:
    if isinstance(cell, dict):
        return "an object"
    if isinstance(cell, list):
        return "a list"
    if isinstance(cell, int) and not isinstance(cell, bool) and abs(cell) >= 10**40:
        return "a number of more than 40 digits"
    text = (
        {True: "true", False: "false"}[cell] if isinstance(cell, bool) else repr(cell)
    )
    return text if len(text) <= 60 else f"{text[:57]}..."
