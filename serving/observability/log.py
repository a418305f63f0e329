"""Logs as JSON, one object a line."""

import contextlib
import hmac
import logging
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final
from zlib import crc32

import msgspec

from recsys_mtl.errors import ConfigError
from serving.observability.record import Record
from serving.observability.settings import LogSettings

__all__ = ["RequestLog", "logs_written"]

# Two loggers: what is asked for by a setting must not depend on a level.
_REQUESTS = logging.getLogger("serving.request")
_SLOW = logging.getLogger("serving.slow_request")
_SHORTEST_KEY = 16


@final
class RequestLog:
    """Writes a line for a request, if it is sampled, failed, or was slow.

    Args:
        settings: How many, and what is slow.

    Raises:
        ConfigError: The key for hashes cannot be read or is too short.
    """

    def __init__(self, settings: LogSettings) -> None:
        self._settings = settings
        self._key = _key(settings.id_key_file)

    def write(
        self, record: Record, total_s: float, trace_id: str | None = None
    ) -> bool:
        """Write what there is to write about a request that has ended.

        Args:
            record: Of the request.
            total_s: From its headers to the end of its answer.
            trace_id: Of its span, if there is one.

        Returns:
            Whether it was slow.
        """
        settings = self._settings
        slow = total_s > settings.slow_request_s
        failed = record.status >= 500
        if not (slow or failed or self._sampled(record.request_id)):
            return slow
        logger, level = _REQUESTS, logging.INFO
        if slow:
            logger, level = _SLOW, logging.WARNING
        elif failed:
            level = logging.WARNING
        fields = self._fields(record, total_s)
        if trace_id is not None:
            fields["trace_id"] = trace_id
        logger.log(level, "request", extra={"fields": fields})
        return slow

    def _sampled(self, request_id: str) -> bool:
        """By the id, so that all servers that a request passes agree."""
        rate = self._settings.request_rate
        if rate in (0.0, 1.0):
            return rate == 1.0
        return crc32(request_id.encode("utf-8", "surrogatepass")) < rate * 2**32

    def _fields(self, record: Record, total_s: float) -> dict[str, Any]:
        stages = {name: _ms(spent) for name, spent in record.seconds().items()}
        fields: dict[str, Any] = {
            "request_id": record.request_id,
            "route": record.route,
            "status": record.status,
            "model": record.model or None,
            "version": record.version or None,
            "candidates": record.candidates,
            "milliseconds": {**stages, "total": _ms(total_s)},
            "code": record.code or None,
            "degraded": record.degraded or None,
        }
        if record.user is not None and self._key is not None:
            fields["user"] = _hashed(self._key, record.user)
        return {name: value for name, value in fields.items() if value is not None}


@contextlib.contextmanager
def logs_written(settings: LogSettings) -> Iterator[None]:
    """Write the server's logs as JSON while the block lasts.

    To the file of the settings, else to standard error. Several replicas may have one
    file: a line is written at once.

    Raises:
        ConfigError: The file cannot be written.
    """
    handler: logging.Handler
    if settings.file is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        try:
            handler = logging.FileHandler(settings.file, encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"observability.log.file cannot be written: {error}"
            ) from error
    handler.setFormatter(_JsonLines())
    logger = logging.getLogger("serving")
    before, propagated = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        logger.propagate = propagated
        handler.close()


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{when}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = "".join(traceback.format_exception(record.exc_info[1]))
        text = msgspec.json.encode(line, enc_hook=str).decode("utf-8", "replace")
        # Not every reader of lines takes these for letters.
        return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _key(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise ConfigError(
            f"observability.log.id_key_file cannot be read: {error}"
        ) from error
    if len(key) < _SHORTEST_KEY:
        raise ConfigError(
            f"observability.log.id_key_file must hold {_SHORTEST_KEY} bytes or more, "
            f"got {len(key)} in {path}; `openssl rand -hex 32` makes some"
        )
    return key


def _hashed(key: bytes, unit: str) -> str:
    text = unit.encode("utf-8", "surrogatepass")
    return hmac.digest(key, text, "sha256").hex()[:16]


def _ms(seconds: float) -> float:
    return round(seconds * 1_000, 3)
