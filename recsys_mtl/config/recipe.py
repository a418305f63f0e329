"""A recipe: everything from raw rows to a score, in one object."""

from typing import Annotated

from pydantic import Field, model_validator

from recsys_mtl.config._base import Name, Spec
from recsys_mtl.config.data import DataSpec
from recsys_mtl.config.export import ExportSpec
from recsys_mtl.config.feature import FeatureSpec
from recsys_mtl.config.model import ModelSpec
from recsys_mtl.config.reference import (
    bottom_faults,
    chain_faults,
    feature_faults,
    pooling_faults,
    task_faults,
    tower_faults,
    width_faults,
)
from recsys_mtl.config.score import ScoreSpec, SumScore
from recsys_mtl.config.task import AFTER_TRAINING, TaskSpec
from recsys_mtl.config.task_group import group_faults
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
    export: ExportSpec = ExportSpec()
    score: ScoreSpec | None = Field(
        None, description="the sum of all binary tasks with weight 1 if left out"
    )

    @model_validator(mode="after")
    def _names_refer_to_something(self) -> "Recipe":
        faults = [
            *feature_faults(self.data, self.features, self.tasks),
            *task_faults(self.data, self.tasks, self.train.early_stopping, self.score),
            *pooling_faults(self.model.embedding.dim, self.features),
            *bottom_faults(
                self.model.bottom, self.model.embedding.numeric, self.features
            ),
            *group_faults(self.model.gating, self.tasks),
            *chain_faults(self.model.chain, self.tasks),
            *tower_faults(
                self.model.tower, self.model.embedding.numeric, self.features
            ),
            *width_faults(self.model.embedding.dim, self.train),
        ]
        if faults:
            raise ValueError("\n".join(faults))
        return self

    @property
    def uncalibrated(self) -> "Recipe":
        """The same without what is done after the training."""
        tasks = self.model_dump(include={"tasks"})["tasks"]
        for task in tasks:
            for name in AFTER_TRAINING:
                task.pop(name, None)
        plain = self.model_dump(exclude={"export"}) | {"tasks": tasks}
        return Recipe.model_validate(plain)

    @property
    def fused_score(self) -> ScoreSpec:
        """The declared score, or all binary tasks (else all tasks) with weight 1."""
        if self.score is not None:
            return self.score
        binary = [task.name for task in self.tasks if task.kind == "binary"]
        names = binary or [task.name for task in self.tasks]
        return SumScore(weights=dict.fromkeys(names, 1.0))
