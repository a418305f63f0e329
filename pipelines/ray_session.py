"""A local Ray that starts, works and stops without a word."""

import logging
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

# Ray reads these when it is imported or started.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray.data import DataContext
from ray.exceptions import (
    OutOfMemoryError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

from recsys_mtl.errors import EnvironmentFault, RecsysError

__all__ = ["ray_session"]

_LOGGERS = ("ray", "ray.data")
_RAY_ADVICE = "\nFailed to apply UDF transform after "
_GIB = 1 << 30
_LEAST_STORE = 128 << 20


@contextmanager
def ray_session(num_cpus: int | None = None, verbose: bool = False) -> Iterator[int]:
    """Run the body on Ray; yields the number of cores.

    A Ray that already runs, or that ``RAY_ADDRESS`` names, is used and left running.
    Otherwise a local one is started, and stopped at the end, also after a failure.

    Args:
        num_cpus: Cores of a Ray that this starts; all if left out.
        verbose: Whether Ray may write to the console.

    Raises:
        RecsysError: What a task raised, as it raised it.
        EnvironmentFault: Ray did not start, or the system killed a task.
    """
    started = not ray.is_initialized()
    if started:
        _start(num_cpus, verbose)
    context = DataContext.get_current()
    before = (context.enable_progress_bars, context.raise_original_map_exception)
    order = context.execution_options.preserve_order
    context.enable_progress_bars = verbose
    context.raise_original_map_exception = True
    context.execution_options.preserve_order = True
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    if not verbose:
        # What goes wrong is raised, so that Ray need not tell it as well.
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        yield int(resources.get("CPU", 1))
    except (OutOfMemoryError, WorkerCrashedError) as error:
        raise EnvironmentFault(
            "the system ended a task, most likely for lack of memory; give fewer "
            f"cores or more memory ({_first_line(error)})"
        ) from error
    except (RayError, RecsysError) as error:
        cause = _deliberate(error)
        if cause is None or cause is error:
            raise
        raise cause from error
    finally:
        context.enable_progress_bars, context.raise_original_map_exception = before
        context.execution_options.preserve_order = order
        if started:
            ray.shutdown()
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _start(num_cpus: int | None, verbose: bool) -> None:
    address = os.environ.get("RAY_ADDRESS")
    level = logging.INFO if verbose else logging.ERROR
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        if address:
            ray.init(address=address, log_to_driver=verbose, logging_level=level)
        else:
            ray.init(
                address="local",
                num_cpus=num_cpus,
                include_dashboard=False,
                log_to_driver=verbose,
                logging_level=level,
                object_store_memory=_store_bytes(),
            )
    except (RuntimeError, ConnectionError, ValueError) as error:
        raise EnvironmentFault(
            f"Ray does not start: {_first_line(error)}; look at RAY_ADDRESS, "
            "/dev/shm and the space in /tmp"
        ) from error
    finally:
        # Ray puts its own in place, which prints a stack and ends with another code.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_terminate)


def _store_bytes() -> int:
    """Size of the shared object store: small, since rows travel through files."""
    wanted = min(2 * _GIB, psutil.virtual_memory().total // 5)
    shared = Path("/dev/shm")
    if shared.is_dir():
        # Ray complains, and takes the disk, when it asks for more than there is.
        wanted = min(wanted, shutil.disk_usage(shared).free * 8 // 10)
    return max(wanted, _LEAST_STORE)


def _deliberate(error: BaseException | None) -> RecsysError | None:
    """The error that a task raised on purpose, under whatever Ray wrapped it in."""
    while error is not None:
        if isinstance(error, RayTaskError):
            error = error.cause
        elif isinstance(error, RecsysError):
            # Ray Data adds advice on retries to whatever a task says.
            sentence = str(error.args[0]).split(_RAY_ADVICE)[0]
            error.args = (sentence, *error.args[1:])
            return error
        else:
            error = error.__cause__ or error.__context__
    return None


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]
