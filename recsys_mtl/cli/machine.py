"""Commands that need no data: schema, recipes, doctor."""

import json
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.table import Table

from recsys_mtl.cli.option import STDOUT, Verbose

__all__ = ["add_commands"]

_COLOUR = {"ok": "green", "warn": "yellow", "fault": "red"}


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module to ``app``."""
    panel = "Machine and recipes"
    for function, example in (
        (schema, "recsys-mtl schema --output recipe.schema.json"),
        (recipes, "recsys-mtl recipes"),
        (doctor, "recsys-mtl doctor"),
    ):
        app.command(epilog=f"Example: [bold]{example}[/bold]", rich_help_panel=panel)(
            function
        )


def schema(
    output: Annotated[
        Path | None, typer.Option(help="File to write; the terminal if left out.")
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Print the JSON schema of recipes, so that editors complete and check them."""
    del verbose
    from recsys_mtl.config.load import recipe_schema

    text = json.dumps(recipe_schema(), indent=2)
    if output is None:
        STDOUT.out(text, highlight=False)
    else:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text + "\n")


def recipes(verbose: Verbose = False) -> None:
    """List the recipes that come with the package."""
    del verbose
    from recsys_mtl.config.load import shipped_recipes

    table = Table("recipe", "tasks", "about", box=None, pad_edge=False)
    for name, path in shipped_recipes().items():
        # Unchecked: a check would ask for the data that a recipe names.
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
        tasks = ", ".join(task["name"] for task in recipe["tasks"])
        table.add_row(name, tasks, recipe.get("description", ""))
    STDOUT.print(table)


def doctor(verbose: Verbose = False) -> None:
    """Check this machine, and say what to do about each fault; exit code 1 if any."""
    del verbose
    from recsys_mtl.doctor import examine, probe

    checks = examine(probe())
    table = Table("check", "", "found", "what to do", box=None)
    for check in checks:
        state = f"[{_COLOUR[check.state]}]{check.state}[/]"
        table.add_row(check.name, state, check.found, check.advice)
    STDOUT.print(table)
    faults = sum(check.state == "fault" for check in checks)
    if faults:
        STDOUT.print(f"{faults} fault{'s' if faults > 1 else ''} to mend")
        raise typer.Exit(1)
    STDOUT.print("this machine is fit")
