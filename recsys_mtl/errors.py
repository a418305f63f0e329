"""Every exception this library raises on purpose.

* RecsysError
  + ConfigError      the recipe is wrong; fix the file
  + DataError        the rows are wrong; fix the upstream job
  + ArtifactError    a saved table, checkpoint or bundle cannot be used; rebuild it
  + RequestError     a scoring request is wrong; the caller must change it
  + EnvironmentFault the machine is not fit: a version, a port, a disk
"""

__all__ = [
    "ArtifactError",
    "ConfigError",
    "DataError",
    "EnvironmentFault",
    "RecsysError",
    "RequestError",
]


class RecsysError(Exception):
    """Base class, so callers can catch everything deliberate at once."""


class ConfigError(RecsysError, ValueError):
    """A configuration value is outside its contract."""


class DataError(RecsysError, ValueError):
    """A batch or table violates its declared schema."""


class ArtifactError(RecsysError):
    """A saved table, checkpoint or bundle cannot be used by this version."""


class RequestError(RecsysError, ValueError):
    """A scoring request violates the bundle's signature.

    Args:
        field: Path of the offending field inside the request.
        message: What must hold and what was got.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class EnvironmentFault(RecsysError, RuntimeError):  # noqa: N818 - shadows builtin else
    """The machine, not the data or the recipe, stands in the way."""
