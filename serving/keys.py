"""API keys: hashed at rest, compared in constant time, read again when they change.

The file, in YAML or JSON::

    - name: shop-2026-03
      sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
      scopes: [rank, feedback]
      not_after: 2026-09-30
    - name: operations
      sha256: 60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752
      scopes: [admin]

A key is 256 random bits, which nobody finds by trying hashes: sha256 is as good as a
slow hash there, and a slow one would let anybody keep the server busy with wrong keys.
"""

import hmac
import json
import logging
import os
import secrets
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Final, Literal, final

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from recsys_mtl.errors import ConfigError

__all__ = ["ApiKey", "KeyRing", "Scope", "new_key", "read_keys"]

logger = logging.getLogger(__name__)

Scope = Literal["rank", "feedback", "admin"]

_PREFIX: Final = "rmtl_"
_CHECK_EVERY_S: Final = 1.0


def _day(given: object) -> object:
    """Read a day as one: pydantic would take its first instant."""
    if isinstance(given, str) and len(given) == len("2026-09-30"):
        return date.fromisoformat(given)
    return given


class ApiKey(BaseModel):
    """An entry of the keys file.

    Attributes:
        name: For logs and rate limits; says nothing of the key.
        sha256: Of the key, in hexadecimal.
        scopes: What it opens.
        not_after: The last day on which it is good, or the exact time; in UTC.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=100)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: Annotated[frozenset[Scope], Field(min_length=1)]
    not_after: Annotated[datetime | date | None, BeforeValidator(_day)] = None

    def is_good(self, now: datetime) -> bool:
        """Whether it has not expired."""
        match self.not_after:
            case None:
                return True
            case datetime() as end:
                return now <= (end if end.tzinfo else end.replace(tzinfo=UTC))
            case day:
                return now.astimezone(UTC).date() <= day


_KEYS: TypeAdapter[tuple[ApiKey, ...]] = TypeAdapter(tuple[ApiKey, ...])


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """Read a keys file.

    Raises:
        ConfigError: It cannot be read, or an entry is wrong: told by place, never with
            what stands there.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"keys file {path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"keys file {path} is no YAML or JSON{where}") from None
    try:
        keys = _KEYS.validate_python(found or ())
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = "".join(
            f"[{p}]" if isinstance(p, int) else f".{p}" for p in first["loc"]
        )
        raise ConfigError(
            f"keys file {path}: {place.lstrip('.') or 'the file'}: {first['msg']}; it "
            "must be a list of entries as `recsys-mtl keys new` prints them"
        ) from None
    names = [key.name for key in keys]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"keys file {path}: two keys are called {name!r}; give each its own "
                "name, also during rotation"
            )
    return keys


@final
class KeyRing:
    """The keys of a file, as it is now.

    A file that cannot be read leaves the keys before it in force, and is told in the
    log: a slip of the pen shuts nobody out.

    Args:
        path: The keys file; may be a link that is changed.

    Raises:
        ConfigError: The file is wrong from the start.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = _mark(path)
        self._keys = read_keys(path)
        self._checked = time.monotonic()

    def find(self, presented: str) -> ApiKey | None:
        """Find the key that was presented, if it is good today.

        Takes as long for a wrong key as for a right one: all are compared.
        """
        self._read_if_changed()
        digest = sha256(presented.encode("utf-8", "surrogatepass")).hexdigest()
        now, found = datetime.now(UTC), None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, digest) and key.is_good(now):
                found = key
        return found

    def _read_if_changed(self) -> None:
        if time.monotonic() - self._checked < _CHECK_EVERY_S:
            return
        self._checked = time.monotonic()
        mark = _mark(self._path)
        if mark == self._seen:
            return
        self._seen = mark
        try:
            self._keys = read_keys(self._path)
        except ConfigError as error:
            logger.error("keys stay as they were: %s", error)
        else:
            logger.info("read %d keys anew from %s", len(self._keys), self._path)


def new_key(
    name: str, scopes: Sequence[Scope], not_after: date | None = None
) -> tuple[str, str]:
    """Make a key.

    Returns:
        The key, which is kept nowhere, and the line for the keys file, which is both
        YAML and JSON within.

    Example:
        >>> key, line = new_key("shop", ["rank"])
        >>> key[:5], line[:17]
        ('rmtl_', '- {"name": "shop"')
    """
    key = _PREFIX + secrets.token_urlsafe(32)
    entry: dict[str, object] = {
        "name": name,
        "sha256": sha256(key.encode()).hexdigest(),
        "scopes": list(scopes),
    }
    if not_after is not None:
        entry["not_after"] = not_after.isoformat()
    return key, "- " + json.dumps(entry)


def _mark(path: Path) -> tuple[int, int, int] | None:
    """What changes when the file does; follows links."""
    try:
        found = os.stat(path)  # noqa: PTH116 - Path.stat is the same, with more steps
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
