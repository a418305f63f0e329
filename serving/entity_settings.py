"""Settings of what is known of users and items beside the bundle."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from recsys_mtl.entities import Kind

__all__ = ["EntitySettings", "LmdbSettings", "RedisSettings", "SnapshotSettings"]


class _Settings(BaseModel):
    """Immutable, and closed to names it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SnapshotSettings(_Settings):
    """The users and items of the bundle alone."""

    kind: Literal["snapshot"] = "snapshot"

    def under(self, folder: Path) -> Self:
        """Let relative paths start from a folder."""
        del folder
        return self


class _Store(_Settings):
    looked_up: Annotated[tuple[Kind, ...], Field(min_length=1)] = Field(
        ("users",),
        description="what requests look up; items cost a lookup a candidate",
    )
    ttl_s: PositiveFloat | None = Field(
        None, description="older rows count as absent; they last for ever if left out"
    )
    timeout_s: PositiveFloat = Field(
        0.05,
        description="longest wait of a request, and never more than half its time; "
        "defaults stand in then",
    )
    failures: PositiveInt = Field(
        5, description="failed lookups in a row after which the store is left alone"
    )
    pause_s: PositiveFloat = Field(
        1.0, description="for so long; then one request tries it again"
    )
    threads: PositiveInt = Field(4, description="lookups of a replica at once")
    max_body_bytes: PositiveInt = Field(
        16 * 1024 * 1024, description="of rows that are written at once"
    )


class LmdbSettings(_Store):
    """A file that all replicas of a machine share."""

    kind: Literal["lmdb"]
    path: Path = Field(description="folder of the file, on a local disk")
    max_bytes: PositiveInt = Field(
        2**30, description="how large the file may grow; the disk holds what is used"
    )

    def under(self, folder: Path) -> Self:
        """Let relative paths start from a folder."""
        return self.model_copy(update={"path": folder / self.path})


class RedisSettings(_Store):
    """A server that many machines share."""

    kind: Literal["redis"]
    url: str = Field(description="as redis://host:6379/0; rediss:// with TLS")
    password_file: Path | None = Field(
        None, description="its first line is the password; none in the URL then"
    )
    prefix: str = Field(
        "recsys_mtl", description="begins every key: <prefix>:users:<id>"
    )

    def under(self, folder: Path) -> Self:
        """Let relative paths start from a folder."""
        if self.password_file is None:
            return self
        return self.model_copy(update={"password_file": folder / self.password_file})


EntitySettings = Annotated[
    SnapshotSettings | LmdbSettings | RedisSettings, Field(discriminator="kind")
]
