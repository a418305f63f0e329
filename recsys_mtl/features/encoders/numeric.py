"""Numbers as numbers, brought to a scale that networks like."""

from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import pyarrow as pa

from recsys_mtl.features.column import absent, filled
from recsys_mtl.features.schema import Artifact

__all__ = ["MomentsFit", "Scale"]

_Transform = Literal["identity", "standardise", "log1p"]
_LARGEST = float(np.finfo(np.float32).max)


@final
class Scale(Artifact):
    """``(x - mean) / std``, after ``sign(x) log(1 + |x|)`` if so declared.

    A missing value counts as the training mean. What is beyond ``float32`` becomes its
    largest number.

    Attributes:
        transform: Of the recipe.
        mean: Of the training rows, after the logarithm.
        std: Likewise; 1 for a constant column.

    Example:
        >>> Scale(transform="standardise", mean=1.0, std=2.0).apply(
        ...     pa.array([1.0, 5.0, None])
        ... ).tolist()
        [0.0, 2.0, 0.0]
    """

    transform: _Transform
    mean: float
    std: float

    def apply(self, values: pa.Array) -> np.ndarray:
        """Scale canonical numbers.

        Shape:
            - return: ``(values,)`` of ``float32``, all finite
        """
        numbers = transformed(filled(values, 0.0), self.transform)
        if self.transform == "identity":
            missing = self.mean
        else:
            numbers = (numbers - self.mean) / self.std
            missing = 0.0
        if values.null_count:
            numbers = np.where(absent(values), missing, numbers)
        scaled: np.ndarray = np.clip(numbers, -_LARGEST, _LARGEST).astype(np.float32)
        return scaled


@final
@dataclass
class MomentsFit:
    """Count, mean and sum of squared deviations, merged by Chan's formula.

    References:
        Chan, Golub and LeVeque, "Algorithms for Computing the Sample Variance",
        The American Statistician 1983, doi:10.1080/00031305.1983.10483115.
    """

    transform: _Transform
    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def update(self, values: pa.Array) -> None:
        """Add numbers; nulls do not count."""
        numbers = transformed(
            values.drop_null().to_numpy(zero_copy_only=False), self.transform
        )
        if len(numbers) == 0:
            return
        # Sums beyond float64 are infinite, see finish.
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(numbers.mean())
            squares = float(np.square(numbers - mean).sum())
        self._add(len(numbers), mean, squares)

    def merge(self, other: "MomentsFit") -> None:
        """Add the numbers of another part of the rows."""
        self._add(other.count, other.mean, other.squares)

    def finish(self) -> Scale:
        """Fix the scale, in ten digits.

        The order of merging shows in the last digits of a sum only, so it does not
        show in the scale.
        """
        mean = _rounded(self.mean) if np.isfinite(self.mean) else 0.0
        std = _rounded((self.squares / self.count) ** 0.5) if self.count else 0.0
        # A constant column has rounding noise at most.
        constant = not np.isfinite(std) or std <= 1e-9 * abs(mean)
        return Scale(transform=self.transform, mean=mean, std=1.0 if constant else std)

    def _add(self, count: int, mean: float, squares: float) -> None:
        if count == 0:
            return
        total = self.count + count
        delta = mean - self.mean
        self.squares += squares + delta * delta * self.count * count / total
        self.mean += delta * count / total
        self.count = total


def transformed(numbers: np.ndarray, transform: _Transform) -> np.ndarray:
    """Numbers on the logarithmic scale, if so declared."""
    if transform == "log1p":
        numbers = np.copysign(np.log1p(np.abs(numbers)), numbers)
    return numbers


def _rounded(number: float) -> float:
    return float(f"{number:.10g}")
