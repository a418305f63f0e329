"""The app run by uvicorn alone: one process, no cluster."""

import asyncio
import contextlib
import gc
import logging
import math
import socket
import threading
from collections.abc import Callable, Iterator

import uvicorn

from serving.app import create_app
from serving.model_set import load_models
from serving.observability.log import logs_written
from serving.port import claim_port, url_of
from serving.protocol import bounded_protocol
from serving.service import Service
from serving.settings import ServingSettings
from serving.threads import set_threads

__all__ = ["run_uvicorn"]


def run_uvicorn(
    settings: ServingSettings,
    *,
    on_ready: Callable[[str], None],
    stop: threading.Event,
) -> None:
    """Serve until ``stop`` is set.

    Args:
        settings: What to serve, where, and within which limits.
        on_ready: Called with the URL once a warm-up request went through.
        stop: Set it, and running requests finish and the port is free again.

    Raises:
        EnvironmentFault: The port cannot be had; told before a bundle is loaded.
        ArtifactError: A bundle cannot be used.
    """
    server = settings.server
    with contextlib.closing(claim_port(server.host, server.port)) as claimed:
        if not settings.verbose:
            for name in _LOUD:
                logging.getLogger(name).setLevel(logging.ERROR)
        set_threads(server.threads)
        app = create_app(load_models(settings.models), settings)
        observer, logs = app.state.observer, settings.observability.log
        config = uvicorn.Config(
            app,
            http=bounded_protocol(settings.limits.header_timeout_s),
            ws="none",
            lifespan="off",
            log_config=None,
            log_level=logging.INFO if settings.verbose else logging.CRITICAL,
            access_log=settings.verbose,
            timeout_graceful_shutdown=math.ceil(server.shutdown_timeout_s),
        )
        with (
            logs_written(logs),
            contextlib.closing(observer),
            contextlib.closing(app.state.service.entities),
            asyncio.Runner(loop_factory=config.get_loop_factory()) as runner,
        ):
            try:
                runner.run(
                    _serve(_Server(config), claimed, app.state.service, on_ready, stop)
                )
            finally:
                runner.run(observer.finish())


class _Server(uvicorn.Server):
    """Leaves signals to whoever called: ``stop`` is the one way out."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve(
    server: _Server,
    claimed: socket.socket,
    service: Service,
    on_ready: Callable[[str], None],
    stop: threading.Event,
) -> None:
    serving = asyncio.create_task(server.serve(sockets=[claimed]))
    try:
        while not (server.started or serving.done()):
            await asyncio.sleep(_TICK_S)
        await asyncio.to_thread(service.warm_up)
        # What is there by now stays: collections that look at it again only delay.
        gc.collect()
        gc.freeze()
        on_ready(url_of(claimed))
        while not (stop.is_set() or serving.done()):
            await asyncio.sleep(_TICK_S)
    finally:
        server.should_exit = True
        await serving


_TICK_S = 0.05
_LOUD = ("torch.fx._symbolic_trace", "torchrec")
