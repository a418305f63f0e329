"""What pydantic finds -> sentences that a user can act on."""

import copy
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, final, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from recsys_mtl.config.document import Key, parse_path
from recsys_mtl.config.reference import near

__all__ = ["INVENTED", "Fault", "describe", "kinds_at", "stand_in"]

INVENTED = "invented_name_"
"""How names begin that stand in for faulty ones; no message shows them."""

_SHAPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_BOUNDS = {
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


@final
@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        key: Where.
        sentence: What must hold, and what was got.
        drop: Whether taking the part out mends the recipe.
    """

    key: Key
    sentence: str
    drop: bool = False


def describe(root: type[BaseModel], data: Any, error: ValidationError) -> list[Fault]:
    """Turn the errors of validating ``data`` as ``root`` into faults, one a place."""
    found: dict[Key, list[ErrorDetails]] = {}
    for each in error.errors(include_url=False):
        key = _key(data, each["loc"], each["type"])
        found.setdefault(key, []).append(each)
    faults: list[Fault] = []
    for key, errors in found.items():
        below = any(k != key and k[: len(key)] == key for k in found)
        shapes = [e for e in errors if e["type"] in _SHAPES]
        others = [e for e in errors if e["type"] not in _SHAPES]
        if others:
            for each in others:
                faults += _faults(root, data, key, each)
        elif not below:
            allowed = dict.fromkeys(_SHAPES[e["type"]] for e in shapes)
            faults.append(
                Fault(key, f"must be {' or '.join(allowed)}, got {_got(data, key)}")
            )
    return faults


def kinds_at(root: type[BaseModel], data: Any, key: Key) -> list[str]:
    """Kinds that the part at ``key`` may be of."""
    return list(_kinds(_annotation(root, data, key)[1]))


def stand_in(
    root: type[BaseModel], data: Any, key: Key, number: int, skip: int = 0
) -> Any:
    """Find something valid to stand where a fault is, so that the rest can be checked.

    Args:
        root: Spec of the whole.
        data: The whole.
        key: Where the fault is.
        number: Makes invented names differ.
        skip: How many valid values to pass over, since they did not help.

    Raises:
        LookupError: There is nothing valid.
    """
    field, annotation = _annotation(root, data, key)
    valid: list[Any] = []
    for candidate in _candidates(annotation, field, _at(data, key), number):
        if candidate not in valid and _is_valid(annotation, candidate):
            valid.append(candidate)
        if len(valid) > skip:
            return copy.deepcopy(valid[skip])
    raise LookupError(key)


def _faults(
    root: type[BaseModel], data: Any, key: Key, error: ErrorDetails
) -> Iterator[Fault]:
    kind, context = error["type"], error.get("ctx", {})
    got = _got(data, key)
    if kind == "missing":
        yield Fault(key, "is needed, but left out")
    elif kind == "extra_forbidden":
        allowed = _names(_annotation(root, data, key[:-1])[1], _at(data, key[:-1]))
        yield Fault(key, f"is no option here{near(str(key[-1]), allowed)}", drop=True)
    elif kind in ("union_tag_invalid", "union_tag_not_found"):
        allowed = list(_kinds(_annotation(root, data, key)[1]))
        value = _at(data, key)
        if not isinstance(value, dict):
            yield Fault(key, f"must be a mapping, got {got}")
        elif "kind" not in value:
            sentence = f"is needed, but left out; allowed: {', '.join(allowed)}"
            yield Fault((*key, "kind"), sentence)
        else:
            name = _got(data, (*key, "kind"))
            hint = near(str(value["kind"]), allowed)
            yield Fault((*key, "kind"), f"is no known kind: got {name}{hint}")
    elif kind == "literal_error":
        options = [str(o) for o in _literals(_annotation(root, data, key)[1])]
        yield Fault(key, f"got {got}{near(str(_at(data, key)), options)}")
    elif kind == "value_error":
        for line in str(context["error"]).split("\n"):
            head, colon, rest = line.partition(": ")
            inner = parse_path(head) if colon else None
            yield Fault((*key, *inner), rest) if inner else Fault(key, line)
    elif kind in _BOUNDS:
        words, limit = _BOUNDS[kind]
        yield Fault(key, f"must be {words} {context[limit]:g}, got {got}")
    elif kind == "too_short":
        yield Fault(
            key,
            f"must have {context['min_length']} or more entries, got "
            f"{context['actual_length']}",
        )
    elif kind == "string_pattern_mismatch":
        yield Fault(
            key,
            "must begin with a letter and hold only letters, digits and underscores, "
            f"got {_quoted(error['input'])}",
            drop=error["loc"][-1] == "[key]",
        )
    elif kind in ("string_too_short", "string_too_long"):
        length = context.get("min_length", context.get("max_length"))
        word = "least" if kind == "string_too_short" else "most"
        yield Fault(key, f"must have at {word} {length} characters, got {got}")
    else:
        yield Fault(key, f"{error['msg']}, got {got}")


def _key(data: Any, loc: Iterable[str | int], kind: str) -> Key:
    """Leave out of a pydantic location what is not in the file: tags of unions."""
    key: list[str | int] = []
    value, tagged = data, False
    parts = list(loc)
    for i, part in enumerate(parts):
        if isinstance(value, dict):
            if not tagged and part == value.get("kind"):
                tagged = True
                continue
            if part in value:
                key.append(part)
                value, tagged = value[part], False
                continue
            if kind == "missing" and i == len(parts) - 1:
                key.append(part)
        elif isinstance(value, list) and isinstance(part, int):
            key.append(part)
            value, tagged = value[part], False
    return tuple(key)


def _at(data: Any, key: Key) -> Any:
    for part in key:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _got(data: Any, key: Key) -> str:
    return _quoted(_at(data, key))


def _quoted(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return repr(value)
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


# --- what the specs allow at a place -------------------------------------------------


def _annotation(
    root: type[BaseModel], data: Any, key: Key
) -> tuple[FieldInfo | None, Any]:
    """Find the field that ends a path, if it is one, and its type."""
    annotation: Any = root
    field: FieldInfo | None = None
    value = data
    for part in key:
        if isinstance(part, int):
            inner = [
                a
                for o in _flat(annotation)
                if get_origin(o) is tuple
                for a in get_args(o)
                if a is not Ellipsis
            ]
            field, annotation = None, Union[tuple(inner)]  # noqa: UP007
        else:
            specs = _specs(annotation, value)
            fields = [s.model_fields[part] for s in specs if part in s.model_fields]
            dicts = [o for o in _flat(annotation) if get_origin(o) is dict]
            if fields:
                field = fields[0]
                annotation = _typed(field)
            elif dicts:
                field, annotation = None, get_args(dicts[0])[1]
            else:
                raise LookupError(key)
        value = _at(value, (part,))
    return field, annotation


def _typed(field: FieldInfo) -> Any:
    """Return the type of a field with its limits."""
    return Annotated[field.annotation, field]


def _flat(annotation: Any) -> Iterator[Any]:
    """Yield the alternatives of a type."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _flat(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for option in get_args(annotation):
            yield from _flat(option)
    else:
        yield annotation


def _specs(annotation: Any, value: Any) -> list[type[BaseModel]]:
    """Specs that a value may be; those of its kind, if it names one of them."""
    specs = [
        o for o in _flat(annotation) if isinstance(o, type) and issubclass(o, BaseModel)
    ]
    kind = value.get("kind") if isinstance(value, dict) else None
    return [s for s in specs if kind in list(_kinds(s))] or specs


def _names(annotation: Any, value: Any) -> list[str]:
    return [name for spec in _specs(annotation, value) for name in spec.model_fields]


def _kinds(annotation: Any) -> Iterator[str]:
    for spec in _flat(annotation):
        if isinstance(spec, type) and issubclass(spec, BaseModel):
            field = spec.model_fields.get("kind")
            yield from _literals(field.annotation) if field else ()


def _literals(annotation: Any) -> Iterator[str]:
    for option in _flat(annotation):
        if get_origin(option) is Literal:
            yield from get_args(option)


def _candidates(
    annotation: Any, field: FieldInfo | None, got: Any, number: int
) -> Iterator[Any]:
    name = f"{INVENTED}{number}"
    options = [str(o) for o in _literals(annotation)]
    if options:
        yield from options
    if field is not None and not field.is_required():
        default = field.get_default(call_default_factory=True)
        if default is not None:
            yield default
    yield from (name, 1, 0.5, (name,), (name, name + "_"), (1,), {name: 1.0})
    for spec in _specs(annotation, got):
        fields = spec.model_fields
        needed = {n for n, f in fields.items() if f.is_required()}
        yield _filled(spec, needed, number)
        yield _filled(spec, set(fields), number)
        for one in fields:
            yield _filled(spec, needed | {one}, number)
    yield None


def _filled(spec: type[BaseModel], names: set[str], number: int) -> dict[str, Any]:
    """Fill the fields of a spec with whatever is valid."""
    filled: dict[str, Any] = {}
    for name, field in spec.model_fields.items():
        annotation = _typed(field)
        if name in names:
            for candidate in _candidates(annotation, field, None, number):
                if _is_valid(annotation, candidate):
                    filled[name] = candidate
                    break
    return filled


def _is_valid(annotation: Any, value: object) -> bool:
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    try:
        adapter.validate_python(value)
    except ValidationError:
        return False
    return True
