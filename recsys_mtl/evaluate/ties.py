"""Rows summed up by distinct prediction: what ranks depend on, from one sort."""

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float, Int, Shaped

__all__ = ["Ties", "starts", "sums"]


@final
@dataclass(frozen=True)
class Ties:
    """One entry per distinct prediction, ascending.

    Attributes:
        prediction_P: The prediction.
        rows_P: Rows that have it.
        label_P: Sum of their labels.
        square_P: Sum of their squared labels.
    """

    prediction_P: Float[np.ndarray, " values"]
    rows_P: Float[np.ndarray, " values"]
    label_P: Float[np.ndarray, " values"]
    square_P: Float[np.ndarray, " values"]

    @classmethod
    def of(
        cls,
        label_B: Float[np.ndarray, " batch"],
        prediction_B: Float[np.ndarray, " batch"],
    ) -> "Ties":
        """Sort and sum up."""
        order_B = np.argsort(prediction_B, kind="stable")
        prediction_B, label_B = prediction_B[order_B], label_B[order_B]
        starts_P = starts(prediction_B)
        return cls(
            prediction_B[starts_P].astype(np.float64),
            np.diff(starts_P, append=len(label_B)).astype(np.float64),
            sums(label_B, starts_P),
            sums(label_B.astype(np.float64) ** 2, starts_P),
        )


def starts(
    *sorted_columns_B: Shaped[np.ndarray, " batch"],
) -> Int[np.ndarray, " values"]:
    """Find the first row of every run of rows that are equal in all columns."""
    new_B = np.zeros(len(sorted_columns_B[0]), dtype=bool)
    new_B[:1] = True
    for column_B in sorted_columns_B:
        new_B[1:] |= column_B[1:] != column_B[:-1]
    return np.flatnonzero(new_B)


def sums(
    value_B: Float[np.ndarray, " batch"], starts_P: Int[np.ndarray, " values"]
) -> Float[np.ndarray, " values"]:
    """Sum over the runs that begin at ``starts_P``, in float64."""
    if not len(starts_P):
        return np.zeros(0)
    return np.add.reduceat(value_B.astype(np.float64), starts_P)
