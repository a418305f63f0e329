"""The commands that answer requests, and say who may ask."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys_mtl.cli.option import STDERR, STDOUT, Verbose, is_verbose
from serving.settings import Engine

if TYPE_CHECKING:
    from serving.settings import ServingSettings

__all__ = ["add_commands"]

_EXAMPLES = """
Example: [bold]recsys-mtl serve runs/quickstart/bundle --port 8000[/bold]

Example: [bold]recsys-mtl serve runs/quickstart/bundle --engine uvicorn[/bold]

Example: [bold]recsys-mtl serve serving.yaml --replicas 4[/bold]
"""


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module to ``app``."""
    app.command(epilog=_EXAMPLES, rich_help_panel="Stages")(serve)


def serve(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="BUNDLE|SETTINGS",
            help="Folder that `run` made, or a YAML file as docs/serving.md shows.",
        ),
    ],
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65_535, help="0 takes any free one.", show_default="8000"
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            help="0.0.0.0 answers other machines too.", show_default="127.0.0.1"
        ),
    ] = None,
    engine: Annotated[
        Engine | None,
        typer.Option(
            help="ray: replicas behind HAProxy; uvicorn: one process.",
            show_default="ray",
        ),
    ] = None,
    replicas: Annotated[
        int | None,
        typer.Option(
            min=1, help="Processes that score; uvicorn has one.", show_default="1"
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Compute threads of a replica.", show_default="1"),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Answer HTTP requests until Ctrl-C: POST /v1/rank and /v1/score, GET /docs.

    Options given here win over those in the settings.
    """
    del verbose
    from serving.run import serve as serve_until_stopped
    from serving.settings_file import load_settings

    given = {
        "port": port,
        "host": host,
        "engine": engine,
        "replicas": replicas,
        "threads": threads,
    }
    settings = _with(load_settings(source), given)
    status = STDERR.status("starting the server")

    def tell(url: str) -> None:
        status.stop()
        STDOUT.print(f"serving {source} at {url}, try {url}/docs; Ctrl-C stops")

    with status:
        serve_until_stopped(settings, on_ready=tell)
    STDERR.print("stopped")


def _with(settings: "ServingSettings", given: dict[str, Any]) -> "ServingSettings":
    """Put options of the command line in their place."""
    server = settings.server.model_dump() | {
        name: value for name, value in given.items() if value is not None
    }
    if server["engine"] == "uvicorn" and server["replicas"] != 1:
        raise typer.BadParameter(
            f"uvicorn runs one replica, got {server['replicas']}; use --engine ray",
            param_hint="--replicas",
        )
    return settings.model_copy(
        update={
            "server": type(settings.server).model_validate(server),
            "verbose": settings.verbose or is_verbose(),
        }
    )
