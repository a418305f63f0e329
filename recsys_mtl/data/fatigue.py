"""How long users of the simulator stay after an impression, with a known hazard."""

import numpy as np
import numpy.typing as npt

__all__ = ["FATIGUE_SHAPE", "draw_fatigue", "fatigue_survival"]

_Floats = npt.NDArray[np.float64]

FATIGUE_SHAPE = 1.5
"""Above 1: the longer somebody stayed, the sooner they leave."""

_MEAN_UNSEEN_S = 240.0
_LONGEST_S = 600.0


def fatigue_survival(
    rate_R: npt.NDArray[np.floating], seconds: npt.ArrayLike
) -> _Floats:
    """Share that still stays after ``seconds``: ``exp(-(rate * t) ** FATIGUE_SHAPE)``.

    The hazard of a bin is 1 minus the share at its end over that at its start.

    Args:
        rate_R: ``true.fatigue_rate`` of the rows.
        seconds: Times.

    Shape:
        - return: a row per rate, a column per time

    Example:
        >>> fatigue_survival(np.array([0.01]), [0.0, 100.0]).round(3)
        array([[1.   , 0.368]])
    """
    product = np.multiply.outer(np.asarray(rate_R, np.float64), np.asarray(seconds))
    return np.asarray(np.exp(-(product**FATIGUE_SHAPE)))


def draw_fatigue(
    rng: np.random.Generator, rate_R: _Floats
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Draw when each user leaves, or when they were last seen.

    Logging stops after a time of its own, 240 s on average, and after 600 s at last.

    Returns:
        Seconds, and whether the user left then; else they were only lost sight of.
    """
    leave_R = rng.weibull(FATIGUE_SHAPE, len(rate_R)) / rate_R
    unseen_R = np.minimum(rng.exponential(_MEAN_UNSEEN_S, len(rate_R)), _LONGEST_S)
    return np.minimum(leave_R, unseen_R).astype(np.float32), leave_R <= unseen_R
