"""A yes-or-no question about one raw column of a row."""

from pydantic import Field, model_validator

from recsys_mtl.config._base import Spec

__all__ = ["Condition"]


class Condition(Spec):
    """Holds where ``column`` passes exactly one comparison.

    Values are compared as numbers where the recipe gives a number and as text where it
    gives text. A missing value is neither true nor false: the row is outside a sample
    space, is no event of a history, and has no label.

    Example:
        >>> Condition(column="is_click", equals=1).column
        'is_click'
    """

    column: str
    equals: int | float | str | None = None
    not_equals: int | float | str | None = None
    above: float | None = Field(None, description="strictly greater")
    at_least: float | None = Field(None, description="greater or equal")

    @model_validator(mode="after")
    def _exactly_one_comparison(self) -> "Condition":
        given = [n for n in _COMPARISONS if getattr(self, n) is not None]
        if len(given) != 1:
            got = ", ".join(given) or "none"
            raise ValueError(
                f"needs exactly one of {', '.join(_COMPARISONS)}; got {got}"
            )
        return self


_COMPARISONS = ("equals", "not_equals", "above", "at_least")
