"""Figures become sentences: what is found, by which threshold, and what to try."""

from collections.abc import Iterator, Mapping, Sequence

from recsys_mtl.config.model import ModelSpec
from recsys_mtl.xray import advice
from recsys_mtl.xray.expert import USED_SHARE
from recsys_mtl.xray.result import (
    FeatureImportance,
    Finding,
    LevelHealth,
    Subject,
    TableHealth,
)

__all__ = [
    "CONFLICT_COSINE",
    "SCALE_RATIO",
    "UNDERFIT_SHARE",
    "UNTOUCHED_SHARE",
    "ZERO_SHARE",
    "conflict_findings",
    "expert_findings",
    "feature_findings",
    "table_findings",
]

ZERO_SHARE = 0.9
"""An expert with more zeros has collapsed: the share at which the HoME paper (arXiv
2408.05430, abstract) speaks of collapse under ReLU."""

SCALE_RATIO = 5.0
"""An expert this many times louder or quieter than its peers is out of proportion: to
be heard as much, a quiet one needs five times the weight, which is a gate's logit of
1.6 more on every row."""

UNDERFIT_SHARE = 0.5
"""A task neglects its own experts if they get less than this part of what an equal
share of its gradient would be; as ``USED_SHARE`` for weights."""

CONFLICT_COSINE = -0.1
"""Tasks conflict below it. Unrelated directions of 10,000 parameters stay within 0.03
of 0 in 99 of 100 cases; the rest is room for the noise of few positive rows."""

UNTOUCHED_SHARE = 0.2
"""A table wastes memory if more of its vectors were never trained: every fifth."""

_SMALL_TABLE = 1_000  # vectors; in smaller ones there is nothing to save
_MOST_NAMED = 8
_ABOUT_EXPERTS: tuple[Subject, ...] = ("collapse", "degradation", "underfitting")


def expert_findings(
    levels: Sequence[LevelHealth], model: ModelSpec
) -> Iterator[Finding]:
    """Answer the three questions of HoME: collapse, degradation, underfitting.

    Args:
        levels: Of the gating.
        model: What the recipe has, so that no advice names what is there already.
    """
    if not levels:
        for subject in _ABOUT_EXPERTS:
            yield _moot(subject, "The gating has no experts.")
        return
    yield from list(_collapse(levels, model)) or [_not_collapsed(levels)]
    if not any(gate.visible > 1 for level in levels for gate in level.gates):
        yield _moot("degradation", "No gate has a choice: each sees a single expert.")
    else:
        yield from list(_degradation(levels, model)) or [
            _fine(
                "degradation",
                "Every expert that several gates see gets at least "
                f"{USED_SHARE:.0%} of an equal share from more than one of them.",
            )
        ]
    shares = [share for level in levels for share in level.own_share.values()]
    if not shares:
        yield _moot(
            "underfitting",
            "No task has experts of its own beside shared ones, so none can neglect "
            "them.",
        )
    else:
        yield from list(_underfitting(levels, model)) or [
            _fine(
                "underfitting",
                "Every task sends its own experts at least "
                f"{UNDERFIT_SHARE:.0%} of an equal share of its gradient; the least "
                f"that goes to own experts, as against shared ones, is "
                f"{min(shares):.0%}.",
            )
        ]


def conflict_findings(
    cosines: Mapping[str, Mapping[str, float]], num_tasks: int, model: ModelSpec
) -> Iterator[Finding]:
    """Say which tasks pull shared parameters apart.

    Args:
        cosines: Between the tasks' gradients.
        num_tasks: Number of tasks.
        model: As in ``expert_findings``.
    """
    pairs = sorted(
        (cosine, one, other)
        for one, others in cosines.items()
        for other, cosine in others.items()
    )
    if not pairs:
        yield _moot(
            "conflict",
            "There is a single task."
            if num_tasks == 1
            else "No two tasks with labels share a parameter above the embeddings.",
        )
        return
    apart = [pair for pair in pairs if pair[0] < CONFLICT_COSINE]
    for cosine, one, other in apart:
        yield Finding(
            subject="conflict",
            state="found",
            says=f"{one} and {other} pull shared parameters apart: the cosine of their "
            f"gradients is {cosine:+.2f}, below {CONFLICT_COSINE}.",
            advice=advice.on_conflict(model),
        )
    if not apart:
        cosine, one, other = pairs[0]
        yield _fine(
            "conflict",
            f"No two tasks pull shared parameters apart: the lowest cosine is "
            f"{cosine:+.2f} ({one} and {other}), the threshold {CONFLICT_COSINE}.",
        )


def table_findings(tables: Sequence[TableHealth]) -> Iterator[Finding]:
    """Say which vectors never learned anything."""
    if not tables:
        yield _moot("tables", "No feature has an embedding.")
        return
    rows = sum(table.rows for table in tables)
    untouched = sum(table.untouched for table in tables)
    yield from list(_tables(tables)) or [
        _fine(
            "tables",
            f"{untouched:,} of {rows:,} vectors were never trained; no table of "
            f"{_SMALL_TABLE:,} vectors or more has above {UNTOUCHED_SHARE:.0%}.",
        )
    ]


