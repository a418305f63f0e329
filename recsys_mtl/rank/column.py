"""JSON cells -> Arrow columns of the types that a bundle's signature asks for."""

import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, Literal, assert_never

import numpy as np
import pyarrow as pa

from recsys_mtl.errors import RequestError

__all__ = [
    "ARROW_TYPE",
    "ELEMENT",
    "ColumnType",
    "Scalar",
    "unknown_name",
    "wanted",
    "whole_column",
]

ColumnType = Literal["int", "string", "float", "string_list", "int_list", "float_list"]
"""Types of the signature, and lists of them, as histories have."""

Scalar = Literal["int", "string", "float"]

ARROW_TYPE: dict[Scalar, pa.DataType] = {
    "int": pa.int64(),
    "string": pa.string(),
    "float": pa.float64(),
}
"""How values of a type are held."""

ELEMENT: dict[str, Scalar] = {
    "int_list": "int",
    "string_list": "string",
    "float_list": "float",
}
"""What lists of a type hold."""

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
            plain = _plain(cells, kind)
            if plain is not None:
                return plain
            return pa.array(
                [_scalar(cell, kind, path, i) for i, cell in enumerate(cells)],
                type=ARROW_TYPE[kind],
            )
        case "string_list" | "int_list" | "float_list":
            element = ELEMENT[kind]
            if kind == "string_list" and _all_text(cells):
                # Text that the feature splits by its separator.
                return pa.array(cells, type=pa.string())
            plain = _plain_lists(cells, element)
            if plain is not None:
                return plain
            return pa.array(
                [_list(cell, element, path, i) for i, cell in enumerate(cells)],
                type=pa.list_(ARROW_TYPE[element]),
            )
        case _:
            assert_never(kind)


def wanted(kind: Scalar) -> str:
    """Say what a value of ``kind`` is."""
    return _WANTED[kind]


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
_PLAIN: dict[Scalar, set[type]] = {
    "int": {int, type(None)},
    "string": {str, type(None)},
    "float": {float, int, type(None)},
}
_WANTED = {
    "int": "a whole number",
    "string": "text",
    "float": "a number",
}


def _plain(cells: Sequence[Any], kind: Scalar) -> pa.Array | None:
    """Type a column at once, if all of its cells are of the plainest kind.

    Arrow alone would be too kind: it cuts 1.5 to 1 and takes truth values for reals.
    """
    if not set(map(type, cells)) <= _PLAIN[kind]:
        return None
    try:
        if kind != "float":
            return pa.array(cells, type=ARROW_TYPE[kind])
        # Arrow takes some twenty times as long over a list of reals as NumPy, which
        # reads None as NaN: those that are no None leave this path.
        reals = np.array(cells, dtype=np.float64)
    except (pa.ArrowException, OverflowError):
        return None  # a number too long: whoever goes cell by cell will find it
    odd = ~np.isfinite(reals)
    if not odd.any():
        return pa.array(reals)
    if int(odd.sum()) == sum(cell is None for cell in cells):
        return pa.array(reals, mask=odd)
    return None


def _plain_lists(cells: Sequence[Any], element: Scalar) -> pa.Array | None:
    if not set(map(type, cells)) <= {list, type(None)}:
        return None
    values = _plain(list(chain.from_iterable(cell or () for cell in cells)), element)
    if values is None:
        return None
    lengths = [0 if cell is None else len(cell) for cell in cells]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    missing = np.array([cell is None for cell in cells], bool)
    return pa.ListArray.from_arrays(
        pa.array(offsets), values, mask=pa.array(missing) if missing.any() else None
    )


def _all_text(cells: Sequence[Any]) -> bool:
    return any(isinstance(cell, str) for cell in cells) and all(
        cell is None or isinstance(cell, str) for cell in cells
    )


def _list(
    cell: Any, element: Scalar, path: Callable[[int], str], i: int
) -> list[Any] | None:
    if cell is None:
        return None
    if not isinstance(cell, list):
        raise RequestError(path(i), f"must be a list, got {_short(cell)}")

    def inside(j: int) -> str:
        return f"{path(i)}[{j}]"

    return [_scalar(part, element, inside, j) for j, part in enumerate(cell)]


def _scalar(cell: Any, kind: Scalar, path: Callable[[int], str], i: int) -> Any:
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


def _wrong(cell: Any, kind: Scalar, field: str) -> RequestError:
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
