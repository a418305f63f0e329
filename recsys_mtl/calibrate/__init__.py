"""Predicted probabilities set right.

Takes predictions and labels of validation rows; gives calibrators, which turn
predictions into predictions. It must not know networks, tables or requests.
"""

from recsys_mtl.calibrate.calibration import Calibration
from recsys_mtl.calibrate.calibrator import (
    Calibrator,
    IsotonicCalibrator,
    PlattCalibrator,
    SamplingCorrection,
    TemperatureCalibrator,
)
from recsys_mtl.calibrate.fit import check_labels, fit_calibration, wants_calibration

__all__ = [
    "Calibration",
    "Calibrator",
    "IsotonicCalibrator",
    "PlattCalibrator",
    "SamplingCorrection",
    "TemperatureCalibrator",
    "check_labels",
    "fit_calibration",
    "wants_calibration",
]