def feature_findings(features: Sequence[FeatureImportance]) -> Iterator[Finding]:
    """Say which features no task needs."""
    if not features:
        yield _moot("features", "No task can be measured on these rows.")
        return
    needed = {of.feature for of in features if of.matters}
    names = list(dict.fromkeys(of.feature for of in features))
    idle = [name for name in names if name not in needed]
    if idle:
        yield Finding(
            subject="features",
            state="found",
            says=f"No task surely loses when one of these is shuffled: {_some(idle)}; "
            "for every task the interval reaches down to 0.",
            advice="Try the recipe without them, one at a time: features that tell the "
            "same stand in for each other.",
        )
    else:
        yield _fine(
            "features",
            f"Each of the {len(names)} features is needed by at least one task: its "
            "interval lies above 0.",
        )


def _collapse(levels: Sequence[LevelHealth], model: ModelSpec) -> Iterator[Finding]:
    for level in levels:
        for expert in level.experts:
            where = f"Expert {expert.name} of level {level.name}"
            ratio = expert.relative_scale
            if expert.zero_share > ZERO_SHARE:
                yield Finding(
                    subject="collapse",
                    state="found",
                    says=f"{where} has collapsed: {expert.zero_share:.0%} of its "
                    f"outputs are 0, above {ZERO_SHARE:.0%}.",
                    advice=advice.on_collapse(model),
                )
            elif ratio is not None and not 1 / SCALE_RATIO <= ratio <= SCALE_RATIO:
                yield Finding(
                    subject="collapse",
                    state="found",
                    says=f"{where} is out of proportion: its outputs spread "
                    f"{ratio:.2g} times as far as those of its peers, outside "
                    f"{1 / SCALE_RATIO:g} to {SCALE_RATIO:g}.",
                    advice=advice.on_scale(model),
                )


def _not_collapsed(levels: Sequence[LevelHealth]) -> Finding:
    experts = [expert for level in levels for expert in level.experts]
    most = max(experts, key=lambda expert: expert.zero_share)
    return _fine(
        "collapse",
        f"No expert has collapsed: at most {most.zero_share:.0%} of an expert's "
        f"outputs are 0 ({most.name}), the threshold is {ZERO_SHARE:.0%}; none spreads "
        f"{SCALE_RATIO:g} times more or less than its peers.",
    )


def _degradation(levels: Sequence[LevelHealth], model: ModelSpec) -> Iterator[Finding]:
    for level in levels:
        for expert in level.experts:
            # An expert that one gate alone sees was meant for it.
            if len(expert.readers) < 2 or len(expert.users) > 1:
                continue
            by = f"only {expert.users[0]} uses it" if expert.users else "none uses it"
            yield Finding(
                subject="degradation",
                state="found",
                says=f"Expert {expert.name} of level {level.name} is shared in name: "
                f"{len(expert.readers)} gates see it and {by}, which is to give it at "
                f"least {USED_SHARE:.0%} of an equal share.",
                advice=advice.on_degradation(model),
            )


def _underfitting(levels: Sequence[LevelHealth], model: ModelSpec) -> Iterator[Finding]:
    for level in levels:
        for task, share in level.own_share.items():
            if share < UNDERFIT_SHARE * level.fair_share[task]:
                yield Finding(
                    subject="underfitting",
                    state="found",
                    says=f"{task} neglects its own experts of level {level.name}: as "
                    f"against shared ones they get {share:.0%} of its gradient, less "
                    f"than {UNDERFIT_SHARE:.0%} of the {level.fair_share[task]:.0%} "
                    "that an equal share would be.",
                    advice=advice.on_underfitting(model),
                )


def _tables(tables: Sequence[TableHealth]) -> Iterator[Finding]:
    idle = [
        f"{table.name} ({table.untouched:,} of {table.rows:,}, "
        f"{table.untouched / table.rows:.0%})"
        for table in tables
        if table.rows >= _SMALL_TABLE and table.untouched > UNTOUCHED_SHARE * table.rows
    ]
    if idle:
        yield Finding(
            subject="tables",
            state="found",
            says=f"More than {UNTOUCHED_SHARE:.0%} of the vectors were never trained: "
            f"{_some(idle)}.",
            advice="Give hashed features fewer buckets, or a vocabulary: the vectors "
            "take memory and say nothing.",
        )
    strangers = [
        f"{table.name} ({table.unseen_later:,})"
        for table in tables
        if table.unseen_later and not table.unseen_lookups
    ]
    if strangers:
        yield Finding(
            subject="tables",
            state="found",
            says="Values of validation and test rows are unseen, and the vector that "
            f"they get was never trained: {_some(strangers)}.",
            advice="Let rare values share it: encoder: {kind: vocabulary, min_count: "
            "2} or more.",
        )


def _fine(subject: Subject, says: str) -> Finding:
    return Finding(subject=subject, state="fine", says=says)


def _moot(subject: Subject, says: str) -> Finding:
    return Finding(subject=subject, state="moot", says=says)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMED])
    more = len(names) - _MOST_NAMED
    return f"{shown} and {more} more" if more > 0 else shown
