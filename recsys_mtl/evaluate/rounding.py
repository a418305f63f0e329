"""What a bundle lost to numbers of fewer bits than it was trained with."""

from typing import Literal, final

from pydantic import Field

from recsys_mtl.features.schema import Artifact

__all__ = ["Rounding"]


@final
class Rounding(Artifact):
    """How a bundle stores embedding tables and makes products, and what that costs.

    Attributes:
        kind: Of the tables' numbers.
        precision: Of products, on processors that have it.
        bytes: That the tables take.
        float32_bytes: That they would take as trained.
        auc: By binary task its AUC on validation rows as trained, and as served; empty
            where nothing is rounded.
    """

    kind: Literal["float32", "float16", "int8"] = "float32"
    precision: Literal["fp32", "bf16"] = "fp32"
    bytes: int
    float32_bytes: int
    auc: dict[str, tuple[float, float]] = Field(default_factory=dict)

    @property
    def rounds(self) -> bool:
        """Whether anything is rounded."""
        return (self.kind, self.precision) != ("float32", "fp32")

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Task, AUC as trained, AUC as served and their difference, as text.

        Example:
            >>> auc = {"click": (0.75, 0.7499)}
            >>> Rounding(kind="int8", bytes=1, float32_bytes=4, auc=auc).rows()
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
            >>> Rounding(kind="int8", bytes=25_000, float32_bytes=100_000).heading
            'Embedding tables in int8: 0.03 MB instead of 0.10'
            >>> Rounding(precision="bf16", bytes=4, float32_bytes=4).heading
            'Products in bf16'
        """
        parts = []
        if self.kind != "float32":
            sizes = (self.bytes / 1e6, self.float32_bytes / 1e6)
            parts.append(
                f"Embedding tables in {self.kind}: {sizes[0]:.2f} MB instead of "
                f"{sizes[1]:.2f}"
            )
        if self.precision != "fp32":
            parts.append(f"Products in {self.precision}")
        return "; ".join(parts)
