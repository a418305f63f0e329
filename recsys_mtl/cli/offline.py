"""Commands of the offline stages, and ``run``, which is all of them."""

import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from recsys_mtl.cli.option import (
    STDERR,
    STDOUT,
    BundleArgument,
    Overrides,
    RecipeArgument,
    TablesOption,
    Verbose,
    WorkersOption,
    is_verbose,
)

__all__ = ["add_commands"]

_Split = Literal["train", "valid", "test"]


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module to ``app``."""
    for function, example in (
        (run, "recsys-mtl run quickstart --seeds 3 --set train.epochs=2"),
        (features, "recsys-mtl features quickstart --output tables"),
        (train, "recsys-mtl train quickstart --tables tables --output runs/mine"),
        (evaluate, "recsys-mtl evaluate runs/mine/bundle --tables runs/mine/tables"),
        (xray, "recsys-mtl xray runs/mine/bundle --output xray.html"),
        (
            score,
            "recsys-mtl score runs/mine/bundle --input rows.parquet --output s.parquet",
        ),
    ):
        app.command(
            epilog=f"Example: [bold]{example}[/bold]", rich_help_panel="Stages"
        )(function)


def run(
    recipe: RecipeArgument,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder of the run; runs/<name of the recipe> if left out."),
    ] = None,
    workers: WorkersOption = 1,
    seeds: Annotated[
        int, typer.Option(min=1, help="Train and evaluate with this many seeds.")
    ] = 1,
    overrides: Overrides = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start anew where a run lies already.")
    ] = False,
    request: Annotated[
        bool,
        typer.Option(
            "--request", help="At the end, start a server and ask it to rank once."
        ),
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Run all stages of a recipe: features, train, evaluate, report, bundle.

    Run it again to go on after a stop: stages that are done are left alone.
    """
    del verbose
    from pipelines.run import RunOptions, run_recipe
    from recsys_mtl.cli.page import closing_page
    from recsys_mtl.config.load import load_recipe
    from recsys_mtl.console import listening

    spec = load_recipe(recipe, overrides=overrides or [])
    folder = output if output is not None else Path("runs") / spec.name
    options = RunOptions(
        workers=workers,
        seeds=seeds,
        overwrite=overwrite,
        request=request,
        verbose=is_verbose(),
        command=shlex.join(["recsys-mtl", *sys.argv[1:]]),
    )
    with listening(STDERR) as on_progress:
        summary = run_recipe(spec, folder, options, on_progress=on_progress)
    STDOUT.print(closing_page(summary, folder, _program()), crop=False)


def features(
    recipe: RecipeArgument,
    output: Annotated[Path, typer.Option(help="Folder to make.")],
    overrides: Overrides = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace tables of another recipe.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Turn raw rows into feature tables."""
    del verbose
    from pipelines.features import build_feature_tables
    from recsys_mtl.cli.page import tables_page
    from recsys_mtl.config.load import load_recipe
    from recsys_mtl.console import listening

    spec = load_recipe(recipe, overrides=overrides or [])
    with listening(STDERR) as on_progress:
        manifest = build_feature_tables(
            spec,
            output,
            overwrite=overwrite,
            verbose=is_verbose(),
            on_progress=on_progress,
        )
    STDOUT.print(tables_page(manifest, output))


def train(
    recipe: RecipeArgument,
    tables: TablesOption,
    output: Annotated[Path, typer.Option(help="Folder for checkpoint and events.")],
    workers: WorkersOption = 1,
    overrides: Overrides = None,
    verbose: Verbose = False,
) -> None:
    """Train on feature tables; keeps the weights of the best validation."""
    del verbose
    from pipelines.run import train_once
    from recsys_mtl.config.load import load_recipe
    from recsys_mtl.console import listening

    spec = load_recipe(recipe, overrides=overrides or [])
    with listening(STDERR) as on_progress:
        train_once(spec, tables, output, workers=workers, on_progress=on_progress)
    STDOUT.print(f"checkpoint: {output / 'checkpoint'}")


def evaluate(
    bundle: BundleArgument,
    tables: TablesOption,
    split: Annotated[_Split, typer.Option(help="Which rows.")] = "test",
    predictions: Annotated[
        Path | None, typer.Option(help="Parquet file to write predictions to.")
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Measure a bundle on feature tables."""
    del verbose
    from pipelines.evaluate import evaluate_bundle
    from recsys_mtl.cli.page import metrics_table
    from recsys_mtl.console import listening

    with listening(STDERR) as on_progress:
        metrics = evaluate_bundle(
            bundle, tables, split, predictions=predictions, on_progress=on_progress
        )
    STDOUT.print(metrics_table(metrics))
    if predictions is not None:
        STDOUT.print(f"predictions: {predictions}")


def xray(
    bundle: BundleArgument,
    tables: Annotated[
        Path | None,
        typer.Option(help="Its feature tables; those of its run if left out."),
    ] = None,
    split: Annotated[_Split, typer.Option(help="Which rows.")] = "valid",
    rows: Annotated[
        int, typer.Option(min=100, help="Rows to read at most, drawn from the split.")
    ] = 20_000,
    shuffles: Annotated[
        int, typer.Option(min=2, help="Times that each feature is shuffled.")
    ] = 5,
    output: Annotated[
        Path | None,
        typer.Option(help="HTML file; xray.html beside the bundle if left out."),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """See what experts, gates, tables and features of a bundle do; a page and JSON."""
    del verbose
    from pipelines.xray import xray_bundle
    from recsys_mtl.cli.findings import findings_page
    from recsys_mtl.console import listening

    with listening(STDERR) as on_progress:
        found, page = xray_bundle(
            bundle,
            tables,
            output,
            split=split,
            rows=rows,
            shuffles=shuffles,
            on_progress=on_progress,
        )
    STDOUT.print(findings_page(found, page))


def score(
    bundle: BundleArgument,
    source: Annotated[
        Path,
        typer.Option(
            "--input", help="Raw rows: a file or folder; Parquet, Arrow, CSV."
        ),
    ],
    output: Annotated[
        Path, typer.Option(help="A file if it ends in .parquet, else a folder.")
    ],
    verbose: Verbose = False,
) -> None:
    """Predict raw rows in bulk: keys, a prediction a task, a score."""
    del verbose
    from pipelines.score import score_table
    from recsys_mtl.console import listening

    with listening(STDERR) as on_progress:
        rows = score_table(
            bundle, source, output, verbose=is_verbose(), on_progress=on_progress
        )
    STDOUT.print(f"{rows:,} rows scored: {output}")


def _program() -> str:
    """How the user can call this program: by its name if the PATH has it."""
    called = Path(sys.argv[0])
    found = shutil.which(called.name)
    if found is not None and Path(found).resolve() == called.resolve():
        return called.name
    return str(called)
