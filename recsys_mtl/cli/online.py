"""The commands that answer requests, and say who may ask."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

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


_keys = typer.Typer(
    name="keys",
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Keys of those who may ask a server.",
    epilog="Example: [bold]recsys-mtl keys new --scopes rank[/bold]",
)


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module to ``app``."""
    app.command(epilog=_EXAMPLES, rich_help_panel="Stages")(serve)
    app.add_typer(_keys, rich_help_panel="Stages")


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
    no_auth: Annotated[
        bool,
        typer.Option(
            "--no-auth",
            help="Serve other machines without keys: something in front checks them.",
        ),
    ] = False,
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
    if no_auth:
        auth = settings.auth.model_copy(update={"open_to_network": True})
        settings = settings.model_copy(update={"auth": auth})
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


@_keys.command(
    epilog="Example: [bold]recsys-mtl keys new --scopes rank,feedback --name shop"
    "[/bold]"
)
def new(
    scopes: Annotated[
        str,
        typer.Option(help="What it opens, with commas: rank, feedback, admin."),
    ],
    name: Annotated[
        str | None,
        typer.Option(
            help="For logs and rate limits.", show_default="the scopes and today"
        ),
    ] = None,
    days: Annotated[
        int | None,
        typer.Option(min=1, help="How long it is good.", show_default="for ever"),
    ] = None,
) -> None:
    """Make a key: prints it once, and the line for the file of keys.

    Only the line's hash of it is ever stored. To change a key, add the new line, let
    callers change over, then delete the old line; a running server sees both at once.
    """
    from datetime import UTC, datetime, timedelta
    from typing import get_args

    from serving.keys import Scope, new_key

    wanted = [scope.strip() for scope in scopes.split(",")]
    for scope in wanted:
        if scope not in get_args(Scope):
            raise typer.BadParameter(
                f"{scope!r} is no scope; there are {', '.join(get_args(Scope))}",
                param_hint="--scopes",
            )
    today = datetime.now(UTC).date()
    end = None if days is None else today + timedelta(days=days)
    key, line = new_key(
        name or f"{'-'.join(wanted)}-{today}", cast("list[Scope]", wanted), end
    )
    STDOUT.print(f"key, shown this once:\n{key}\n", soft_wrap=True, highlight=False)
    STDOUT.print(f"line for the file of keys:\n{line}", soft_wrap=True, markup=False)
