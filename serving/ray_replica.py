"""The app inside a Ray Serve replica.

Imported only after ``ray_app`` has set the environment: Ray Serve reads its switches
while it is imported.
"""

import contextlib

import torch
from ray import serve
from starlette.applications import Starlette

from serving.app import create_app
from serving.model_set import load_models
from serving.observability.log import logs_written
from serving.settings import ServingSettings

__all__ = ["Replica"]


@serve.ingress()
class Replica:
    """One process that has all models whole: requests need no further hop.

    Args:
        settings: What to serve; whoever starts replicas has verified the bundles.
    """

    def __init__(self, settings: ServingSettings) -> None:
        torch.set_num_threads(settings.server.threads)
        self._logs = contextlib.ExitStack()  # open as long as the process lives
        self._logs.enter_context(logs_written(settings.observability.log))
        self._app = create_app(load_models(settings.models, verify=False), settings)
        # Ray Serve sends no traffic before this is through, and runs no lifespan.
        self._app.state.service.warm_up()

    def __serve_build_asgi_app__(self) -> Starlette:
        return self._app
