"""Options that several commands share, and where they write."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from recsys_mtl.console import configure_logging

__all__ = [
    "STDERR",
    "STDOUT",
    "BundleArgument",
    "Key",
    "Overrides",
    "RecipeArgument",
    "TablesOption",
    "Verbose",
    "WorkersOption",
    "base_url",
    "is_verbose",
]

STDOUT = Console()
"""Results."""

STDERR = Console(stderr=True)
"""Progress, warnings and errors."""

_verbose = False


def is_verbose() -> bool:
    """Tell whether ``--verbose`` was given, before or after the command's name."""
    return _verbose


def _listen(ctx: typer.Context, given: bool) -> None:
    global _verbose  # noqa: PLW0603 - one process, one command line
    _verbose = _verbose or given
    # Once, by the command: the root's options are read before the command's.
    if ctx.parent is not None:
        configure_logging(verbose=_verbose)


Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        callback=_listen,
        help="Show what libraries log, and the traceback of an error.",
    ),
]
RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE", help="A YAML file, or the name of a shipped recipe."
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        envvar="RECSYS_MTL_KEY",
        help="An API key, where the server wants one; better in the variable, which "
        "other users of the machine cannot see.",
    ),
]
BundleArgument = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="Folder that `run` made.")
]
TablesOption = Annotated[
    Path, typer.Option("--tables", help="Folder that `features` made.")
]
WorkersOption = Annotated[
    int,
    typer.Option("--workers", min=1, help="Training processes; more than 1 use Ray."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Change one value of the recipe, as train.epochs=1; may be repeated.",
    ),
]


def base_url(given: str) -> str:
    """Complete the address of a server, so that paths can follow."""
    given = given.rstrip("/")
    return given if "://" in given else f"http://{given}"
