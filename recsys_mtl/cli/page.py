"""What commands print at the end."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from recsys_mtl.evaluate.rounding import Rounding

if TYPE_CHECKING:
    # Only for their types: they bring in the shells.
    from pathlib import Path

    from pipelines.summary import RunSummary
    from recsys_mtl.features.manifest import FeatureManifest

__all__ = ["closing_page", "metrics_table", "tables_page"]

_Metrics = Mapping[str, Mapping[str, float]]

# Of the data, not of a training: the same for every seed.
_SAME = ("rows", "positives", "best_auc")
# What fits a terminal; the report has more.
_BINARY = {
    # metric: head, format
    "rows": ("rows", ",.0f"),
    "positives": ("positives", ",.0f"),
    "auc": ("AUC", ".4f"),
    # Where the truth is known: the best AUC there is, and how far from .5 to it.
    "best_auc": ("best", ".4f"),
    "reached": ("reached", ".1%"),
    "gauc": ("GAUC", ".4f"),
    "normalised_entropy": ("NE", ".4f"),
    "calibration_ratio": ("calibr.", ".3f"),
}
_VALUE = {
    "rows": ("rows", ",.0f"),
    "rmse": ("RMSE", ".4g"),
    "mae": ("MAE", ".4g"),
    "rank_correlation": ("rank corr.", ".4f"),
    "calibration_ratio": ("calibr.", ".3f"),
}
_ORDINAL = {
    "rows": ("rows", ",.0f"),
    "mae": ("MAE", ".4f"),
    "kappa": ("kappa", ".4f"),
    "rank_correlation": ("rank corr.", ".4f"),
    "log_loss": ("log loss", ".4f"),
}
_SURVIVAL = {
    "rows": ("rows", ",.0f"),
    "positives": ("events", ",.0f"),
    "c_index": ("C-index", ".4f"),
    "c_index_uno": ("IPCW", ".4f"),
    "integrated_brier": ("IBS", ".4f"),
    "ece": ("ECE", ".4f"),
}
# Deviations take room: of several seeds, what a comparison would quote.
_OF_SEEDS = (
    "positives",
    "auc",
    "best_auc",
    "reached",
    "normalised_entropy",
    "rmse",
    "kappa",
    "c_index",
    "integrated_brier",
)


def metrics_table(
    metrics: _Metrics, deviations: _Metrics | None = None
) -> RenderableType:
    """Lay metrics out, a task a line; with ``deviations``, as mean ± deviation.

    Args:
        metrics: As ``evaluate_tasks`` gives them.
        deviations: Of several seeds.
    """
    # A task without rows has counts alone, and stands with the binary ones.
    kinds: list[tuple[dict[str, Mapping[str, float]], Mapping[str, tuple[str, str]]]]
    kinds = [({}, columns) for columns in (_BINARY, _VALUE, _ORDINAL, _SURVIVAL)]
    binary, value, ordinal, survival = (part for part, _ in kinds)
    for task, of in metrics.items():
        if "rmse" in of:
            value[task] = of
        elif "mae" in of:
            ordinal[task] = of
        elif {"c_index", "integrated_brier"} & of.keys():
            survival[task] = of
        else:
            binary[task] = of
    return Group(
        *(_table(part, columns, deviations or {}) for part, columns in kinds if part)
    )


def _table(
    metrics: _Metrics, columns: Mapping[str, tuple[str, str]], deviations: _Metrics
) -> Table:
    shown = {
        metric: column
        for metric, column in columns.items()
        if any(metric in values for values in metrics.values())
        and (not deviations or metric in _OF_SEEDS)
    }
    table = Table(box=None, pad_edge=False)
    table.add_column("task", no_wrap=True)
    for head, _ in shown.values():
        table.add_column(head, justify="right", no_wrap=True)
    for task, values in metrics.items():
        cells = []
        for metric, (_, form) in shown.items():
            cell = format(values[metric], form) if metric in values else ""
            spread = deviations.get(task, {}).get(metric)
            if spread is not None and metric not in _SAME:
                cell += f" ± {spread:{form}}"
            cells.append(cell)
        table.add_row(task, *cells)
    return table


def closing_page(
    summary: "RunSummary", folder: "Path", program: str = "recsys-mtl"
) -> RenderableType:
    """Say what a run came to, where it lies and what to try next.

    Args:
        summary: Of the run.
        folder: Of the run.
        program: How this program is called from here.
    """
    count = len(summary.seeds)
    heading = "Test metrics" + (f", mean ± deviation of {count} seeds" * (count > 1))
    parts: list[RenderableType] = [
        Text(f"\n{heading}", style="bold"),
        metrics_table(summary.metrics, summary.deviations),
    ]
    if summary.rounding is not None:
        parts += _rounded(summary.rounding)
    if summary.response is not None:
        parts += [Text("\nOne ranked request", style="bold"), _ranked(summary.response)]
    parts += [Text("\nWhere things lie", style="bold"), _places(summary, folder)]
    seconds = ", ".join(f"{n} {s:.0f} s" for n, s in summary.seconds.items())
    total = sum(summary.seconds.values())
    parts.append(Text(f"\n{seconds}; {total:.0f} s in all"))
    if summary.skipped:
        parts.append(Text(f"done before: {', '.join(summary.skipped)}"))
    parts += [Text("\nTry next", style="bold"), _commands(summary, program)]
    return Group(*parts)


def tables_page(manifest: "FeatureManifest", folder: "Path") -> RenderableType:
    """Say what feature tables came to."""
    table = Table("task", "split", box=None, pad_edge=False)
    for head in ("rows", "positives", "mean"):
        table.add_column(head, justify="right")
    for task, splits in manifest.tasks.items():
        for split, stats in splits.items():
            table.add_row(
                task,
                split,
                f"{stats.rows:,}",
                f"{stats.positives:,}",
                f"{stats.mean:.4g}",
            )
    return Group(table, Text(f"feature tables: {folder}"))


def _rounded(rounding: Rounding) -> list[RenderableType]:
    """Say what rounding saved, and what it cost."""
    heading = Text(f"\n{rounding.heading}", style="bold")
    if not rounding.auc:
        return [heading]
    table = Table(box=None, pad_edge=False)
    table.add_column("task", no_wrap=True)
    for head in ("AUC as trained", "as served", "difference"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in rounding.rows():
        table.add_row(*row)
    return [heading, table, Text("of validation rows", style="dim")]


def _ranked(response: Mapping[str, object]) -> RenderableType:
    table = Table("item", box=None, pad_edge=False)
    table.add_column("score", justify="right")
    items = response["items"]
    assert isinstance(items, list)
    for task in items[0]["predictions"]:
        table.add_column(task, justify="right")
    for item in items[:5]:
        predictions = (f"{value:.4f}" for value in item["predictions"].values())
        table.add_row(str(item["id"]), f"{item['score']:.4f}", *predictions)
    return table


def _places(summary: "RunSummary", folder: "Path") -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for column in table.columns:
        column.no_wrap = True
    table.add_row("bundle", summary.bundle)
    table.add_row("report", summary.report)
    table.add_row("summary", str(folder / "summary.json"))
    return table


def _commands(summary: "RunSummary", program: str) -> RenderableType:
    lines = (
        ("answer requests; its page /docs says how", f"serve {summary.bundle}"),
        (
            "measure the bundle again",
            f"evaluate {summary.bundle} --tables {summary.tables}",
        ),
        (
            "help your editor complete a recipe of your own",
            "schema --output recipe.schema.json",
        ),
    )
    # Wider than the terminal if need be: a command that is cut cannot be copied.
    page = Text(no_wrap=True, overflow="ignore")
    for why, command in lines:
        page.append(f"# {why}\n", style="dim")
        page.append(f"{program} {command}\n")
    return page
