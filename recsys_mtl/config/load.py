"""A YAML file -> ``Recipe``, or every fault in it at once."""

import copy
import difflib
import importlib.util
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from recsys_mtl.config.document import Document, Key, parse, parse_path, path_text
from recsys_mtl.config.fault import INVENTED, Fault, describe, kinds_at, stand_in
from recsys_mtl.config.recipe import Recipe
from recsys_mtl.config.reference import near
from recsys_mtl.errors import ConfigError

__all__ = ["load_recipe", "recipe_schema", "shipped_recipes"]

_LAST = 1 << 30
_ROUNDS = 40
"""Most times that a faulty recipe is mended to look for more faults."""


def load_recipe(
    path_or_name: str | Path,
    *,
    overrides: Sequence[str] = (),
    shipped: Path | None = None,
) -> Recipe:
    """Read a recipe.

    Args:
        path_or_name: A YAML file, or the name of a shipped recipe.
        overrides: ``path=value`` each, put into the file's content before the checks,
            as ``train.epochs=1``. Members of lists go by number or name:
            ``tasks[0].weight=2`` or ``tasks.click.weight=2``. The value is YAML.
        shipped: Folder of the named recipes; that of the installed package if left out.

    Raises:
        ConfigError: There is no such file, or something in it is wrong. The message
            has one line for each fault: file and line, path inside the file, what must
            hold, what was got, and the nearest valid name.

    Example:
        >>> load_recipe("quickstart", overrides=["train.epochs=1"]).train.epochs
        1
    """
    path = _find(path_or_name, shipped)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    document = parse(text, str(path))
    if not isinstance(document.data, dict):
        raise ConfigError(
            f"{path}: must be a mapping with name, data, features and tasks, got "
            f"{type(document.data).__name__}"
        )
    data = document.data
    faults = [Fault(key, sentence) for key, sentence in document.faults]
    written: dict[Key, str] = {}
    faults += _override(data, overrides, written)
    faults += _unset_variables(data)
    recipe, found = _check(data)
    faults += found
    if faults or recipe is None:
        raise ConfigError(_message(path, document, faults, written))
    return recipe


