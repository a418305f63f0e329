"""The app inside a Ray Serve replica, and how Ray builds it.

Imported only after ``ray_app`` has set the environment: Ray Serve reads its switches
while it is imported. What is heavy is imported in the replica alone, for Ray imports
this file in a process of its own, just to build the app.
"""

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError
from ray import serve

from recsys_mtl.errors import ConfigError, EnvironmentFault
from serving.ray_config import APP, DEPLOYMENT, serve_config
from serving.settings import ServedModels, ServingSettings

if TYPE_CHECKING:
    from ray.serve import Application
    from starlette.applications import Starlette

    from serving.service import Service

__all__ = ["Replica", "build"]

logger = logging.getLogger(__name__)


@serve.ingress()
class Replica:
    """One process that has all models whole: requests need no further hop.

    Args:
        settings: What to serve, where ``user_config`` does not say otherwise.
    """

    def __init__(self, settings: ServingSettings) -> None:
        from serving.app import create_app
        from serving.model_set import load_models
        from serving.observability.log import logs_written
        from serving.threads import set_threads

        set_threads(settings.server.threads)
        self._settings = settings
        self._logs = contextlib.ExitStack()  # open as long as the process lives
        self._logs.enter_context(logs_written(settings.observability.log))
        # Ray calls reconfigure only when all is loaded, which is too late for models.
        given = serve.get_replica_context()._deployment_config.user_config
        wanted = settings.only_models() if given is None else _wanted(given)
        settings = settings.model_copy(update={"models": wanted.models})
        self._app = create_app(load_models(wanted.models), settings)
        self._service: Service = self._app.state.service
        self._service.swap_all = self._swap_all
        # Ray Serve sends no traffic before this is through, and runs no lifespan.
        self._service.warm_up()
        self._late: set[asyncio.Task[None]] = set()

    async def __del__(self) -> None:
        """Write what was counted; Ray calls this when the last request is answered."""
        if hasattr(self, "_app"):  # not where it could not be made
            observer = self._app.state.observer
            await observer.finish()
            observer.close()

    def __serve_build_asgi_app__(self) -> "Starlette":
        return self._app

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Take other models, at once if they are prepared.

        Ray sends no requests to a replica before this returns, and starts a replica
        anew if it raises: so what is not prepared is loaded afterwards, and what cannot
        be loaded is told and changes nothing.
        """
        try:
            wanted = _wanted(user_config)
        except ValidationError:
            logger.exception("user_config cannot be read; the models before it go on")
            return
        swap = self._service.swap
        if wanted == swap.settings:
            return
        if swap.has(wanted):
            self._service.replace(swap.switch(wanted))
        else:
            task = asyncio.create_task(self._follow(wanted))
            self._late.add(task)
            task.add_done_callback(self._late.discard)

    async def prepare(self, wanted: dict[str, Any]) -> str | None:
        """Load other models; gives the reason if that cannot be."""
        try:
            await self._service.swap.prepare(_wanted(wanted))
        except Exception as fault:
            logger.exception("other models cannot be served")
            return str(fault)
        return None

    def serves(self, wanted: dict[str, Any]) -> bool:
        """Tell whether these are the models that answer."""
        return self._service.swap.settings == _wanted(wanted)

    async def _follow(self, wanted: ServedModels) -> None:
        try:
            await self._service.swap_here(wanted)
        except Exception:
            logger.exception("other models cannot be served; those before go on")

    async def _swap_all(self, wanted: ServedModels) -> None:
        """Prepare here, then on all replicas; only then tell Ray, and wait for all."""
        from ray.serve.context import _get_global_client
        from ray.serve.schema import ServeDeploySchema

        await self._service.swap.prepare(wanted)
        told = wanted.model_dump(mode="json")
        for fault in await _ask_all("prepare", told):
            if fault is not None:
                raise ConfigError(f"a replica refused: {fault}")
        client = _get_global_client()
        assert client is not None, "replicas run under Ray Serve"
        config = ServeDeploySchema(**serve_config(self._settings, wanted))
        # The same as `serve deploy` does, which needs Ray's dashboard.
        await client._controller.apply_config.remote(config)
        deadline = time.monotonic() + _TIMEOUT_S
        while not all(await _ask_all("serves", told)):
            if time.monotonic() > deadline:
                raise EnvironmentFault(
                    f"not all replicas took the models within {_TIMEOUT_S:.0f} s; ask "
                    "GET /v1/models, and look at the logs of those that did not"
                )
            await asyncio.sleep(_POLL_S)


def build(args: dict[str, Any]) -> "Application":
    """Build the app of a server's settings: what ``import_path`` of Ray Serve names.

    Args:
        args: ``ServingSettings`` as JSON.
    """
    from ray.serve.schema import LoggingConfig

    settings = ServingSettings.model_validate(args)
    deployment = serve.deployment(
        name=DEPLOYMENT,
        num_replicas=settings.server.replicas,
        # So far above the replica's own bound that it is always the one to refuse, with
        # a reason and the time to ask again.
        max_ongoing_requests=_ROOM * settings.overload.max_queued_requests + _ROOM,
        graceful_shutdown_timeout_s=settings.server.shutdown_timeout_s,
        ray_actor_options={"num_cpus": 1},
        logging_config=LoggingConfig(
            log_level=logging.INFO if settings.verbose else logging.ERROR,
            enable_access_log=settings.verbose,
        ),
    )
    return deployment(Replica).bind(settings)


async def _ask_all(method: str, told: dict[str, Any]) -> list[Any]:
    """Call a method of every replica.

    Raises:
        EnvironmentFault: Ray cannot ask them.
    """
    replicas = serve.get_deployment_handle(DEPLOYMENT, APP)
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        try:
            return list(await replicas.broadcast(method, told).results_async())
        except Exception as fault:
            # For a moment there is none to ask where the only one takes other models,
            # channels to others close under a call, with whatever gRPC raises then,
            # and one that dies is replaced.
            if time.monotonic() > deadline:
                raise EnvironmentFault(f"replicas cannot be asked: {fault}") from fault
        await asyncio.sleep(_POLL_S)


def _wanted(user_config: dict[str, Any]) -> ServedModels:
    return ServedModels.model_validate(user_config)


_ROOM: Final = 8
_TIMEOUT_S: Final = 60.0
_POLL_S: Final = 0.05
