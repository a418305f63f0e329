"""Rows in an LMDB file, which all processes of a machine share."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Final, final

import lmdb

from recsys_mtl.entities.record import decode_row, encode_row
from recsys_mtl.entities.store import (
    AbstractEntityStore,
    Cells,
    Found,
    Kind,
    StoredRow,
    refuse_too_much,
)
from recsys_mtl.errors import EnvironmentFault

__all__ = ["LmdbStore"]

_LONGEST_KEY: Final = 400  # LMDB takes 511 bytes, prefix included


@final
class LmdbStore(AbstractEntityStore):
    """Rows that are read from mapped memory and survive a crash.

    One process writes at a time, others wait; readers never wait. A process opens a
    file once: share the store.

    Args:
        path: Folder of the file; made if missing. On a local disk, since network file
            systems do not share memory.
        max_bytes: How large the file may grow; the disk holds what is used.
        ttl_s: Rows older than this count as absent; they go when room is needed.

    Raises:
        EnvironmentFault: The folder cannot be opened.
    """

    writable = True

    def __init__(
        self, path: Path, *, max_bytes: int = 2**30, ttl_s: float | None = None
    ) -> None:
        self._path = path
        self._ttl_us = None if ttl_s is None else int(ttl_s * 1e6)
        try:
            path.mkdir(parents=True, exist_ok=True)
            # readahead off: keys are read at random, and the file may exceed memory.
            self._env = lmdb.open(
                str(path), map_size=max_bytes, readahead=False, max_readers=1024
            )
        except (OSError, lmdb.Error) as fault:
            raise self._fault("be opened", fault) from fault

    def fetch(
        self, wanted: Mapping[Kind, Sequence[str]], *, now_us: int
    ) -> dict[Kind, Found]:
        found, size = {}, 0
        try:
            with self._env.begin(buffers=True) as reading:
                for kind, keys in wanted.items():
                    rows: list[StoredRow | None] = []
                    damaged = 0
                    for key in keys:
                        content = reading.get(_key(kind, key))
                        size += 0 if content is None else len(content)
                        refuse_too_much(kind, len(keys), size)
                        row = None if content is None else decode_row(content)
                        damaged += content is not None and row is None
                        rows.append(None if self._is_old(row, now_us) else row)
                    found[kind] = Found(tuple(rows), now_us, damaged)
        except (lmdb.Error, OSError) as fault:
            raise self._fault("be read", fault) from fault
        return found

    def put_many(
        self,
        kind: Kind,
        rows: Sequence[tuple[str, Cells]],
        *,
        now_us: int,
        checked: str = "",
    ) -> None:
        pairs = [
            (_key(kind, key), encode_row(cells, now_us, checked)) for key, cells in rows
        ]
        try:
            try:
                self._put(pairs)
            except lmdb.MapFullError:
                if not self._sweep(now_us):
                    raise
                self._put(pairs)
        except (lmdb.Error, OSError) as fault:
            raise self._fault("be written", fault) from fault

    def delete_many(self, kind: Kind, keys: Sequence[str]) -> int:
        try:
            with self._env.begin(write=True) as writing:
                return sum(writing.delete(_key(kind, key)) for key in keys)
        except (lmdb.Error, OSError) as fault:
            raise self._fault("be written", fault) from fault

    def close(self) -> None:
        self._env.close()

    def _put(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        with self._env.begin(write=True) as writing:
            for key, content in pairs:
                writing.put(key, content)

    def _sweep(self, now_us: int) -> int:
        """Remove rows that count as absent."""
        if self._ttl_us is None:
            return 0
        with self._env.begin() as reading:
            old = [
                bytes(key)
                for key, content in reading.cursor()
                if self._is_old(decode_row(content), now_us)
            ]
        # A transaction of few deletions needs little room of the full file itself.
        for start in range(0, len(old), 100):
            with self._env.begin(write=True) as writing:
                for key in old[start : start + 100]:
                    writing.delete(key)
        return len(old)

    def _is_old(self, row: StoredRow | None, now_us: int) -> bool:
        if row is None or self._ttl_us is None:
            return False
        return now_us - row.written_us > self._ttl_us

    def _fault(self, what: str, fault: Exception) -> EnvironmentFault:
        return EnvironmentFault(
            f"the LMDB file in {self._path} cannot {what}: {fault}; check the disk, "
            "its permissions and max_bytes"
        )


def _key(kind: Kind, key: str) -> bytes:
    text = key.encode("utf-8", "surrogatepass")
    if len(text) > _LONGEST_KEY:
        # A byte that no UTF-8 begins with keeps digests apart from keys.
        text = b"\xff" + blake2b(text, digest_size=32).digest()
    return kind.encode() + b"\0" + text
