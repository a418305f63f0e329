"""What the report's tables of metrics have as columns."""

from dataclasses import dataclass
from typing import final

from recsys_mtl.evaluate.calibration import NUM_CALIBRATION_BINS

__all__ = ["CALIBRATION_COLUMNS", "COLUMNS", "Column"]


@final
@dataclass(frozen=True)
class Column:
    """A column of a metric table.

    Attributes:
        head: As the reader knows it.
        metric: Name in the dictionary.
        form: Format specification of the value.
        explain: One sentence for the legend; empty for counts.
        low, high: Metrics of the interval's ends.
    """

    head: str
    metric: str
    form: str
    explain: str = ""
    low: str = ""
    high: str = ""


_COUNTS = (Column("Rows", "rows", ",.0f"), Column("Positives", "positives", ",.0f"))
COLUMNS: dict[str, tuple[Column, ...]] = {
    "binary": (
        *_COUNTS,
        Column(
            "AUC",
            "auc",
            ".4f",
            "probability that a positive scores above a negative, with DeLong's 95 % "
            "interval; .5 is chance",
            "auc_low",
            "auc_high",
        ),
        Column(
            "GAUC",
            "gauc",
            ".4f",
            "AUC within each user, weighted by rows, over users with both classes",
        ),
        Column("Log loss", "log_loss", ".4f", "mean negative log likelihood"),
        Column(
            "NE",
            "normalised_entropy",
            ".4f",
            "log loss over that of always predicting the base rate; below 1 is better",
        ),
        Column(
            "Pred/actual",
            "calibration_ratio",
            ".3f",
            "sum of predictions over sum of labels; 1 is right on average",
        ),
        Column(
            "ECE",
            "ece",
            ".4f",
            "mean distance of predicted and actual rate over "
            f"{NUM_CALIBRATION_BINS} equally full bins",
        ),
    ),
    "value": (
        *_COUNTS,
        Column("RMSE", "rmse", ".4g", "root of the mean squared error"),
        Column("MAE", "mae", ".4g", "mean absolute error"),
        Column("Rank corr.", "rank_correlation", ".4f", "Spearman's rank correlation"),
        Column(
            "Pred/actual",
            "calibration_ratio",
            ".3f",
            "sum of predictions over sum of labels; 1 is right on average",
        ),
    ),
    "ordinal": (
        *_COUNTS,
        Column("MAE", "mae", ".4f", "mean absolute error of the expected level"),
        Column(
            "Kappa",
            "kappa",
            ".4f",
            "Cohen's, with quadratic weights, of the level nearest to the expected one",
        ),
        Column("Rank corr.", "rank_correlation", ".4f", "Spearman's rank correlation"),
        Column("Log loss", "log_loss", ".4f", "mean negative log likelihood"),
    ),
    "survival": (
        Column("Rows", "rows", ",.0f"),
        Column("Events", "positives", ",.0f"),
        Column(
            "C-index",
            "c_index",
            ".4f",
            "probability that of two rows the one predicted to last longer does "
            "(Harrell); .5 is chance",
        ),
        Column(
            "C-index, IPCW",
            "c_index_uno",
            ".4f",
            "the same, weighted so that it does not depend on censoring (Uno)",
        ),
        Column(
            "IBS",
            "integrated_brier",
            ".4f",
            "squared error of predicted survival, weighted for censoring, mean over "
            "time",
        ),
        Column(
            "Surv. ECE",
            "ece",
            ".4f",
            "mean distance of predicted and Kaplan and Meier's survival over risk "
            "groups and horizons",
        ),
    ),
}

CALIBRATION_COLUMNS = tuple(
    column
    for metric in ("ece", "calibration_ratio", "log_loss", "auc")
    for column in COLUMNS["binary"]
    if column.metric == metric
)
"""What calibration is there to change, and the AUC, which it should not."""
