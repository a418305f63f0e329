"""How long steps tell how far they are, without knowing who listens."""

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["OnProgress", "Progress", "silent"]


@dataclass(frozen=True)
class Progress:
    """One sign of life of a long step.

    Attributes:
        stage: What is being done, as a user would say it.
        done: Units behind us, usually rows.
        total: Units in all; ``None`` where nobody knows.
        note: Figures worth seeing, as ``loss 0.412``.
    """

    stage: str
    done: int
    total: int | None
    note: str = ""


OnProgress = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Listen to nothing."""
    del progress
