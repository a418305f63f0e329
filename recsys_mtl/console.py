"""What a user sees of a long step: a bar, and nothing that libraries say to each other.

Results go to stdout; progress, warnings and errors go to stderr.
"""

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as Bars,
)

from recsys_mtl.progress import OnProgress, Progress

__all__ = ["BarListener", "LineListener", "configure_logging", "listening"]

_QUIET_ENVIRONMENT = {
    # Worker processes inherit these; each is read when its library is imported.
    "PYTHONWARNINGS": "ignore",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "GLOG_minloglevel": "2",
    "RAY_LOG_TO_DRIVER": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_LIBRARIES = (
    "asyncio",
    "fbgemm_gpu",
    "fsspec",
    "matplotlib",
    "opentelemetry",
    "PIL",
    "ray",
    "tensorboard",
    "tensordict",
    "torch",
    "torch.fx._symbolic_trace",  # torch gives its parent a level of its own
    "torchrec",
    "uvicorn",
)
_OWN = ("recsys_mtl", "pipelines", "serving")
_LINE_EVERY_S = 10.0


def configure_logging(*, verbose: bool) -> None:
    """Show our warnings and hide what libraries log; call before importing those.

    Args:
        verbose: Show everything instead.
    """
    # A choice of the user's privacy, not of noise: Ray reports usage unless told so.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if verbose:
        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s"
        )
        for name in _OWN:
            logging.getLogger(name).setLevel(logging.DEBUG)
        return
    for name, value in _QUIET_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    warnings.simplefilter("ignore")
    # Libraries set their own loggers' levels on import; this stands above all levels.
    logging.disable(logging.INFO)
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(logging.ERROR)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("warning: %(message)s"))
    for name in _OWN:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False


class BarListener:
    """One bar a stage, for terminals."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._ids: dict[str, TaskID] = {}

    def __call__(self, progress: Progress) -> None:
        """Draw ``progress``; a stage that starts ends those before it."""
        if progress.stage not in self._ids:
            for earlier in self._ids.values():
                self._bars.stop_task(earlier)
            self._ids[progress.stage] = self._bars.add_task(progress.stage, note="")
        self._bars.update(
            self._ids[progress.stage],
            completed=progress.done,
            total=progress.total,
            note=progress.note,
        )


class LineListener:
    """A line when a stage starts and ends, and now and then; for files and pipes.

    Args:
        write: Takes a line.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = write
        self._clock = clock
        self._started: dict[str, float] = {}
        self._ended: set[str] = set()
        self._last_line = clock()

    def __call__(self, progress: Progress) -> None:
        """Write ``progress`` if it starts or ends a stage, or some time has passed."""
        now = self._clock()
        stage = progress.stage
        ends = progress.total is not None and progress.done >= progress.total
        starts = stage not in self._started
        self._started.setdefault(stage, now)
        if stage in self._ended:
            return
        if ends:
            self._ended.add(stage)
        elif not starts and now - self._last_line < _LINE_EVERY_S:
            return
        self._last_line = now
        self._write(_line(progress, now - self._started[stage]))


@contextmanager
def listening(console: Console) -> Iterator[OnProgress]:
    """Give a listener that shows progress on ``console`` as fits it.

    Args:
        console: Where to; bars if it is a terminal, plain lines if not.
    """
    if not console.is_terminal:
        yield LineListener(lambda line: console.out(line, highlight=False))
        return
    with Bars(
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[note]}"),
        console=console,
    ) as bars:
        yield BarListener(bars)


def _line(progress: Progress, elapsed_s: float) -> str:
    amount = f"{progress.done:,}"
    if progress.total is not None:
        amount += f" of {progress.total:,}"
    note = f"  {progress.note}" if progress.note else ""
    return f"{progress.stage}: {amount}, {elapsed_s:.0f} s{note}"
