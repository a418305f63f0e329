"""Fit a trained network's calibrators on validation rows."""

from pathlib import Path

from recsys_mtl.calibrate import Calibration, fit_calibration
from recsys_mtl.config.recipe import Recipe
from recsys_mtl.data.reader import FeatureReader
from recsys_mtl.model.network import Network
from recsys_mtl.train.predict import predict

__all__ = ["calibrate_network"]

_BATCH_SIZE = 4_096
"""Bounds memory; predictions do not depend on it."""


def calibrate_network(network: Network, recipe: Recipe, tables: Path) -> Calibration:
    """Predict the validation split, and fit what the recipe's tasks ask for.

    Raises:
        DataError: A task to fit has no positive or no negative there.
    """
    names = tuple(task.name for task in recipe.tasks)
    reader = FeatureReader(tables, "valid", batch_size=_BATCH_SIZE, tasks=names)
    made = predict(network, reader)
    return fit_calibration(recipe.tasks, made.label_BT, made.prediction_BT)
