"""The command that answers requests."""

from typing import Annotated

import typer

from recsys_mtl.cli.option import (
    STDERR,
    STDOUT,
    BundleArgument,
    Verbose,
    is_verbose,
)
from serving.run import Engine

__all__ = ["add_commands"]


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module to ``app``."""
    example = "recsys-mtl serve runs/quickstart/bundle --port 8000"
    app.command(epilog=f"Example: [bold]{example}[/bold]", rich_help_panel="Stages")(
        serve
    )


def serve(
    bundle: BundleArgument,
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="0 takes any free one.")
    ] = 8000,
    host: Annotated[
        str, typer.Option(help="0.0.0.0 answers other machines too.")
    ] = "127.0.0.1",
    engine: Annotated[
        Engine, typer.Option(help="ray: replicas behind HAProxy; uvicorn: one process.")
    ] = "ray",
    replicas: Annotated[
        int, typer.Option(min=1, help="Processes that score; uvicorn has one.")
    ] = 1,
    threads: Annotated[
        int, typer.Option(min=1, help="Compute threads of a replica.")
    ] = 1,
    verbose: Verbose = False,
) -> None:
    """Answer HTTP requests until Ctrl-C: POST /v1/rank and /v1/score, GET /docs."""
    del verbose
    if engine == "uvicorn" and replicas != 1:
        raise typer.BadParameter(
            f"uvicorn runs one replica, got {replicas}; use --engine ray",
            param_hint="--replicas",
        )
    from serving.run import serve as serve_until_stopped
    from serving.settings import ServingSettings

    status = STDERR.status("starting the server")

    def tell(url: str) -> None:
        status.stop()
        STDOUT.print(f"serving {bundle} at {url}, try {url}/docs; Ctrl-C stops")

    with status:
        serve_until_stopped(
            bundle,
            engine=engine,
            host=host,
            port=port,
            replicas=replicas,
            settings=ServingSettings(threads=threads, verbose=is_verbose()),
            on_ready=tell,
        )
    STDERR.print("stopped")
