"""The pydantic base of every spec, and the value types they share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, StringConstraints

__all__ = ["Fraction", "Name", "Rate", "Spec", "Widths"]

Widths = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
"""Layer widths in order, at least one."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
"""A name that the recipe gives: letters, digits and underscores."""

Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]
"""Strictly between 0 and 1."""

Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
"""A dropout probability."""


class Spec(BaseModel):
    """Immutable, and closed to names it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)
