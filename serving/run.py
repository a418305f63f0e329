"""Start a server and stay until it is told to stop."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Literal, assert_never

from serving.settings import ServingSettings

__all__ = ["Engine", "serve"]

Engine = Literal["ray", "uvicorn"]


def serve(
    bundle: Path,
    *,
    engine: Engine = "ray",
    host: str = "127.0.0.1",
    port: int = 8000,
    replicas: int = 1,
    settings: ServingSettings | None = None,
    on_ready: Callable[[str], None] = lambda _: None,
    stop: threading.Event | None = None,
) -> None:
    """Serve ``bundle`` over HTTP; returns after SIGTERM, Ctrl-C or ``stop``.

    Args:
        bundle: Folder that ``write_bundle`` wrote.
        engine: ``ray`` for replicas behind HAProxy, ``uvicorn`` for one process.
        host: Address to listen on.
        port: 0 for any free one.
        replicas: Processes that score; uvicorn has one.
        settings: Limits; the default ones if left out.
        on_ready: Called with the URL once the server answers.
        stop: An event to stop by, for callers that are no terminal.

    Raises:
        EnvironmentFault: The port cannot be had; told before anything is loaded.
        ArtifactError: The bundle cannot be used.
    """
    settings = settings or ServingSettings()
    stop = stop or threading.Event()
    with _stopped_by_signals(stop):
        match engine:
            case "uvicorn":
                if replicas != 1:
                    raise ValueError(
                        f"uvicorn runs one replica, got replicas={replicas}; use the "
                        "engine ray"
                    )
                from serving.uvicorn_app import run_uvicorn

                run_uvicorn(
                    bundle,
                    host=host,
                    port=port,
                    settings=settings,
                    on_ready=on_ready,
                    stop=stop,
                )
            case "ray":
                from serving.ray_app import run_ray

                run_ray(
                    bundle,
                    host=host,
                    port=port,
                    replicas=replicas,
                    settings=settings,
                    on_ready=on_ready,
                    stop=stop,
                )
            case _:
                assert_never(engine)


@contextlib.contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Let SIGINT and SIGTERM set ``stop``; a second one has its usual effect."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals; the caller has ``stop``
        return

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        stop.set()
        signal.signal(number, before[number])

    before = {
        number: signal.signal(number, handle)
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
