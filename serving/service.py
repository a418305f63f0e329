"""Typed requests in, typed responses out: which model, how much, and by when."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, final

import msgspec
from msgspec import UNSET
from starlette.requests import ClientDisconnect

from recsys_mtl.errors import ConfigError, RequestError
from recsys_mtl.rank.ranker import Ranker
from recsys_mtl.rank.request import (
    RankRequest,
    RankResponse,
    RankTable,
    ScoreRequest,
    ScoreResponse,
    ScoreTable,
)
from serving.batcher import Answer, Ask, Batcher, too_late
from serving.entity_lookup import EntityLookup
from serving.model_set import ModelSet, ServedModel
from serving.observability.record import name_request, note_choice
from serving.settings import ServedModels, ServingSettings
from serving.swap import RecentRequests, Swap, warm_up

__all__ = ["Leaves", "Service", "SwapAll"]

Leaves = Callable[[], Awaitable[object]]
"""Ends when the client has left; ``Request.receive`` once the body is read."""

SwapAll = Callable[[ServedModels], Awaitable[None]]
"""Lets other models answer; raises ``RecsysError`` where they cannot, and then nothing
has changed."""

_TRAVEL_S: Final = 0.005
_TRAVEL_SHARE: Final = 0.1


@final
class Service:
    """Answers typed requests; knows the clock and the limits, which rankers do not.

    Args:
        models: What answers; a mapping of rankers is served without shares.
        settings: Limits.

    Attributes:
        models: What answers at this moment.
        ready: Whether it is warm.
        recent: Some requests that were answered.
        watchers: Called with models that are about to answer.
        swap: How others come to answer here.
        swap_all: How others come to answer on every replica of the server.
    """

    def __init__(
        self, models: ModelSet | Mapping[str, Ranker], settings: ServingSettings
    ) -> None:
        self.models = models if isinstance(models, ModelSet) else ModelSet.of(models)
        self.settings = settings
        self.ready = False
        self.recent = RecentRequests()
        self.watchers: list[Callable[[ModelSet], None]] = []
        self.swap = Swap(
            self.models, settings.only_models(), self.recent, turn=_turn(settings)
        )
        self.swap_all: SwapAll = self.swap_here
        self._swapping = asyncio.Lock()
        self.batcher = Batcher(settings.batching, settings.overload)
        self.batcher.patient = lambda: self.swap.under_way
        self.entities = EntityLookup(settings.entities)
        self._reading = 0
        self._bytes_held = 0

    def warm_up(self) -> None:
        """Send every model its own example requests; ready afterwards."""
        warm_up(self.models.models)
        self.ready = True

    def replace(self, models: ModelSet) -> None:
        """Let other models answer from now on.

        Requests that wait already keep the model that was chosen for them.
        """
        for watch in self.watchers:
            watch(models)
        self.models = models

    async def swap_to(self, wanted: ServedModels) -> None:
        """Let other models answer on every replica, or change nothing.

        Raises:
            ArtifactError: A bundle is incomplete, altered, or of another format.
            ConfigError: Names or scores do not fit the bundles, a model refuses
                requests that are answered now, or another swap is under way.
        """
        if self._swapping.locked():
            raise ConfigError("another swap is under way; wait for it and ask again")
        async with self._swapping:
            await self.swap_all(wanted)

    async def swap_here(self, wanted: ServedModels) -> None:
        """Let other models answer in this process alone; errors as of ``swap_to``."""
        await self.swap.prepare(wanted)
        self.replace(self.swap.switch(wanted))

    def model(self, name: str | None) -> ServedModel:
        """Find the model of that name, or the first.

        Raises:
            HttpFault: 404 if there is none.
        """
        return self.models.models[0] if name is None else self.models.named(name)

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Hold a place among the requests whose body is being read.

        Raises:
            HttpFault: 429 where there is no room: before a byte of the body is read.
        """
        bound = self.settings.overload.max_queued_requests
        if self._reading + self.batcher.waiting_requests >= bound:
            raise self.batcher.overloaded(
                "requests", f"{bound:,} requests wait already"
            )
        self.batcher.refuse_if_full()
        self._reading += 1
        try:
            yield
        finally:
            self._reading -= 1

    @contextlib.contextmanager
    def holding(self) -> Iterator[Callable[[int], None]]:
        """Count the bytes of a body while it is held.

        Yields:
            To be called with the size of each part; raises ``HttpFault`` with 429 where
            all bodies together would be too large.
        """
        held = 0
        bound = self.settings.overload.max_body_bytes_held

        def hold(size: int) -> None:
            nonlocal held
            if held + size and self._bytes_held + size > bound:
                raise self.batcher.overloaded(
                    "bytes", f"{bound:,} bytes of requests are held"
                )
            held += size
            self._bytes_held += size

        try:
            yield hold
        finally:
            self._bytes_held -= held

    async def rank(
        self,
        request: RankRequest,
        *,
        deadline_s: float | None = None,
        leaves: Leaves | None = None,
    ) -> RankResponse:
        """Order candidates.

        Args:
            request: Who, when, and which candidates.
            deadline_s: Time from now after which nobody waits for the answer.
            leaves: Ends when the client has left.

        Raises:
            HttpFault: 404 for a model that is not there, 429 where there is no room,
                504 where there is no time.
            RequestError: The request does not fit the model or the limits.
            ClientDisconnect: The client has left.
        """
        rows = 0
        for field, candidates in (
            ("items", request.items),
            ("item_ids", request.item_ids),
        ):
            count = 0 if candidates is None else len(candidates)
            self._limit(field, count)
            rows = max(rows, count)
        if isinstance(request, RankTable):
            rows = request.table.num_rows
            self._limit(request.place, rows)
        request_id = name_request(request.request_id)
        user = request.user.id
        answer = await self._answer(
            msgspec.structs.replace(request, request_id=request_id),
            unit=request_id if user is None else str(user),
            rows=rows,
            deadline_s=deadline_s,
            leaves=leaves,
        )
        assert isinstance(answer, RankResponse)
        return answer

    async def score(
        self,
        request: ScoreRequest,
        *,
        deadline_s: float | None = None,
        leaves: Leaves | None = None,
    ) -> ScoreResponse:
        """Score rows; arguments and errors as of ``rank``."""
        rows = len(request.rows or ())
        self._limit("rows", rows)
        for name, cells in (request.columns or {}).items():
            self._limit(f"columns.{name}", len(cells))
            rows = max(rows, len(cells))
        if isinstance(request, ScoreTable):
            rows = request.table.num_rows
            self._limit(request.place, rows)
        request_id = name_request(request.request_id)
        answer = await self._answer(
            msgspec.structs.replace(request, request_id=request_id),
            unit=request_id,
            rows=rows,
            deadline_s=deadline_s,
            leaves=leaves,
        )
        assert isinstance(answer, ScoreResponse)
        return answer

    def _limit(self, field: str, count: int) -> None:
        bound = self.settings.limits.max_items
        if count > bound:
            raise RequestError(
                field,
                f"must have at most {bound:,} entries, got {count:,}; send several "
                "requests",
            )

    async def _answer(
        self,
        request: Ask,
        *,
        unit: str,
        rows: int,
        deadline_s: float | None,
        leaves: Leaves | None,
    ) -> Answer:
        model, chosen_by = self.models.choose(request.model, unit)
        asked = request
        user = None if unit == request.request_id else unit
        note_choice(model.name, model.card.version, rows=rows, user=user)
        time_s = self._time_s(deadline_s)
        deadline = time.monotonic() + time_s
        self.batcher.refuse_if_full(rows)  # before the store has any work with it
        request, stored, degraded = await self.entities.fill(
            request, model, time_s=time_s
        )
        time_s = deadline - time.monotonic()
        waits = self.batcher.busy
        future = self.batcher.put(model, request, rows=rows, deadline=deadline)
        timer = asyncio.get_running_loop().call_later(time_s, _give_up, future)
        try:
            if waits and leaves is not None:
                # Only who waits for others is watched: it costs a task.
                async with _cancelled_by(future, leaves):
                    answer = await future
            else:
                answer = await future
        finally:
            timer.cancel()
        self.recent.offer(unit, asked, rows)
        return msgspec.structs.replace(
            answer,
            model=model.name,
            chosen_by=chosen_by,
            degraded=degraded,
            stored=UNSET if stored is None else stored,
        )

    def _time_s(self, deadline_s: float | None) -> float:
        """Leave some of the time for the answer's way back."""
        overload = self.settings.overload
        wanted = overload.default_timeout_s if deadline_s is None else deadline_s
        time_s = min(wanted, overload.max_timeout_s)
        return time_s - min(_TRAVEL_S, _TRAVEL_SHARE * time_s)


def _give_up(future: "asyncio.Future[Answer]") -> None:
    if not future.done():
        future.set_exception(too_late())


@contextlib.asynccontextmanager
async def _cancelled_by(
    future: "asyncio.Future[Answer]", leaves: Leaves
) -> AsyncIterator[None]:
    """Cancel ``future`` when the client leaves."""
    left = False

    async def watch() -> None:
        nonlocal left
        await leaves()
        left = not future.done()
        future.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if left:
            raise ClientDisconnect from None
        raise
    finally:
        watching.cancel()


def _turn(settings: ServingSettings) -> Path | None:
    """Find the file by which replicas of a machine load one after the other."""
    folder = settings.observability.node_folder
    return None if folder is None else folder.with_name(f"{folder.name}.turn")
