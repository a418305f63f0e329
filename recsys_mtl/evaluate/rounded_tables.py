"""What embedding tables lost when they were stored in fewer bits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

__all__ = ["RoundedTables"]


@final
@dataclass(frozen=True)
class RoundedTables:
    """Rounded embedding tables, and what that costs.

    Attributes:
        kind: Of their numbers, as ``int8``.
        bytes: That they take.
        float32_bytes: That they would take as trained.
        auc: By binary task its AUC on validation rows as trained, and as stored.
    """

    kind: str
    bytes: int
    float32_bytes: int
    auc: Mapping[str, tuple[float, float]]

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Task, AUC as trained, AUC as stored and their difference, as text.

        Example:
            >>> RoundedTables("int8", 1, 4, {"click": (0.75, 0.7499)}).rows()
            [('click', '0.7500', '0.7499', '-0.00010')]
        """
        return [
            (task, f"{before:.4f}", f"{after:.4f}", f"{after - before:+.5f}")
            for task, (before, after) in self.auc.items()
        ]

    @property
    def heading(self) -> str:
        """One line for people.

        Example:
            >>> RoundedTables("int8", 25_000_000, 100_000_000, {}).heading
            'Embedding tables in int8: 25.00 MB instead of 100.00'
        """
        sizes = (self.bytes / 1e6, self.float32_bytes / 1e6)
        return (
            f"Embedding tables in {self.kind}: {sizes[0]:.2f} MB instead of "
            f"{sizes[1]:.2f}"
        )
