"""The app run by uvicorn alone: one process, no cluster."""

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import uvicorn

from recsys_mtl.export.bundle import load_bundle
from recsys_mtl.rank.ranker import Ranker
from serving.app import create_app
from serving.port import claim_port, url_of
from serving.service import Service
from serving.settings import ServingSettings

__all__ = ["run_uvicorn"]


def run_uvicorn(
    bundle: Path,
    *,
    host: str,
    port: int,
    settings: ServingSettings,
    on_ready: Callable[[str], None],
    stop: threading.Event,
) -> None:
    """Serve until ``stop`` is set.

    Args:
        bundle: Folder that ``write_bundle`` wrote.
        host: Address to listen on.
        port: 0 for any free one.
        settings: Limits.
        on_ready: Called with the URL once a warm-up request went through.
        stop: Set it, and running requests finish and the port is free again.

    Raises:
        EnvironmentFault: The port cannot be had; told before the bundle is loaded.
        ArtifactError: The bundle cannot be used.
    """
    with contextlib.closing(claim_port(host, port)) as claimed:
        if not settings.verbose:
            for name in _LOUD:
                logging.getLogger(name).setLevel(logging.ERROR)
        torch.set_num_threads(settings.threads)
        app = create_app(Ranker(load_bundle(bundle)), settings)
        config = uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            log_level=logging.INFO if settings.verbose else logging.CRITICAL,
            access_log=settings.verbose,
            timeout_graceful_shutdown=int(settings.shutdown_timeout_s),
        )
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(
                _serve(_Server(config), claimed, app.state.service, on_ready, stop)
            )


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
        on_ready(url_of(claimed))
        while not (stop.is_set() or serving.done()):
            await asyncio.sleep(_TICK_S)
    finally:
        server.should_exit = True
        await serving


_TICK_S = 0.05
_LOUD = ("torch.fx._symbolic_trace", "torchrec")
