"""What a bundle says of rows, before anyone is told."""

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float

__all__ = ["Details", "Scored"]

Details = dict[str, dict[str, Float[np.ndarray, " batch"]]]
"""By task that has any, then by name, what there is beside predictions."""


@final
@dataclass(frozen=True)
class Scored:
    """What a bundle says of raw rows, in their order.

    Attributes:
        prediction_BT: Expected labels, tasks in the order of the recipe.
        score_B: The fused score.
        known_user_B: Whether the bundle knows the row's user.
        known_item_B: Whether the bundle knows the row's item.
        details: By task that has any, then by name, what there is beside the
            prediction; empty unless it was asked for.
        network_BT: Predictions before calibration; the same array where there is none.
    """

    prediction_BT: Float[np.ndarray, "batch tasks"]
    score_B: Float[np.ndarray, " batch"]
    known_user_B: Bool[np.ndarray, " batch"]
    known_item_B: Bool[np.ndarray, " batch"]
    details: Details
    network_BT: Float[np.ndarray, "batch tasks"]

    def rows(self, start: int, stop: int) -> "Scored":
        """Give some of the rows."""
        part = slice(start, stop)
        return Scored(
            self.prediction_BT[part],
            self.score_B[part],
            self.known_user_B[part],
            self.known_item_B[part],
            {
                task: {name: detail_B[part] for name, detail_B in of.items()}
                for task, of in self.details.items()
            },
            self.network_BT[part],
        )
