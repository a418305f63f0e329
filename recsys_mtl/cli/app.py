"""``recsys-mtl``: its commands, and how it ends.

Commands import what they need when they run, so that ``--help`` answers at once.
"""

import os
import signal
import sys
from types import FrameType
from typing import Any

import typer
from rich.traceback import Traceback
from typer.core import TyperGroup

from recsys_mtl import __version__
from recsys_mtl.cli import machine, offline, online, swap, watch
from recsys_mtl.cli.option import STDERR, STDOUT, Verbose, is_verbose
from recsys_mtl.errors import RecsysError

__all__ = ["app", "main"]

_INTERRUPTED = 130  # 128 + SIGINT, as shells have it
_TERMINATED = 143


class _Stoppable(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        """Run the command; Ctrl-C ends it with one line."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            STDERR.print("stopped")
            raise typer.Exit(_INTERRUPTED) from None


app = typer.Typer(
    cls=_Stoppable,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="From raw interaction logs to a served multi-task ranker.",
    epilog="Start with: [bold]recsys-mtl run quickstart[/bold]",
)
for module in (offline, online, swap, watch, machine):
    module.add_commands(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        STDOUT.print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    verbose: Verbose = False,
    version: bool = typer.Option(
        False, "--version", is_eager=True, callback=_print_version, help="Print it."
    ),
) -> None:
    del verbose, version  # their callbacks have done the work


def main() -> None:
    """Run the command line, and end with its exit code.

    0: done. 1: an error, told in one sentence. 2: the command line itself is wrong.
    130 and 143: stopped by Ctrl-C or ``kill``.
    """
    signal.signal(signal.SIGTERM, _terminate)
    # OpenMP reads it when torch is imported. Threads that spin while they wait made a
    # training step twenty times slower on two cores that others were using as well.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app(standalone_mode=True)
    except RecsysError as error:
        _fail(error, str(error))
    except Exception as error:  # noqa: BLE001 - the last stop before the user
        said = str(error).strip().partition("\n")[0]
        name = type(error).__name__
        _fail(error, f"{name}: {said}" if said else name, unexpected=True)


def _fail(error: Exception, sentence: str, *, unexpected: bool = False) -> None:
    if is_verbose():
        trace = Traceback.from_exception(type(error), error, error.__traceback__)
        STDERR.print(trace)
    elif unexpected:
        sentence += " (unexpected; run again with --verbose to see where)"
    STDERR.out(f"error: {sentence}", highlight=False)
    sys.exit(1)


def _terminate(number: int, frame: FrameType | None) -> None:
    # Leave through the finally blocks, which stop worker processes.
    del number, frame
    sys.exit(_TERMINATED)
