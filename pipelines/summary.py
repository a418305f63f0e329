"""What a run came to: ``summary.json``."""

import platform
import statistics
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import BaseModel, ConfigDict

from recsys_mtl.evaluate.rounding import Rounding

__all__ = [
    "Metrics",
    "RunSummary",
    "SeedResult",
    "installed",
    "over_seeds",
]

Metrics = dict[str, dict[str, float]]
"""Task -> metric -> value."""

_PACKAGES = (
    "recsys-mtl",
    "torch",
    "torchrec",
    "fbgemm-gpu-cpu",
    "fbgemm-gpu",
    "ray",
    "pyarrow",
    "numpy",
)


class SeedResult(BaseModel):
    """Test metrics of one training.

    Attributes:
        seed: Of the training.
        metrics: As ``evaluate_tasks`` gives them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int
    metrics: Metrics


class RunSummary(BaseModel):
    """The outcome of a run.

    Attributes:
        recipe: Its name.
        command: What made it.
        metrics: Test metrics, the mean over seeds.
        deviations: Their standard deviations over seeds; empty with one seed.
        seeds: Every seed's metrics; the first seed's weights are in the bundle.
        seconds: By stage, when it was done.
        skipped: Stages that were done before.
        tables: Where the feature tables lie.
        bundle: Where the bundle lies.
        report: Where the report lies.
        request: What the server was asked, if it was.
        response: What it answered.
        rounding: Of tables and products; null where both are as trained.
        versions: Of Python and of the packages that make the numbers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: str
    command: str
    metrics: Metrics
    deviations: Metrics
    seeds: tuple[SeedResult, ...]
    seconds: dict[str, float]
    skipped: tuple[str, ...]
    tables: str
    bundle: str
    report: str
    request: dict[str, Any] | None
    response: dict[str, Any] | None
    rounding: Rounding | None = None
    versions: dict[str, str]


def over_seeds(metrics: Sequence[Metrics]) -> tuple[Metrics, Metrics]:
    """Average metrics over seeds.

    A metric that one seed leaves undefined is left out.

    Returns:
        Means, and sample standard deviations: empty with one seed.

    Example:
        >>> over_seeds([{"click": {"auc": 0.7}}, {"click": {"auc": 0.9}}])[0]
        {'click': {'auc': 0.8}}
    """
    means = {
        task: {name: statistics.fmean(values) for name, values in by_name.items()}
        for task, by_name in _gather(metrics).items()
    }
    if len(metrics) < 2:
        return means, {}
    deviations = {
        task: {name: statistics.stdev(values) for name, values in by_name.items()}
        for task, by_name in _gather(metrics).items()
    }
    return means, deviations


def installed() -> dict[str, str]:
    """Tell the versions that numbers depend on."""
    return {"python": platform.python_version(), **dict(_versions(_PACKAGES))}


def _gather(metrics: Sequence[Metrics]) -> dict[str, dict[str, list[float]]]:
    return {
        task: {
            name: [seed[task][name] for seed in metrics]
            for name in by_name
            if all(name in seed[task] for seed in metrics)
        }
        for task, by_name in metrics[0].items()
    }


def _versions(names: Iterable[str]) -> Iterable[tuple[str, str]]:
    for name in names:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue
