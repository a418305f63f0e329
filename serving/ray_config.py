"""What Ray Serve is told of a server: an app that it builds, and what may change.

Everything but the models goes into the app's arguments, and a change of those restarts
replicas. The models go into ``user_config``, which replicas take while they answer, and
which a replica that is started again gets as it was last.
"""

from typing import Any, Final

from serving.settings import ServedModels, ServingSettings

__all__ = ["APP", "DEPLOYMENT", "serve_config"]

APP: Final = "recsys-mtl"
DEPLOYMENT: Final = "Ranker"


def serve_config(settings: ServingSettings, wanted: ServedModels) -> dict[str, Any]:
    """Write the config of Ray Serve's declarative interface.

    Args:
        settings: Of the server, as it was started.
        wanted: Models to serve.

    Returns:
        A ``ServeDeploySchema`` as JSON.
    """
    return {
        "applications": [
            {
                "name": APP,
                "route_prefix": "/",
                "import_path": "serving.ray_replica:build",
                "args": settings.model_dump(mode="json"),
                "deployments": [
                    {"name": DEPLOYMENT, "user_config": wanted.model_dump(mode="json")}
                ],
            }
        ]
    }
