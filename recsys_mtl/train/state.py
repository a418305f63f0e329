"""Where a run stands: everything of it that is no tensor."""

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from recsys_mtl.config.recipe import Recipe

__all__ = ["Check", "RunState", "run_digest"]


class Check(BaseModel):
    """One look at the validation data.

    Attributes:
        epoch: Epochs begun, so 1 in the first.
        step: Steps taken since the start.
        train_loss: Mean loss of each task over the training rows since the last check.
        metrics: By task, as ``evaluate_tasks`` gives them.
        gradient_cosines: Between the gradients of each task and each later one, on the
            same validation rows at every check; see ``recsys_mtl.xray``.
        learning_rates: Of each group of parameters, after this check.
        seconds: Wall time of training since the last check, validation left out.
        cpu_seconds: Processor time of this worker in that time, all threads together.
        rows_per_s: Training rows of all workers in each second of wall time.
        best: Whether no earlier check was better.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epoch: int
    step: int
    train_loss: dict[str, float]
    metrics: dict[str, dict[str, float]]
    gradient_cosines: dict[str, dict[str, float]] = {}
    learning_rates: tuple[float, ...]
    seconds: float
    cpu_seconds: float
    rows_per_s: float
    best: bool


class RunState(BaseModel):
    """Position of a run; the order of rows and all draws follow from it.

    Attributes:
        digest: Of the recipe and the feature tables; see ``run_digest``.
        epoch: Epochs completed.
        epoch_step: Steps taken in the running epoch.
        world: Number of workers of those steps.
        step: Steps taken in all.
        loss_sum: Weighted sum of each task's loss over the rows since the last check.
        loss_count: Sum of the weights: without row weights, the number of those rows.
        seconds: Wall time since the last check.
        cpu_seconds: Processor time since the last check.
        rows: Training rows read since the last check.
        dropped_rows: Rows an epoch leaves out; see ``FeatureReader``.
        checks: So far.
        finished: Whether nothing is left to do.
    """

    model_config = ConfigDict(extra="forbid")

    digest: str
    epoch: int = 0
    epoch_step: int = 0
    world: int = 1
    step: int = 0
    loss_sum: list[float]
    loss_count: list[float]
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    rows: int = 0
    dropped_rows: int = 0
    checks: list[Check] = []
    finished: bool = False

    @classmethod
    def start(cls, digest: str, num_tasks: int) -> "RunState":
        """Begin before the first step."""
        return cls(
            digest=digest, loss_sum=[0.0] * num_tasks, loss_count=[0.0] * num_tasks
        )

    def spread(self, world: int, steps_per_epoch: int) -> None:
        """Go on with another number of workers, at about the same row of the epoch.

        Batches are cut differently then, so some rows near the cut come twice or not
        at all in this one epoch.
        """
        if world != self.world:
            step = self.epoch_step * self.world // world
            self.epoch_step = min(step, steps_per_epoch - 1)
            self.world = world


def run_digest(recipe: Recipe, tables: Path) -> str:
    """Identify what a run fits to what, so that no other run continues it."""
    digest = hashlib.sha256(recipe.uncalibrated.model_dump_json().encode())
    digest.update((tables / "manifest.json").read_bytes())
    return digest.hexdigest()
