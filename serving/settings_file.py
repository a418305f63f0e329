"""A YAML file -> ``ServingSettings``, or every fault that is found in it."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from recsys_mtl.config.document import Document, Key, parse, path_text
from recsys_mtl.config.fault import describe
from recsys_mtl.errors import ConfigError
from serving.settings import ServingSettings

__all__ = ["load_settings"]


def load_settings(path: Path) -> ServingSettings:
    """Read the settings of a server.

    Args:
        path: A YAML file, or a bundle's folder, which is served with the defaults.
            Relative paths inside the file start from its folder.

    Raises:
        ConfigError: There is no such file, or something in it is wrong. The message
            has one line for each fault: file and line, path inside the file, what must
            hold, what was got, and the nearest valid name.
    """
    if path.is_dir() or path.suffix not in (".yaml", ".yml"):
        return ServingSettings.of_bundle(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    document = parse(text, str(path))
    if not isinstance(document.data, dict):
        raise ConfigError(
            f"{path}: must be a mapping with models and other settings, got "
            f"{type(document.data).__name__}"
        )
    faults = list(document.faults)
    settings = None
    try:
        settings = ServingSettings.model_validate(document.data)
    except ValidationError as error:
        found = describe(ServingSettings, document.data, error)
        faults += [(fault.key, fault.sentence) for fault in found]
    if settings is not None and not settings.models:
        faults.append((("models",), "must name one bundle or more, got none"))
    if faults or settings is None:
        raise ConfigError(_message(path, document, faults))
    return _resolved(settings, path.parent)


def _resolved(settings: ServingSettings, folder: Path) -> ServingSettings:
    settings = settings.under(folder)
    changes: dict[str, Any] = {}
    if settings.auth.keys_file is not None:
        keys_file = folder / settings.auth.keys_file
        changes["auth"] = settings.auth.model_copy(update={"keys_file": keys_file})
    changes["entities"] = settings.entities.under(folder)
    changes["observability"] = settings.observability.under(folder)
    return settings.model_copy(update=changes)


def _message(path: Path, document: Document, faults: list[tuple[Key, str]]) -> str:
    lines = []
    for key, sentence in faults:
        number = document.line(key) or 1
        where = f"{path_text(key)}: " if key else ""
        lines.append((number, f"{path}:{number}: {where}{sentence}"))
    told = list(dict.fromkeys(line for _, line in sorted(lines)))
    count = "1 fault" if len(told) == 1 else f"{len(told)} faults"
    return "\n".join([f"settings {path} have {count}:", *told])
