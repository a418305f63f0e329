"""The command that changes the models of a running server."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys_mtl.cli.option import STDERR, STDOUT, Key, Verbose, base_url
from recsys_mtl.errors import ConfigError, EnvironmentFault

if TYPE_CHECKING:
    import httpx

__all__ = ["add_commands"]

_EXAMPLES = """
Example: [bold]recsys-mtl swap runs/new/bundle[/bold]

Example: [bold]recsys-mtl swap serving.yaml --url http://10.0.0.7:8000[/bold]
"""


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module to ``app``."""
    app.command(epilog=_EXAMPLES, rich_help_panel="Stages")(swap)


def swap(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="BUNDLE|SETTINGS",
            help="Bundle to serve instead, or a YAML file of settings, of which the "
            "models are taken: bundles, traffic, scores.",
        ),
    ],
    url: Annotated[
        str, typer.Option(help="Of the server, as `serve` printed it.")
    ] = "http://127.0.0.1:8000",
    key: Key = None,
    verbose: Verbose = False,
) -> None:
    """Serve other models, without a restart and without a request lost.

    The server verifies and loads the bundles, tries them with requests of
    late, and lets all replicas switch; if anything is wrong, it keeps what it
    has. Bundles are read where the server runs. To go back, swap to what was
    served before: the server still has it.
    """
    del verbose
    import httpx

    from serving.settings_file import load_settings

    wanted = load_settings(source).resolved()
    place = f"{base_url(url)}/v1/models"
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    # Without a bound: large bundles are hashed whole.
    with httpx.Client(headers=headers, timeout=None, trust_env=False) as client:
        before = _ask(client, "GET", place)
        with STDERR.status("the server loads and tries the models"):
            body = wanted.only_models().model_dump(mode="json", exclude_none=True)
            after = _ask(client, "PUT", place, body)
    versions = {model["name"]: model["version"] for model in before["models"]}
    for model in after["models"]:
        name, version = model["name"], model["version"]
        was = versions.pop(name, None)
        told = "as before" if was == version else f"was {was}" if was else "new"
        STDOUT.print(f"{name} {version} ({told})", highlight=False)
    for name, version in versions.items():
        STDOUT.print(f"{name} {version} is no longer served", highlight=False)


def _ask(
    client: "httpx.Client", method: str, place: str, body: object = None
) -> dict[str, Any]:
    import httpx

    try:
        answer = client.request(method, place, json=body)
        found: dict[str, Any] = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise EnvironmentFault(
            f"{place} does not answer as a server of recsys-mtl does "
            f"({error or type(error).__name__}); is it the address that "
            "`recsys-mtl serve` printed?"
        ) from error
    if answer.status_code in (401, 403):
        raise EnvironmentFault(
            f"{place} wants a key with the scope admin; put one into RECSYS_MTL_KEY"
        )
    if not answer.is_success:
        raise ConfigError(str(found.get("error", {}).get("message", found)))
    return found
