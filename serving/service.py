"""The rankers of a server, and whether it is ready."""

import time
import uuid
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TypeVar

import anyio
import anyio.to_thread
import msgspec
from msgspec import Struct

from recsys_mtl.errors import RequestError
from recsys_mtl.rank.column import unknown_name
from recsys_mtl.rank.ranker import Ranker
from recsys_mtl.rank.request import RankRequest, ScoreRequest
from serving.fault import HttpFault
from serving.settings import ServingSettings

__all__ = ["Service"]

T = TypeVar("T")


class Service:
    """Answers typed requests; knows the clock and the limits, which rankers do not.

    Forward passes run in one worker thread, one after the other, so that the event loop
    answers health checks meanwhile and compute threads do not fight for cores.

    Args:
        rankers: By name; the first answers requests that name none.
        settings: Limits.
    """

    def __init__(
        self, rankers: Mapping[str, Ranker], settings: ServingSettings
    ) -> None:
        if not rankers:
            raise ValueError("needs at least one ranker")
        self.rankers = dict(rankers)
        self.settings = settings
        self.ready = False
        self._one_at_a_time = anyio.CapacityLimiter(1)

    def warm_up(self) -> None:
        """Send every ranker its own example request; ready afterwards."""
        for ranker in self.rankers.values():
            ranker.rank(ranker.example(), now_us=_now_us())
        self.ready = True

    def ranker(self, name: str | None) -> Ranker:
        """Find the ranker of that name.

        Raises:
            HttpFault: 404 if there is none.
        """
        if name is None:
            return next(iter(self.rankers.values()))
        if name in self.rankers:
            return self.rankers[name]
        fault = unknown_name("model", name, self.rankers)
        raise HttpFault(HTTPStatus.NOT_FOUND, "not_found", fault.message, fault.field)

    async def rank(self, request: RankRequest) -> bytes:
        """Answer as JSON."""
        ranker = self.ranker(request.model)
        for field, candidates in (
            ("items", request.items),
            ("item_ids", request.item_ids),
        ):
            self._limit(field, 0 if candidates is None else len(candidates))
        request = msgspec.structs.replace(request, request_id=_id(request.request_id))
        return await self._run(lambda: ranker.rank(request, now_us=_now_us()))

    async def score(self, request: ScoreRequest) -> bytes:
        """Answer as JSON."""
        ranker = self.ranker(request.model)
        self._limit("rows", len(request.rows or ()))
        for name, cells in (request.columns or {}).items():
            self._limit(f"columns.{name}", len(cells))
        request = msgspec.structs.replace(request, request_id=_id(request.request_id))
        return await self._run(lambda: ranker.answer(request, now_us=_now_us()))

    def _limit(self, field: str, count: int) -> None:
        if count > self.settings.max_items:
            raise RequestError(
                field,
                f"must have at most {self.settings.max_items:,} entries, got {count:,}"
                "; send several requests",
            )

    async def _run(self, work: Callable[[], Struct]) -> bytes:
        return await anyio.to_thread.run_sync(
            lambda: msgspec.json.encode(work()), limiter=self._one_at_a_time
        )


def _id(given: str | None) -> str:
    return uuid.uuid4().hex if given is None else given


def _now_us() -> int:
    return time.time_ns() // 1_000
