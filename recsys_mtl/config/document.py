"""YAML as plain data, with the line of everything in it."""

import re
from dataclasses import dataclass, field
from typing import Any, final

import yaml

from recsys_mtl.errors import ConfigError

__all__ = ["Document", "Key", "parse", "parse_path", "path_text"]

Key = tuple[str | int, ...]
"""Where something is: names of mappings, numbers of lists."""


@final
@dataclass
class Document:
    """A parsed file.

    Attributes:
        data: Plain mappings, lists and scalars.
        lines: Line of every part, from 1.
        faults: Keys given twice, each with a sentence.
    """

    data: Any
    lines: dict[Key, int] = field(default_factory=dict)
    faults: list[tuple[Key, str]] = field(default_factory=list)

    def line(self, key: Key) -> int | None:
        """Line of a part, or of the nearest part around it that is there."""
        for end in range(len(key), -1, -1):
            if key[:end] in self.lines:
                return self.lines[key[:end]]
        return None


def parse(text: str, name: str) -> Document:
    r"""Read YAML.

    Args:
        text: The file's content.
        name: What to call the file in messages.

    Raises:
        ConfigError: It is no YAML.

    Example:
        >>> parse("a: 1\nb:\n  - c: 2\n", "x.yaml").line(("b", 0, "c"))
        3
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        document = Document(None)
        if node is not None:
            _walk(node, (), document, ())
            document.data = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        written = text.splitlines()[mark.line : mark.line + 1] if mark else []
        hint = "; quote text that holds ${...}" if "${" in "".join(written) else ""
        raise ConfigError(
            f"{name}{line}: is no YAML: {error.problem or error}{hint}"
        ) from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{name}: is no YAML: {error}") from error
    finally:
        loader.dispose()
    return document


def _walk(
    node: yaml.Node, key: Key, document: Document, above: tuple[yaml.Node, ...]
) -> None:
    if node in above:
        raise yaml.constructor.ConstructorError(
            None, None, "an alias must not stand inside its own anchor", node.start_mark
        )
    document.lines.setdefault(key, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            _walk(item, (*key, i), document, (*above, node))
    elif isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for name, value in node.value:
            line = name.start_mark.line + 1
            if not isinstance(name, yaml.ScalarNode) or name.value == "<<":
                continue
            here = (*key, name.value)
            if name.value in first:
                sentence = (
                    f"is given twice, in lines {first[name.value]} and {line}; keep one"
                )
                document.faults.append((here, sentence))
            first[name.value] = line
            document.lines[here] = line
            _walk(value, here, document, (*above, node))


def path_text(key: Key) -> str:
    """Write a path as recipes' messages do.

    Example:
        >>> path_text(("features", 3, "encoder"))
        'features[3].encoder'
    """
    text = "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in key)
    return text.removeprefix(".")


def parse_path(text: str) -> Key | None:
    """Read what ``path_text`` wrote; ``None`` where it is no path.

    Example:
        >>> parse_path("features[3].encoder")
        ('features', 3, 'encoder')
    """
    if not re.fullmatch(r"\w+(\[\d+\])*(\.\w+(\[\d+\])*)*", text):
        return None
    found = re.findall(r"\[(\d+)\]|(\w+)", text)
    return tuple(int(number) if number else name for number, name in found)
