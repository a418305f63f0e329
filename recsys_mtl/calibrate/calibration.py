"""The calibrators of all tasks."""

from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Float
from pydantic import Field, ValidationError

from recsys_mtl.calibrate.calibrator import Calibrator, SamplingCorrection
from recsys_mtl.errors import ArtifactError
from recsys_mtl.features.schema import Artifact

__all__ = ["Calibration"]


@final
class Calibration(Artifact):
    """What is done to each task's predictions, one step after the other.

    Attributes:
        tasks: Steps by task; tasks that are left as predicted are absent.

    Example:
        >>> half = SamplingCorrection(rate=0.5, splits="train")
        >>> calibration = Calibration(tasks={"click": (half,)})
        >>> calibration.apply(np.array([[0.5, 0.5]]), ("click", "order")).round(3)
        array([[0.333, 0.5  ]])
        >>> calibration.names
        {'click': 'sampling'}
    """

    tasks: dict[str, tuple[Calibrator, ...]] = Field(default_factory=dict)

    @cached_property
    def names(self) -> dict[str, str]:
        """By task the kinds of its steps in order, joined by ``+``."""
        return {
            task: "+".join(step.kind for step in steps)
            for task, steps in self.tasks.items()
        }

    @cached_property
    def version(self) -> str:
        """Changes whenever a calibrator does."""
        return sha256(self.model_dump_json().encode()).hexdigest()[:12]

    def apply(
        self,
        prediction_BT: Float[np.ndarray, "batch tasks"],
        tasks: Sequence[str],
        *,
        as_read: bool = False,
    ) -> Float[np.ndarray, "batch tasks"]:
        """Calibrate predictions; without steps the same array comes back.

        Args:
            prediction_BT: As the network predicts.
            tasks: Names of the columns.
            as_read: Whether for rows as the recipe reads them, to compare with their
                labels: where those rows are sampled too, nothing undoes it.

        Shape:
            - prediction_BT: ``(batch, tasks)``
            - return: the same, of the same type
        """
        if not self.tasks:
            return prediction_BT
        calibrated_BT = prediction_BT.copy()
        for t, task in enumerate(tasks):
            # In float64, so that equal steps give equal digits everywhere.
            prob_B = prediction_BT[:, t].astype(np.float64)
            for step in self.tasks.get(task, ()):
                if as_read and _undoes_what_was_read(step):
                    continue
                prob_B = step.apply(prob_B)
            calibrated_BT[:, t] = prob_B
        return calibrated_BT

    def save(self, path: Path) -> None:
        """Write JSON."""
        path.write_text(self.model_dump_json(indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Calibration":
        """Read what ``save`` wrote.

        Raises:
            ArtifactError: It is missing or damaged.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise ArtifactError(
                f"{path} cannot be read ({error}); run the recipe again"
            ) from error


def _undoes_what_was_read(step: Calibrator) -> bool:
    return isinstance(step, SamplingCorrection) and step.splits == "all"
