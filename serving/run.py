"""Start a server and stay until it is told to stop."""

import threading
from collections.abc import Callable
from typing import assert_never

from recsys_mtl.errors import ConfigError
from serving.port import is_loopback
from serving.settings import ServingSettings
from serving.signals import stopped_by_signals

__all__ = ["serve"]


def serve(
    settings: ServingSettings,
    *,
    on_ready: Callable[[str], None] = lambda _: None,
    stop: threading.Event | None = None,
) -> None:
    """Answer HTTP requests; returns after SIGTERM, Ctrl-C or ``stop``.

    Args:
        settings: What to serve, where, and within which limits.
        on_ready: Called with the URL once the server answers.
        stop: An event to stop by, for callers that are no terminal.

    Raises:
        EnvironmentFault: The port cannot be had; told before anything is loaded.
        ArtifactError: A bundle cannot be used.
        ConfigError: There is nothing to serve, or anybody could ask.
    """
    if not settings.models:
        raise ConfigError("there is no bundle to serve; name one in models")
    _refuse_an_open_door(settings)
    stop = stop or threading.Event()
    with stopped_by_signals(stop):
        match settings.server.engine:
            case "uvicorn":
                from serving.uvicorn_app import run_uvicorn

                run_uvicorn(settings, on_ready=on_ready, stop=stop)
            case "ray":
                from serving.ray_app import run_ray

                run_ray(settings, on_ready=on_ready, stop=stop)
            case _:
                assert_never(settings.server.engine)


def _refuse_an_open_door(settings: ServingSettings) -> None:
    auth, host = settings.auth, settings.server.host
    if auth.keys_file is not None or auth.open_to_network or is_loopback(host):
        return
    raise ConfigError(
        f"host {host} can be reached by other machines, and without keys each of them "
        "may ask; name a file of keys in auth.keys_file (`recsys-mtl keys new` makes "
        "one), or give --no-auth where something in front checks who asks"
    )
