"""The command that watches a server."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from recsys_mtl.cli.option import STDOUT, Key, Verbose, base_url
from recsys_mtl.errors import DataError, EnvironmentFault

if TYPE_CHECKING:
    import httpx

    from serving.observability.scrape import Scrape

__all__ = ["add_commands"]

_EXAMPLE = "Example: [bold]recsys-mtl top http://127.0.0.1:8000[/bold]"


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module to ``app``."""
    app.command(epilog=_EXAMPLE, rich_help_panel="Stages")(top)


def top(
    url: Annotated[str, typer.Argument(help="Of a server, as `serve` printed it.")],
    once: Annotated[
        bool, typer.Option("--once", help="Print one frame and end.")
    ] = False,
    interval: Annotated[
        float, typer.Option(min=0.1, help="Seconds between two looks.")
    ] = 1.0,
    key: Key = None,
    verbose: Verbose = False,
) -> None:
    """Show live what a server does, from its /metrics, until Ctrl-C."""
    del verbose
    import httpx
    from rich.live import Live

    from serving.observability.top import frame

    url = base_url(url)
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    with httpx.Client(headers=headers, timeout=10.0, trust_env=False) as client:
        first = before = _look(client, url)
        time.sleep(interval)
        now = _look(client, url)
        if once:
            STDOUT.print(frame(url, first, before, now))
            return
        with Live(frame(url, first, before, now), console=STDOUT, screen=True) as live:
            while True:
                time.sleep(interval)
                before, now = now, _look(client, url)
                live.update(frame(url, first, before, now), refresh=True)


def _look(client: "httpx.Client", url: str) -> "Scrape":
    import httpx

    from serving.observability.scrape import Scrape

    place = f"{url}/metrics"
    try:
        answer = client.get(place)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise EnvironmentFault(
            f"{place} does not answer ({error or type(error).__name__}); is it the "
            "address that `recsys-mtl serve` printed?"
        ) from error
    if answer.status_code in (401, 403):
        raise EnvironmentFault(
            f"{place} wants a key; put one into RECSYS_MTL_KEY, or let the server's "
            "auth.public have `metrics`"
        )
    if not answer.is_success:
        raise EnvironmentFault(
            f"{place} answers {answer.status_code} instead of metrics; is a server of "
            "recsys-mtl there?"
        )
    try:
        return Scrape.parse(answer.text, time.monotonic())
    except DataError as error:
        raise EnvironmentFault(f"{place}: {error}") from error
