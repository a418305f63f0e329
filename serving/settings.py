"""Limits and habits of a server."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

__all__ = ["ServingSettings"]


class ServingSettings(BaseModel):
    """What a server refuses, and how much of the machine it takes.

    Example:
        >>> ServingSettings(max_items=100).max_body_bytes
        2097152
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_body_bytes: PositiveInt = Field(
        2 * 1024 * 1024, description="larger request bodies get 413"
    )
    max_items: PositiveInt = Field(
        2_000, description="candidates of a rank request, rows of a score request"
    )
    threads: PositiveInt = Field(
        1, description="compute threads of a replica; more replicas usually pay better"
    )
    shutdown_timeout_s: Annotated[float, Field(gt=0)] = Field(
        10.0, description="time that running requests have to finish when stopped"
    )
    verbose: bool = Field(False, description="show the logs of the libraries")
