"""A whole network looked through."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from recsys_mtl.config.recipe import Recipe
from recsys_mtl.data.batch import EncodedRows
from recsys_mtl.data.sample import sample_rows
from recsys_mtl.features.manifest import FeatureManifest
from recsys_mtl.model.network import Network
from recsys_mtl.progress import OnProgress, Progress, silent
from recsys_mtl.xray.expert import LevelTally
from recsys_mtl.xray.gradient import Cosines, TaskGradients, at_rest, pull
from recsys_mtl.xray.importance import measure_needs
from recsys_mtl.xray.result import LevelHealth, XRay
from recsys_mtl.xray.table import examine_tables
from recsys_mtl.xray.verdict import (
    conflict_findings,
    expert_findings,
    feature_findings,
    table_findings,
)

__all__ = ["Experts", "examine", "examine_experts"]

_BATCH_SIZE = 2_048
"""Bounds memory: experts and the gradients of all tasks are held for one batch."""


class Experts(NamedTuple):
    """What experts do, and how tasks pull at what they share."""

    levels: tuple[LevelHealth, ...]
    cosines: Cosines


def examine(
    network: Network,
    tables: Path,
    recipe: Recipe,
    *,
    split: str,
    limit: int,
    shuffles: int,
    about: Mapping[str, Any],
    on_progress: OnProgress = silent,
) -> XRay:
    """Look a network through on rows of a split; its weights are only read.

    Args:
        network: On the CPU, not spread over workers.
        tables: The feature tables that it was trained on.
        recipe: That it was trained by.
        split: ``train``, ``valid`` or ``test``.
        limit: Rows to read at most, drawn from the split.
        shuffles: Of each feature.
        about: ``name``, ``bundle`` and ``history`` of the result.
        on_progress: Told of each part.

    Raises:
        ArtifactError: The tables cannot be read.
    """
    tasks, model = recipe.tasks, recipe.model
    names = tuple(task.name for task in tasks)
    schema = FeatureManifest.load(tables).feature_schema
    rows = sample_rows(tables, split, tasks=names, limit=limit)
    experts = examine_experts(network, rows, names, on_progress=on_progress)
    health = examine_tables(network, tables, on_progress=on_progress)
    with at_rest(network):
        needs = measure_needs(
            network, rows, schema, tasks, shuffles=shuffles, on_progress=on_progress
        )
    return XRay(
        **about,
        split=split,
        rows=rows.num_rows,
        tasks=names,
        levels=experts.levels,
        cosines=experts.cosines,
        tables=health,
        features=needs.features,
        baseline=needs.baseline,
        findings=(
            *expert_findings(experts.levels, model),
            *conflict_findings(experts.cosines, len(names), model),
            *table_findings(health),
            *feature_findings(needs.features),
        ),
    )


def examine_experts(
    network: Network,
    rows: EncodedRows,
    tasks: tuple[str, ...],
    *,
    on_progress: OnProgress = silent,
) -> Experts:
    """Trace every gate and every task's gradient over all rows.

    Args:
        network: On the CPU.
        rows: With labels.
        tasks: Names, in the order of the labels.
        on_progress: Told of rows.
    """
    gradients = TaskGradients(tasks)
    tallies: list[LevelTally] = []
    with at_rest(network):
        for start in range(0, rows.num_rows, _BATCH_SIZE):
            stop = min(start + _BATCH_SIZE, rows.num_rows)
            found = pull(network, rows.batch(start, stop))
            tallies = tallies or [LevelTally(level, tasks) for level in found.levels]
            for tally, level, squares_TE in zip(
                tallies, found.levels, found.squares, strict=True
            ):
                tally.add(level, squares_TE)
            gradients.add(found.gradients)
            on_progress(Progress("experts", stop, rows.num_rows))
    groups = [
        frozenset[str]().union(*(tally.groups(t) for tally in tallies))
        for t in range(len(tasks))
    ]
    levels = tuple(tally.health(groups) for tally in tallies)
    return Experts(levels, gradients.cosines())
