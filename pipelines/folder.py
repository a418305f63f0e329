"""Folders and files that are there whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["whole"]


@contextmanager
def whole(output: Path) -> Iterator[Path]:
    """Make ``output`` under another name, and give it its name when it is done.

    Yields a fresh path beside ``output``, inside a folder that goes away with whatever
    else the body leaves there. The body makes a file or a folder at that path, which at
    the end takes the place of ``output``. After a failure or Ctrl-C nothing is left,
    and what was at ``output`` is untouched.

    Example:
        >>> folder = tempfile.TemporaryDirectory()
        >>> target = Path(folder.name, "numbers.txt")
        >>> with whole(target) as path:
        ...     _ = path.write_text("1 2 3")
        >>> target.read_text(), [p.name for p in target.parent.iterdir()]
        ('1 2 3', ['numbers.txt'])
        >>> folder.cleanup()
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(
        tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".tmp", dir=output.parent)
    )
    try:
        made = scratch / output.name
        yield made
        if output.exists():
            output.rename(scratch / "replaced")
        made.rename(output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