def recipe_schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of recipes, for editors.

    Example:
        >>> recipe_schema()["title"]
        'Recipe'
    """
    schema = Recipe.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def shipped_recipes(folder: Path | None = None) -> dict[str, Path]:
    """Return the recipes that come with the package, by name.

    Args:
        folder: Where they are; found beside the installed package if left out.
    """
    if folder is None:
        # Finds the folder without running a line of the shells, which load Ray.
        spec = importlib.util.find_spec("pipelines")
        if spec is None or not spec.submodule_search_locations:
            return {}
        folder = Path(spec.submodule_search_locations[0]) / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _find(path_or_name: str | Path, shipped: Path | None) -> Path:
    path = Path(path_or_name)
    if path.is_file():
        return path
    known = shipped_recipes(shipped)
    if str(path_or_name) in known:
        return known[str(path_or_name)]
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name a recipe in it")
    beside = [str(p) for p in path.parent.glob("*.y*ml")] if path.suffix else []
    raise ConfigError(
        f"recipe {str(path_or_name)!r} is neither a file nor shipped"
        f"{near(str(path_or_name), [*known, *beside])}"
    )


def _check(data: dict[str, Any]) -> tuple[Recipe | None, list[Fault]]:
    """Validate; mend what is wrong with something valid, and look for more."""
    data = copy.deepcopy(data)
    faults: list[Fault] = []
    guessed: list[Key] = []
    recipe: Recipe | None = None
    for _ in range(_ROUNDS):
        try:
            recipe = Recipe.model_validate(data)
            break
        except ValidationError as error:
            found = describe(Recipe, data, error)
        faults += [
            fault
            for fault in map(_without_inventions, found)
            if fault not in faults
            and INVENTED not in fault.sentence
            and not any(fault.key[: len(g)] == g for g in guessed)
        ]
        mended = [_mend(data, fault, guessed) for fault in found]
        if not any(mended):
            break
    return (None if faults else recipe), faults


def _without_inventions(fault: Fault) -> Fault:
    pattern = rf", {INVENTED}\w+|(?<=: ){INVENTED}\w+, "
    return replace(fault, sentence=re.sub(pattern, "", fault.sentence))


def _mend(data: dict[str, Any], fault: Fault, guessed: list[Key]) -> bool:
    holder: Any = data
    for part in fault.key[:-1]:
        try:
            holder = holder[part]
        except (KeyError, IndexError, TypeError):
            return False  # what held it was mended, and so replaced
    if not fault.key or not isinstance(holder, dict | list):
        return False
    last: Any = fault.key[-1]
    if fault.drop and isinstance(holder, dict):
        del holder[last]
        return True
    if last == "kind" and isinstance(holder, dict):
        return _mend_kind(data, fault.key, guessed)
    try:
        holder[last] = stand_in(
            Recipe, data, fault.key, len(guessed), guessed.count(fault.key)
        )
    except LookupError:
        return False
    guessed.append(fault.key)
    return True


def _mend_kind(data: dict[str, Any], key: Key, guessed: list[Key]) -> bool:
    """Take the nearest kind. Where none is near, what else is wrong stays untold."""
    part: Any = data
    for name in key[:-1]:
        part = part[name]
    allowed = kinds_at(Recipe, data, key[:-1])
    close = difflib.get_close_matches(str(part.get("kind", "")), allowed, n=1)
    part["kind"] = (close or allowed)[0]
    if not close:
        guessed.append(key[:-1])
    return True


def _override(
    data: dict[str, Any], overrides: Sequence[str], written: dict[Key, str]
) -> list[Fault]:
    faults: list[Fault] = []
    for text in overrides:
        name, equals, value = text.partition("=")
        path = parse_path(name.strip())
        if not equals or path is None:
            sentence = f"override {text!r}: must be path=value, as train.epochs=1"
            faults.append(Fault((), sentence))
            continue
        try:
            parsed = yaml.safe_load(value)
            key = _put(data, path, parsed)
        except (yaml.YAMLError, LookupError) as error:
            reason = str(error.args[0]) if error.args else str(error)
            faults.append(Fault((), f"override {text!r}: {reason}"))
            continue
        written[key] = text
    return faults


def _put(data: dict[str, Any], path: Key, value: object) -> Key:
    """Set a value, making the mappings on the way to it."""
    holder: Any = data
    key: list[str | int] = []
    for i, name in enumerate(path):
        part = _member(holder, name, path_text(path[:i]))
        key.append(part)
        if i == len(path) - 1:
            holder[part] = value
        elif isinstance(holder, dict):
            if holder.get(part) is None:
                holder[part] = {}
            holder = holder[part]
        else:
            holder = holder[part]
    return tuple(key)


def _member(holder: object, part: str | int, where: str) -> str | int:
    """Turn a name in a list into its number.

    Raises:
        LookupError: There is no such member.
    """
    if isinstance(holder, dict):
        return part
    if not isinstance(holder, list):
        raise LookupError(
            f"{where} is {holder!r}, which has no parts; give {where}=... whole"
        )
    if isinstance(part, str) and part.isdecimal():
        part = int(part)
    if isinstance(part, int):
        if part < len(holder):
            return part
        raise LookupError(
            f"{where} has {len(holder)} entries, from 0; there is no {part}"
        )
    names = [m.get("name") if isinstance(m, dict) else None for m in holder]
    if part in names:
        return names.index(part)
    known = [n for n in names if isinstance(n, str)]
    raise LookupError(f"{where} has no entry named {part!r}{near(part, known)}")


def _unset_variables(data: dict[str, Any]) -> list[Fault]:
    """Find paths that read the environment in vain.

    Paths stay as written, so that what holds the recipe names no machine's folders.
    """
    faults: list[Fault] = []
    for place in (
        ("data", "interactions"),
        ("data", "users", "source"),
        ("data", "items", "source"),
    ):
        source: Any = data
        for part in place:
            source = source.get(part) if isinstance(source, dict) else None
        if not isinstance(source, dict):
            continue
        path, key = source.get("path"), (*place, "path")
        paths = path if isinstance(path, list) else [path]
        for i, text in enumerate(paths):
            if not isinstance(text, str):
                continue
            faults += [
                Fault(
                    (*key, i) if isinstance(path, list) else key,
                    f"reads the environment variable {name}, which is not set; "
                    f"set it, as in {name}=/data",
                )
                for name in dict.fromkeys(re.findall(r"\$\{(\w+)\}", text))
                if name not in os.environ
            ]
    return faults


def _message(
    path: Path, document: Document, faults: Sequence[Fault], written: dict[Key, str]
) -> str:
    lines: list[tuple[int, str]] = []
    for fault in faults:
        if not fault.key:
            lines.append((_LAST, fault.sentence))
            continue
        number = document.line(fault.key) or 0
        source = f"{path}:{number}"
        for key, text in written.items():
            made_it = key[: len(fault.key)] == fault.key and (
                fault.key not in document.lines or key == fault.key
            )
            if made_it or fault.key[: len(key)] == key:
                source, number = f"override {text!r}", _LAST
        lines.append((number, f"{source}: {path_text(fault.key)}: {fault.sentence}"))
    lines.sort(key=lambda line: line[0])
    told = list(dict.fromkeys(line for _, line in lines))
    count = "1 fault" if len(told) == 1 else f"{len(told)} faults"
    return "\n".join([f"recipe {path} has {count}:", *told])
