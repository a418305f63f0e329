"""What had to be replaced by a default, counted by feature."""

from dataclasses import dataclass, field
from typing import final

__all__ = ["FeatureCounts", "Replaced"]


@final
@dataclass
class Replaced:
    """Values of one feature that were not what a model was trained on.

    Attributes:
        missing: Values that were not there, or unreadable.
        unseen: Values that the training split did not have (often enough).
        unreadable: Values that could not become the column's type, such as the text
            ``"n/a"`` in a column of numbers; part of ``missing``.
    """

    missing: int = 0
    unseen: int = 0
    unreadable: int = 0


@final
@dataclass
class FeatureCounts:
    """Counts by feature; counts of blocks add up to those of the whole.

    A history's events count under ``<history>.<field>``, and under the history's own
    name the rows that have no history because they lack a user or a time. Keys count
    under ``key.user``, ``key.item`` and ``key.time``.

    Example:
        >>> counts = FeatureCounts()
        >>> counts.add("age", missing=2)
        >>> (counts + counts).by_feature["age"]
        Replaced(missing=4, unseen=0, unreadable=0)
    """

    by_feature: dict[str, Replaced] = field(default_factory=dict)

    def add(
        self, feature: str, *, missing: int = 0, unseen: int = 0, unreadable: int = 0
    ) -> None:
        """Count values of ``feature``."""
        entry = self.by_feature.setdefault(feature, Replaced())
        entry.missing += missing
        entry.unseen += unseen
        entry.unreadable += unreadable

    def __add__(self, other: "FeatureCounts") -> "FeatureCounts":
        total = FeatureCounts()
        for part in (self, other):
            for name, entry in part.by_feature.items():
                total.add(
                    name,
                    missing=entry.missing,
                    unseen=entry.unseen,
                    unreadable=entry.unreadable,
                )
        return total

    def as_dict(self) -> dict[str, dict[str, int]]:
        """Plain numbers, for a manifest."""
        return {name: dict(vars(e)) for name, e in sorted(self.by_feature.items())}
