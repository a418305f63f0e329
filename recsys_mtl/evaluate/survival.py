"""How good predicted times and survival curves are where some rows are censored.

Rows that left early say nothing of what came later. Kaplan and Meier's estimate counts
them as long as they were there; the other measures weigh those that stayed by one over
the probability of staying (IPCW), which is estimated on the rows that are measured.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float, Int

from recsys_mtl.errors import DataError
from recsys_mtl.evaluate.concordance import concordance
from recsys_mtl.evaluate.curve import Curve

__all__ = [
    "NUM_RISK_GROUPS",
    "GroupTable",
    "KaplanMeier",
    "Observed",
    "risk_groups",
    "survival_metrics",
]

NUM_RISK_GROUPS = 10
"""Equally full groups by predicted survival, in each of which it is compared."""

_Floats = Float[np.ndarray, " batch"]


@final
@dataclass(frozen=True)
class Observed:
    """Signed times taken apart.

    Attributes:
        time_B: Of the event, or of last sight.
        event_B: Whether it was the event.
    """

    time_B: Float[np.ndarray, " batch"]
    event_B: Bool[np.ndarray, " batch"]

    @classmethod
    def of(cls, label_B: _Floats) -> "Observed":
        """Read labels of a survival task: t for an event, -t for none until t."""
        return cls(np.abs(label_B).astype(np.float64), ~np.signbit(label_B))


@final
@dataclass(frozen=True)
class KaplanMeier:
    """Share that is still there after each distinct time.

    Attributes:
        time_N: Distinct times, rising.
        share_N: Share after each.
    """

    time_N: Float[np.ndarray, " times"]
    share_N: Float[np.ndarray, " times"]

    @classmethod
    def of(cls, observed: Observed, *, censoring: bool = False) -> "KaplanMeier":
        """Estimate the share without an event, or that is not yet censored.

        At one time events come before censoring.

        References:
            Kaplan and Meier, "Nonparametric Estimation from Incomplete Observations",
            Journal of the American Statistical Association 1958, doi:10.2307/2281868.

        Example:
            >>> seen = Observed.of(np.array([1.0, -1.0, 3.0]))
            >>> KaplanMeier.of(seen).share_N.round(3).tolist()
            [0.667, 0.0]
        """
        time_N, place_B = np.unique(observed.time_B, return_inverse=True)
        all_N = np.bincount(place_B, minlength=len(time_N))
        event_N = np.bincount(place_B[observed.event_B], minlength=len(time_N))
        there_N = np.cumsum(all_N[::-1])[::-1]
        gone_N = event_N
        if censoring:
            there_N, gone_N = there_N - event_N, all_N - event_N
        left_N = 1.0 - gone_N / np.maximum(there_N, 1)
        return cls(time_N, np.cumprod(left_N))

    def at(self, time_B: _Floats) -> _Floats:
        """Share just after each time; the last one for whatever is later."""
        place_B = np.searchsorted(self.time_N, time_B, side="right")
        share_B: _Floats = np.concatenate([[1.0], self.share_N])[place_B]
        return share_B


@final
@dataclass(frozen=True)
class GroupTable:
    """Predicted and actual survival at one horizon, from low to high predictions.

    Attributes:
        horizon: The time.
        rows: Rows of each group.
        predicted: Mean predicted survival.
        actual: Kaplan and Meier's.
    """

    horizon: float
    rows: Int[np.ndarray, " groups"]
    predicted: Float[np.ndarray, " groups"]
    actual: Float[np.ndarray, " groups"]


def survival_metrics(
    label_B: _Floats,
    prediction_B: _Floats,
    curve: Curve | None = None,
    horizons: tuple[float, ...] = (),
) -> dict[str, float]:
    """Measure predicted times and survival curves.

    ``c_index``, Harrell's concordance; ``c_index_uno``, weighted so that it does not
    depend on censoring, over events before the last edge of the bins; with curves also
    ``integrated_brier``, the mean over time of the weighted squared error of survival
    at the edges, and ``ece``, the mean distance of predicted and Kaplan and Meier's
    survival over equally full risk groups and the horizons.

    Args:
        label_B: Signed times.
        prediction_B: Expected times.
        curve: Predicted survival at the edges of the bins.
        horizons: Times of ``ece``; the middle edge if there are none.

    Raises:
        DataError: A label or prediction is not finite.

    References:
        Uno et al., "On the C-statistics for Evaluating Overall Adequacy of Risk
        Prediction Procedures with Censored Survival Data", Statistics in Medicine 2011,
        doi:10.1002/sim.4154.
        Graf et al., "Assessment and Comparison of Prognostic Classification Schemes for
        Survival Data", Statistics in Medicine 1999 (the weighted Brier score).

    Example:
        >>> label = np.array([1.0, -2.0, 3.0])
        >>> survival_metrics(label, np.array([1.0, 3.0, 2.0]))["c_index"]
        1.0
    """
    for what, value_B in (("label", label_B), ("prediction", prediction_B)):
        bad_B = ~np.isfinite(value_B)
        if bad_B.any():
            raise DataError(
                f"every {what} must be finite, got {value_B[bad_B][0]} in row "
                f"{int(np.argmax(bad_B))}; look for a diverged training run or a wrong "
                "label column"
            )
    seen = Observed.of(label_B)
    metrics = {"rows": float(len(label_B)), "positives": float(seen.event_B.sum())}
    if len(label_B) == 0:
        return metrics
    staying = KaplanMeier.of(seen, censoring=True)
    stays_B = staying.at(seen.time_B)
    # Who was certain to have left has no weight: there is nobody to stand for.
    weight_B = np.divide(1.0, stays_B, out=np.zeros_like(stays_B), where=stays_B > 0)
    early_B = seen.time_B < (np.inf if curve is None else curve.points[-1])
    for name, weights_B in (
        ("c_index", None),
        ("c_index_uno", np.where(early_B, weight_B**2, 0.0)),
    ):
        found = concordance(seen.time_B, seen.event_B, prediction_B, weights_B)
        if found is not None:
            metrics[name] = found
    if curve is not None:
        metrics |= _integrated_brier(seen, curve, staying, weight_B)
        metrics["ece"] = float(
            np.mean([_gap(table) for table in risk_groups(label_B, curve, horizons)])
        )
    return metrics


def risk_groups(
    label_B: _Floats, curve: Curve, horizons: tuple[float, ...] = ()
) -> list[GroupTable]:
    """Compare predicted with actual survival in equally full groups of rows.

    Args:
        label_B: Signed times.
        curve: Predicted survival.
        horizons: One table for each; the middle edge if there are none.
    """
    seen = Observed.of(label_B)
    tables = []
    for horizon in horizons or (curve.points[len(curve.points) // 2],):
        predicted_B = curve.at(horizon)
        groups = np.array_split(np.argsort(predicted_B, kind="stable"), NUM_RISK_GROUPS)
        groups = [group for group in groups if len(group)]
        actual = [
            KaplanMeier.of(Observed(seen.time_B[group], seen.event_B[group])).at(
                np.array([horizon])
            )[0]
            for group in groups
        ]
        tables.append(
            GroupTable(
                horizon,
                np.array([len(group) for group in groups]),
                np.array([predicted_B[group].mean() for group in groups]),
                np.array(actual),
            )
        )
    return tables


def _gap(table: GroupTable) -> float:
    distance = np.abs(table.predicted - table.actual)
    return float(np.average(distance, weights=table.rows))


def _integrated_brier(
    seen: Observed, curve: Curve, staying: KaplanMeier, weight_B: _Floats
) -> dict[str, float]:
    """Integrate over the edges at which some rows are still watched."""
    scores, times = [], []
    last = seen.time_B.max()
    for j, time in enumerate(curve.points):
        stays = float(staying.at(np.array([time]))[0])
        if time >= last or stays <= 0:
            break
        above_B = curve.above_BP[:, j].astype(np.float64)
        gone_B = (seen.time_B <= time) & seen.event_B
        there_B = seen.time_B > time
        error_B = above_B**2 * gone_B * weight_B + (1 - above_B) ** 2 * there_B / stays
        scores.append(float(error_B.mean()))
        times.append(time)
    if len(times) < 2:
        return {}
    area = float(np.trapezoid(scores, times))
    return {"integrated_brier": area / (times[-1] - times[0])}
