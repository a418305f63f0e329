"""The app inside a Ray Serve replica.

Imported only after ``ray_app`` has set the environment: Ray Serve reads its switches
while it is imported.
"""

from pathlib import Path

import torch
from ray import serve
from starlette.applications import Starlette

from recsys_mtl.export.bundle import load_bundle
from recsys_mtl.rank.ranker import Ranker
from serving.app import create_app
from serving.settings import ServingSettings

__all__ = ["Replica"]


@serve.ingress()
class Replica:
    """One process that has the whole model: requests need no further hop.

    Args:
        bundle: Folder; whoever starts replicas has verified it.
        settings: Limits.
    """

    def __init__(self, bundle: str, settings: ServingSettings) -> None:
        torch.set_num_threads(settings.threads)
        self._app = create_app(
            Ranker(load_bundle(Path(bundle), verify=False)), settings
        )
        # Ray Serve sends no traffic before this is through, and runs no lifespan.
        self._app.state.service.warm_up()

    def __serve_build_asgi_app__(self) -> Starlette:
        return self._app
