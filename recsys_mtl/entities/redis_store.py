"""Rows in Redis, which a fleet of machines shares."""

from collections.abc import Mapping, Sequence
from typing import final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from recsys_mtl.entities.record import decode_row, encode_row
from recsys_mtl.entities.store import (
    AbstractEntityStore,
    Cells,
    Found,
    Kind,
    StoredRow,
    refuse_too_much,
)
from recsys_mtl.errors import ConfigError, EnvironmentFault

__all__ = ["RedisStore"]


@final
class RedisStore(AbstractEntityStore):
    """Rows under ``<prefix>:<kind>:<key>``; a lookup of any size is one round trip.

    Nothing is tried twice: whoever asks has less time than that.

    Args:
        url: As ``redis://host:6379/0``, ``rediss://`` with TLS, or ``unix://``.
        password: Stands in for one in the URL.
        prefix: Keeps these keys apart from others of the server.
        ttl_s: Rows older than this count as absent; Redis removes them.
        timeout_s: For connecting, and for the answer to a lookup.
        write_timeout_s: For connecting, and for the answer to what is written.

    Raises:
        ConfigError: The URL is none.
    """

    writable = True

    def __init__(
        self,
        url: str,
        *,
        password: str | None = None,
        prefix: str = "recsys_mtl",
        ttl_s: float | None = None,
        timeout_s: float = 0.05,
        write_timeout_s: float = 10.0,
    ) -> None:
        self._prefix = prefix
        self._ttl_ms = None if ttl_s is None else max(1, int(ttl_s * 1e3))
        given = {} if password is None else {"password": password}
        try:
            self._client, self._writer = (
                redis.Redis.from_url(
                    url,
                    socket_timeout=patience_s,
                    socket_connect_timeout=patience_s,
                    retry=Retry(NoBackoff(), 0),
                    **given,
                )
                for patience_s in (timeout_s, write_timeout_s)
            )
        except ValueError as fault:
            raise ConfigError(
                f"entities.url must be a URL of a Redis server, as redis://host:6379/0"
                f": {fault}"
            ) from fault

    def fetch(
        self, wanted: Mapping[Kind, Sequence[str]], *, now_us: int
    ) -> dict[Kind, Found]:
        asked = [kind for kind, keys in wanted.items() if keys]
        answers: dict[Kind, list[bytes | None]] = {kind: [] for kind in wanted}
        if asked:
            try:
                with self._client.pipeline(transaction=False) as pipe:
                    for kind in asked:
                        pipe.mget([self._key(kind, key) for key in wanted[kind]])
                    answers |= dict(zip(asked, pipe.execute(), strict=True))
            except (redis.RedisError, OSError) as fault:
                raise _fault(fault) from fault
        size = 0
        for kind, contents in answers.items():
            size += sum(len(content) for content in contents if content is not None)
            refuse_too_much(kind, len(contents), size)
        return {kind: self._found(answers[kind], now_us) for kind in wanted}

    def put_many(
        self,
        kind: Kind,
        rows: Sequence[tuple[str, Cells]],
        *,
        now_us: int,
        checked: str = "",
    ) -> None:
        try:
            with self._writer.pipeline(transaction=True) as pipe:
                for key, cells in rows:
                    content = encode_row(cells, now_us, checked)
                    pipe.set(self._key(kind, key), content, px=self._ttl_ms)
                pipe.execute()
        except (redis.RedisError, OSError) as fault:
            raise _fault(fault) from fault

    def delete_many(self, kind: Kind, keys: Sequence[str]) -> int:
        if not keys:
            return 0
        try:
            return int(self._writer.delete(*(self._key(kind, key) for key in keys)))
        except (redis.RedisError, OSError) as fault:
            raise _fault(fault) from fault

    def close(self) -> None:
        self._client.close()
        self._writer.close()

    def _found(self, contents: Sequence[bytes | None], now_us: int) -> Found:
        rows: list[StoredRow | None] = []
        damaged = 0
        for content in contents:
            row = None if content is None else decode_row(content)
            damaged += content is not None and row is None
            # Redis counts from when it was told, which may be later than the writing.
            if row is not None and self._ttl_ms is not None:
                row = None if now_us - row.written_us > self._ttl_ms * 1_000 else row
            rows.append(row)
        return Found(tuple(rows), now_us, damaged)

    def _key(self, kind: Kind, key: str) -> bytes:
        return f"{self._prefix}:{kind}:{key}".encode("utf-8", "surrogatepass")


def _fault(fault: Exception) -> EnvironmentFault:
    return EnvironmentFault(
        f"the Redis server does not answer as it should: {fault}; check that it runs, "
        "can be reached, has room and takes the password"
    )
