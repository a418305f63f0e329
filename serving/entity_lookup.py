"""Asks a store in bounded time, and leaves it alone while it fails."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, assert_never, final
from weakref import WeakKeyDictionary

import numpy as np

from recsys_mtl.entities import AbstractEntityStore, EntitySchema, Found, Kind
from recsys_mtl.entities.lmdb_store import LmdbStore
from recsys_mtl.entities.redis_store import RedisStore
from recsys_mtl.errors import ConfigError, EnvironmentFault
from recsys_mtl.rank.request import RankRequest, ScoreRequest, StoreUse
from serving.entity_merge import Known, merge, wanted_keys
from serving.entity_rows import RowWindows
from serving.entity_settings import (
    EntitySettings,
    LmdbSettings,
    RedisSettings,
    SnapshotSettings,
)
from serving.model_set import ServedModel
from serving.observability.note import LookupNote, LookupOutcome
from serving.observability.record import current

__all__ = ["EntityLookup", "open_store"]

AskT = TypeVar("AskT", bound=RankRequest | ScoreRequest)

logger = logging.getLogger(__name__)


def open_store(settings: EntitySettings) -> AbstractEntityStore | None:
    """Open the store of the settings; none where the bundle is all there is.

    Raises:
        ConfigError: The settings cannot be used.
        EnvironmentFault: A file cannot be opened. A server that is away is no fault:
            it may come.
    """
    match settings:
        case SnapshotSettings():
            return None
        case LmdbSettings():
            return LmdbStore(
                settings.path, max_bytes=settings.max_bytes, ttl_s=settings.ttl_s
            )
        case RedisSettings():
            return RedisStore(
                settings.url,
                password=_password(settings),
                prefix=settings.prefix,
                ttl_s=settings.ttl_s,
                # A little more, so that who waits gives up first and tells why.
                timeout_s=1.5 * settings.timeout_s,
            )
        case _:
            assert_never(settings)


@dataclass
class _Breaker:
    """Opens after failures in a row, and then lets one request through at a time.

    Attributes:
        failures: How many open it.
        pause_s: How long it stays open.
    """

    failures: int
    pause_s: float
    in_a_row: int = 0
    closed_at: float = 0.0
    trying: bool = False

    def admits(self, now: float) -> bool:
        """Whether to ask; after a pause, true for one that tries."""
        if self.in_a_row < self.failures:
            return True
        if now < self.closed_at or self.trying:
            return False
        self.trying = True
        return True

    def note(self, *, good: bool, now: float) -> None:
        """Learn how it went."""
        self.trying = False
        self.in_a_row = 0 if good else self.in_a_row + 1
        if self.in_a_row >= self.failures:
            self.closed_at = now + self.pause_s


@final
class EntityLookup:
    """Fills requests with what a store knows; without a store it does nothing.

    Args:
        settings: Which store, and how long to wait for it.

    Attributes:
        watch: Called with each lookup when it is over, on the event loop.

    Raises:
        ConfigError: The settings cannot be used.
        EnvironmentFault: The store's file cannot be opened.
    """

    def __init__(self, settings: EntitySettings) -> None:
        self.settings = settings
        self.store = open_store(settings)
        self.watch: Callable[[LookupNote], None] = lambda _: None
        self._schemas: WeakKeyDictionary[ServedModel, EntitySchema]
        self._schemas = WeakKeyDictionary()
        self._windows: WeakKeyDictionary[ServedModel, RowWindows]
        self._windows = WeakKeyDictionary()
        if isinstance(settings, SnapshotSettings):
            return
        self._breaker = _Breaker(settings.failures, settings.pause_s)
        self._threads = ThreadPoolExecutor(settings.threads, "entities")

    def close(self) -> None:
        """Give back threads, files and connections."""
        if self.store is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
            self.store.close()

    def schema(self, model: ServedModel) -> EntitySchema:
        """Say which columns a model reads of users and items."""
        schema = self._schemas.get(model)
        if schema is None:
            features = model.ranker.bundle.recipe.features
            schema = self._schemas[model] = EntitySchema.of(model.card, features)
        return schema

    async def fill(
        self, request: AskT, model: ServedModel, *, time_s: float
    ) -> tuple[AskT, StoreUse | None, bool]:
        """Put into a request what the store knows of its user and items.

        Never waits long: without the store, the request stays as it is.

        Args:
            request: In any form.
            model: Which one is to answer.
            time_s: That the request has in all; at most half of it is spent here.

        Returns:
            The request, what the store had (``None`` if it was not asked), and whether
            it should have been but could not.

        Raises:
            RequestError: Too much is stored for what the request asks of.
        """
        if self.store is None or isinstance(self.settings, SnapshotSettings):
            return request, None, False
        keys = model.ranker.bundle.recipe.data.keys
        wanted = wanted_keys(request, keys, self.settings.looked_up)
        if not wanted:
            return request, None, False
        timeout_s = min(self.settings.timeout_s, 0.5 * time_s)
        answer = await self._fetch(self.store, wanted, timeout_s)
        if answer is None:
            record = current()
            if record is not None:
                record.degraded = True
            return request, None, True
        found, seconds = answer
        schema = self.schema(model)
        known, misfits = _fitting(wanted, found, schema)
        self.watch(
            LookupNote(
                "found",
                seconds,
                asked={kind: len(of.rows) for kind, of in found.items()},
                missed={kind: of.rows.count(None) for kind, of in found.items()},
                damaged=sum(of.damaged for of in found.values()),
                misfits=misfits,
            )
        )
        windows, now_us = self._windows_of(model), time.time_ns() // 1_000
        filled = merge(request, keys, known, schema, windows, now_us)
        return filled, _use(found), False

    def _windows_of(self, model: ServedModel) -> RowWindows:
        windows = self._windows.get(model)
        if windows is None:
            windows = self._windows[model] = RowWindows(model)
        return windows

    async def _fetch(
        self,
        store: AbstractEntityStore,
        wanted: dict[Kind, list[str]],
        timeout_s: float,
    ) -> tuple[dict[Kind, Found], float] | None:
        """Give what the store has and after how many seconds; ``None`` without it."""
        began = time.monotonic()
        if not self._breaker.admits(began):
            self.watch(LookupNote("left_alone"))
            return None
        ask = partial(store.fetch, wanted, now_us=time.time_ns() // 1_000)
        outcome: LookupOutcome | None = None
        future = asyncio.get_running_loop().run_in_executor(self._threads, ask)
        try:
            # Not asyncio.timeout: on a busy loop it is due before the answer that came
            # in time is seen, and throws it away.
            if (await asyncio.wait({future}, timeout=timeout_s))[0]:
                found = future.result()
                outcome = "found"
                return found, time.monotonic() - began
            outcome = "too_slow"
            self._warn(f"no answer within {timeout_s:g} s")
        except EnvironmentFault as fault:
            outcome = "failed"
            self._warn(str(fault))
        finally:
            future.cancel()
            if outcome is None:  # the client left, which says nothing of the store
                self._breaker.trying = False
            else:
                now, good = time.monotonic(), outcome == "found"
                self._breaker.note(good=good, now=now)
                if not good:
                    self.watch(LookupNote(outcome, now - began))
        return None

    def _warn(self, reason: str) -> None:
        # Once a row of failures: whoever reads the log knows it then.
        if self._breaker.in_a_row == 0:
            logger.warning("entities: defaults stand in for the store: %s", reason)


def _fitting(
    wanted: dict[Kind, list[str]], found: dict[Kind, Found], schema: EntitySchema
) -> tuple[Known, int]:
    """Give what fits the model, by kind and key, and how many columns did not."""
    known: dict[Kind, dict[str, dict[str, Any]]] = {}
    misfits = 0
    for kind, of in found.items():
        known[kind] = cells = {}
        for key, row in zip(wanted[kind], of.rows, strict=True):
            if row is not None:
                cells[key], unfit = schema.fitting(kind, row)
                misfits += unfit
    return known, misfits


def _use(found: dict[Kind, Found]) -> StoreUse:
    rows = {kind: sum(row is not None for row in of.rows) for kind, of in found.items()}
    ages = np.concatenate([of.age_s for of in found.values()])
    oldest = float(np.nanmax(ages)) if not np.isnan(ages).all() else None
    return StoreUse(rows.get("users", 0), rows.get("items", 0), oldest)


def _password(settings: RedisSettings) -> str | None:
    path = settings.password_file
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").split("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"entities.password_file {path} cannot be read: {error}"
        ) from error
