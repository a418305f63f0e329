"""Probabilities that a label is above each of several points."""

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float

__all__ = ["Curve"]


@final
@dataclass(frozen=True)
class Curve:
    """Predicted curves of one task: survival over time, or levels passed.

    Attributes:
        points: Rising labels.
        above_BP: Predicted probability that a row's label is above each.
    """

    points: tuple[float, ...]
    above_BP: Float[np.ndarray, "batch points"]

    def rows(self, chosen_B: Bool[np.ndarray, " batch"]) -> "Curve":
        """Curves of some rows."""
        return Curve(self.points, self.above_BP[chosen_B])

    def at(self, point: float) -> Float[np.ndarray, " batch"]:
        """Read survival between the points of bins, where it falls geometrically.

        It is 1 at 0 and stays what it is after the last point.

        Example:
            >>> curve = Curve((1.0, 3.0), np.array([[0.5, 0.25]]))
            >>> curve.at(3.0), curve.at(0.0)
            (array([0.25]), array([1.]))
        """
        ends = np.array(self.points)
        bin_ = int(np.searchsorted(ends, point))
        if bin_ == len(ends):
            return self.above_BP[:, -1].astype(np.float64)
        after_B = self.above_BP[:, bin_].astype(np.float64)
        start, before_B = 0.0, np.ones(len(after_B))
        if bin_ > 0:
            start, before_B = ends[bin_ - 1], self.above_BP[:, bin_ - 1]
        part = (point - start) / (ends[bin_] - start)
        between_B: Float[np.ndarray, " batch"] = before_B.astype(np.float64) ** (
            1 - part
        ) * (after_B**part)
        return between_B
