"""The page of an x-ray: findings first, then what they rest on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from recsys_mtl.evaluate.canvas import Chart
from recsys_mtl.xray.chart import bar_chart, cosine_chart, heat_map, need_chart
from recsys_mtl.xray.result import Finding, LevelHealth, TableHealth, XRay
from recsys_mtl.xray.table import NUM_TENTHS
from recsys_mtl.xray.verdict import CONFLICT_COSINE, UNDERFIT_SHARE, ZERO_SHARE

__all__ = ["write_xray"]

_MOST_LINES = 12  # charts of cosines over checks; of the pairs that agree least
_LEAST_AXIS = 0.25  # of cosines: one axis for all lines, on which noise looks small
_MOST_FEATURES = 25  # rows of a chart of importance; all are in the JSON
_WORDS = {"fine": "Fine", "found": "Look here", "moot": "Does not arise"}


@final
@dataclass(frozen=True)
class _Table:
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@final
@dataclass(frozen=True)
class _Section:
    title: str
    about: str
    findings: tuple[Finding, ...]
    charts: tuple[tuple[str, tuple[Chart, ...]], ...] = ()
    table: _Table | None = None


def write_xray(path: Path, xray: XRay) -> None:
    """Write the page, which needs no network and no other file.

    The same x-ray gives the same bytes.

    Args:
        path: The HTML file; its folder must exist.
        xray: What was found.
    """
    environment = Environment(
        loader=ChoiceLoader(
            [
                PackageLoader("recsys_mtl", "xray"),
                PackageLoader("recsys_mtl", "evaluate"),
            ]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found = sum(finding.state == "found" for finding in xray.findings)
    page = environment.get_template("page.html.j2").render(
        xray=xray,
        sections=tuple(_sections(xray)),
        found=f"{found} thing{'' if found == 1 else 's'} to look at",
        words=_WORDS,
        trusted=Markup,  # only for charts, which escape their text
    )
    path.write_text(page, encoding="utf-8")


def _sections(xray: XRay) -> Iterator[_Section]:
    def of(subject: str) -> tuple[Finding, ...]:
        return tuple(f for f in xray.findings if f.subject == subject)

    yield _Section(
        "Do experts collapse?",
        "An expert whose outputs are nearly all 0, or much smaller or larger than its "
        "peers', cannot be weighed fairly by any gate.",
        of("collapse"),
        tuple((_level(xray, level), _outputs(level)) for level in xray.levels),
    )
    yield _Section(
        "Are shared experts shared?",
        "The mean weight that each gate gives each expert. A shared expert that one "
        "task alone uses is that task's own in all but name.",
        of("degradation"),
        tuple((_level(xray, level), (_weights(level),)) for level in xray.levels),
        _entropies(xray.levels),
    )
    yield _Section(
        "Do tasks train their own experts?",
        "Where each task's gradient goes: shares of its norm by expert. A task that "
        "leans on shared experts leaves its own untrained.",
        of("underfitting"),
        tuple(
            (_level(xray, level), tuple(_pulls(level)))
            for level in xray.levels
            if level.gradients
        ),
    )
    yield _Section(
        "Do tasks pull apart?",
        "Cosines between the tasks' gradients on the parameters above the embeddings "
        "that both of them move: 1 is agreement, -1 opposition. Near the end of a "
        "training gradients are small and mostly noise, so look at the lines too.",
        of("conflict"),
        tuple(_conflicts(xray)),
    )
    yield _Section(
        "What did embedding tables learn?",
        "A vector whose value no training row has is as it was drawn at the start. "
        "Norms are in tenths of the trained vectors, from the rarest to the most "
        "frequent.",
        of("tables"),
        (("", tuple(_norms(xray.tables))),),
        _tables(xray.tables),
    )
    yield _Section(
        "Which features are needed?",
        "What a task loses when a feature's values are dealt out to other rows, and "
        "the interval that holds 0 for a feature that says nothing in 19 of 20 cases.",
        of("features"),
        tuple(_needs(xray)),
    )


def _level(xray: XRay, level: LevelHealth) -> str:
    return f"Level {level.name}" if len(xray.levels) > 1 else ""


def _outputs(level: LevelHealth) -> tuple[Chart, ...]:
    names = [expert.name for expert in level.experts]
    return (
        bar_chart(
            "Zeros",
            names,
            [expert.zero_share for expert in level.experts],
            note=f"share of outputs that are 0; the threshold is {ZERO_SHARE:.0%}",
            marks=[ZERO_SHARE] * len(names),
        ),
        bar_chart(
            "Units that are never on",
            names,
            [expert.dead_units for expert in level.experts],
            note="share of units that are 0 on every row",
        ),
        bar_chart(
            "Scale",
            names,
            [expert.scale for expert in level.experts],
            note="standard deviation of outputs",
            percent=False,
        ),
    )


def _weights(level: LevelHealth) -> Chart:
    return heat_map(
        "Weights",
        [gate.reader for gate in level.gates],
        [expert.name for expert in level.experts],
        [[weight or None for weight in gate.weights] for gate in level.gates],
        note="mean over rows; gates are rows, experts columns",
    )


def _entropies(levels: Sequence[LevelHealth]) -> _Table | None:
    rows = tuple(
        (
            gate.reader,
            level.name,
            str(gate.visible),
            "" if gate.entropy is None else f"{gate.entropy:.0%}",
        )
        for level in levels
        for gate in level.gates
    )
    heads = ("Gate", "Level", "Experts it sees", "Entropy, of the largest possible")
    return _Table(heads, rows) if rows else None


def _pulls(level: LevelHealth) -> Iterator[Chart]:
    tasks = list(level.gradients)
    yield heat_map(
        "Gradients",
        tasks,
        [expert.name for expert in level.experts],
        [[share or None for share in level.gradients[task]] for task in tasks],
        note="share of a task's gradient by expert; tasks are rows",
    )
    if level.own_share:
        names = list(level.own_share)
        yield bar_chart(
            "To own experts",
            names,
            [level.own_share[name] for name in names],
            note=f"as against shared ones; ticks at {UNDERFIT_SHARE:.0%} of an equal "
            "share",
            marks=[UNDERFIT_SHARE * level.fair_share[name] for name in names],
        )


def _conflicts(xray: XRay) -> Iterator[tuple[str, tuple[Chart, ...]]]:
    pairs = sorted(
        (cosine, one, other)
        for one, others in xray.cosines.items()
        for other, cosine in others.items()
    )
    if not pairs:
        return
    matrix = [
        [
            1.0
            if one == other
            else xray.cosines.get(one, {}).get(
                other, xray.cosines.get(other, {}).get(one)
            )
            for other in xray.tasks
        ]
        for one in xray.tasks
    ]
    note = f"this model, {xray.rows:,} rows"
    chart = heat_map("Now", xray.tasks, xray.tasks, matrix, note=note, signed=True)
    yield "", (chart,)
    lines = {
        f"{one} and {other}": [
            (check.step, check.cosines[one][other])
            for check in xray.history
            if other in check.cosines.get(one, {})
        ]
        for _, one, other in pairs[:_MOST_LINES]
    }
    sizes = [abs(cosine) for points in lines.values() for _, cosine in points]
    if sizes:
        heading = "Over the training's checks"
        if len(pairs) > len(lines):
            heading += f", the {len(lines)} pairs that agree least"
        yield (
            heading,
            tuple(
                cosine_chart(
                    title,
                    [step for step, _ in points],
                    [cosine for _, cosine in points],
                    threshold=CONFLICT_COSINE,
                    most=max(_LEAST_AXIS, *sizes),
                )
                for title, points in lines.items()
                if points
            ),
        )


def _norms(tables: Sequence[TableHealth]) -> Iterator[Chart]:
    shown = [table for table in tables if table.norms]
    if not shown:
        return
    cells: list[list[float | None]] = []
    for table in shown:
        norms = [table.untouched_norm, *table.norms]
        norms += [None] * (NUM_TENTHS - len(table.norms))
        largest = max(norm for norm in norms if norm is not None) or 1.0
        cells.append([None if norm is None else norm / largest for norm in norms])
    yield heat_map(
        "Norms",
        [table.name for table in shown],
        ["never", *map(str, range(1, NUM_TENTHS + 1))],
        cells,
        note="mean norm by tenth of frequency, over the table's largest; a table of "
        "fewer vectors has fewer parts",
    )


def _tables(tables: Sequence[TableHealth]) -> _Table | None:
    heads = (
        "Table",
        "Vectors",
        "Width",
        "Lookups",
        "Never trained",
        "Share",
        "Missing",
        "Unseen",
        "Unseen later",
    )
    rows = tuple(
        (
            table.name,
            f"{table.rows:,}",
            str(table.dim),
            f"{table.lookups:,}",
            f"{table.untouched:,}",
            f"{table.untouched / table.rows:.1%}",
            f"{table.missing_lookups:,}",
            f"{table.unseen_lookups:,}",
            f"{table.unseen_later:,}",
        )
        for table in tables
    )
    return _Table(heads, rows) if rows else None


def _needs(xray: XRay) -> Iterator[tuple[str, tuple[Chart, ...]]]:
    charts = []
    for task, metric in xray.baseline.items():
        of = [feature for feature in xray.features if feature.task == task]
        of.sort(key=lambda feature: -feature.loss)
        shown = of[:_MOST_FEATURES]
        auc = of[0].metric == "auc"
        note = (
            f"fall of AUC from {metric:.4f}" if auc else f"rise of loss, {metric:.4g}"
        )
        if len(of) > len(shown):
            note += f"; the {len(shown)} needed most of {len(of)}"
        charts.append(
            need_chart(
                task,
                [feature.feature for feature in shown],
                [(feature.loss, feature.low, feature.high) for feature in shown],
                note=note,
            )
        )
    if charts:
        yield "", tuple(charts)
