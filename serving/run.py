"""Start a server and stay until it is told to stop."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal, assert_never

from serving.settings import ServingSettings
from serving.signals import stopped_by_signals

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
    with stopped_by_signals(stop):
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
