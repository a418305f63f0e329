"""How long a batch takes, learned from the batches before it."""

from typing import final

__all__ = ["CostEstimate"]

_KEEP = 0.95
"""Weight that a batch keeps with each later one: about the last twenty count."""
_DOUBT = 0.9
_PARALLEL = 1e-6
"""Share of the determinant below which all batches look like multiples of one."""


@final
class CostEstimate:
    """Fits ``seconds = a * requests + b * rows``, neither negative, to recent batches.

    Least squares with weights that fade; two sums of products and no matrices, since it
    is asked for every request.

    Example:
        >>> cost = CostEstimate()
        >>> cost.of(1, 500)
        0.0
        >>> cost.learn(1, 500, seconds=0.006)
        >>> cost.learn(2, 200, seconds=0.004)
        >>> round(cost.of(1, 1_000), 6)
        0.011
    """

    def __init__(self) -> None:
        self._qq = self._qr = self._rr = self._qs = self._rs = 0.0
        self._a = self._b = 0.0

    def of(self, requests: int, rows: int) -> float:
        """Seconds that a batch would take; 0 before the first was seen."""
        return self._a * requests + self._b * rows

    def learn(self, requests: int, rows: int, *, seconds: float) -> None:
        """Take note of what a batch took."""
        self._qq = _KEEP * self._qq + requests * requests
        self._qr = _KEEP * self._qr + requests * rows
        self._rr = _KEEP * self._rr + rows * rows
        self._qs = _KEEP * self._qs + requests * seconds
        self._rs = _KEEP * self._rs + rows * seconds
        self._fit()

    def doubt(self) -> None:
        """Lower the estimate, since work was refused on its word alone.

        Whoever refuses work learns nothing from it: one slow batch could otherwise
        close the door for good.
        """
        self._qs *= _DOUBT
        self._rs *= _DOUBT
        self._fit()

    def _fit(self) -> None:
        determinant = self._qq * self._rr - self._qr * self._qr
        a = b = -1.0
        if determinant > _PARALLEL * self._qq * self._rr:
            a = (self._rr * self._qs - self._qr * self._rs) / determinant
            b = (self._qq * self._rs - self._qr * self._qs) / determinant
        if a < 0.0 or b < 0.0:
            # The better of the two that lie on the border.
            by_rows = self._rs * self._rs / self._rr if self._rr else 0.0
            by_requests = self._qs * self._qs / self._qq
            if by_rows >= by_requests:
                a, b = 0.0, self._rs / self._rr if self._rr else 0.0
            else:
                a, b = self._qs / self._qq, 0.0
        self._a, self._b = a, b
