"""A recipe: everything from raw rows to a score, in one object."""

from typing import Annotated

from pydantic import Field, model_validator

from recsys_mtl.config._base import Name, Spec
from recsys_mtl.config.data import DataSpec
from recsys_mtl.config.feature import (
    AggregateFeature,
    CategoricalFeature,
    FeatureSpec,
    HistoryFeature,
    QuantileFeature,
    TimePartFeature,
)
from recsys_mtl.config.model import ModelSpec
from recsys_mtl.config.score import ScoreSpec, SumScore
from recsys_mtl.config.task import TaskSpec
from recsys_mtl.config.train import TrainSpec

__all__ = ["Recipe"]


class Recipe(Spec):
    """One YAML file, checked.

    Raises:
        pydantic.ValidationError: A value is outside its contract;
            ``recsys_mtl.config.load.load_recipe`` turns it into sentences.
    """

    name: Name
    description: str = ""
    data: DataSpec
    features: Annotated[tuple[FeatureSpec, ...], Field(min_length=1)]
    tasks: Annotated[tuple[TaskSpec, ...], Field(min_length=1)]
    model: ModelSpec = ModelSpec()
    train: TrainSpec = TrainSpec()
    score: ScoreSpec | None = Field(
        None, description="the sum of all binary tasks with weight 1 if left out"
    )

    @model_validator(mode="after")
    def _names_refer_to_something(self) -> "Recipe":
        faults = [*self._feature_faults(), *self._task_faults()]
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _feature_faults(self) -> list[str]:
        names = [feature.name for feature in self.features]
        by_name = dict(zip(names, self.features, strict=True))
        faults = [f"feature {n!r} is declared twice" for n in _repeated(names)]
        timed = self.data.timestamp is not None
        for feature in self.features:
            if (
                isinstance(feature, TimePartFeature | HistoryFeature | AggregateFeature)
                and not timed
            ):
                faults.append(
                    f"feature {feature.name!r} of kind {feature.kind!r} needs "
                    "data.timestamp, which is left out"
                )
            if (
                isinstance(feature, AggregateFeature)
                and getattr(self.data.keys, feature.by) is None
            ):
                faults.append(
                    f"aggregate {feature.name!r} needs data.keys.{feature.by}, which "
                    "is left out"
                )
            if isinstance(feature, HistoryFeature):
                if self.data.keys.user is None:
                    faults.append(
                        f"history {feature.name!r} needs data.keys.user, which is left "
                        "out"
                    )
                allowed = [
                    n
                    for n, f in by_name.items()
                    if isinstance(f, CategoricalFeature | QuantileFeature)
                ]
                faults += [
                    f"history {feature.name!r} reads {field!r}, which is no "
                    f"categorical or quantile feature; there are {', '.join(allowed)}"
                    for field in feature.fields
                    if field not in allowed
                ]
        return faults

    def _task_faults(self) -> list[str]:
        names = [task.name for task in self.tasks]
        faults = [f"task {n!r} is declared twice" for n in _repeated(names)]
        if self.score is not None:
            faults += [
                f"score weighs {name!r}, which is no task; there are {', '.join(names)}"
                for name in self.score.weights
                if name not in names
            ]
        metric_task = self.train.early_stopping.metric.split(".")[0]
        if metric_task not in (*names, "mean"):
            faults.append(
                f"train.early_stopping.metric names {metric_task!r}, which is neither "
                f"'mean' nor a task; there are {', '.join(names)}"
            )
        return faults

    @property
    def fused_score(self) -> ScoreSpec:
        """The declared score, or all binary tasks (else all tasks) with weight 1."""
        if self.score is not None:
            return self.score
        binary = [task.name for task in self.tasks if task.kind == "binary"]
        names = binary or [task.name for task in self.tasks]
        return SumScore(weights=dict.fromkeys(names, 1.0))


def _repeated(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
