"""Requests that wait while the model works are scored together, with no fixed wait."""

import asyncio
import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import final
from weakref import WeakKeyDictionary

from recsys_mtl.rank.observation import Observation
from recsys_mtl.rank.request import (
    RankRequest,
    RankResponse,
    ScoreRequest,
    ScoreResponse,
)
from serving.cost import CostEstimate
from serving.fault import HttpFault
from serving.model_set import ServedModel
from serving.observability.note import BatchNote, Waiting
from serving.settings import BatchingSettings, OverloadSettings

__all__ = ["Answer", "Ask", "Batcher", "too_late"]

logger = logging.getLogger(__name__)

Ask = RankRequest | ScoreRequest
Answer = RankResponse | ScoreResponse


@dataclass(eq=False, slots=True)
class _Job:
    ask: Ask
    rows: int
    deadline: float
    future: "asyncio.Future[Answer]"
    waiting: Waiting = field(default_factory=Waiting)


@dataclass(eq=False, slots=True)
class _Queue:
    """What waits for one model, in order of arrival."""

    jobs: deque[_Job] = field(default_factory=deque)
    rows: int = 0


@dataclass(eq=False, slots=True)
class _Batch:
    model: ServedModel
    jobs: list[_Job]
    rows: int
    started: float
    note: BatchNote


@final
class Batcher:
    """One worker thread, and a queue a model in front of it.

    An idle worker starts at once with what there is. While it works, requests gather;
    then the next batch takes, in order of arrival, as many as fit under
    ``max_batch_rows`` and can be done before the earliest deadline among them. Models
    that are asked take turns, so that one that is flooded delays another by a batch at
    most. Requests that are cancelled or too late, or waited longer than ``max_wait_s``,
    are dropped before they cost anything.

    All but the scoring happens on the event loop, so there are no locks; every turn of
    the worker ends in ``_done``, which starts the next one. Batches that should take
    less than ``inline_s`` are scored on the loop too: two threads that want Python's
    lock lose more to each other.

    Args:
        batching: Size of a batch.
        overload: Bounds of the queue.

    Attributes:
        watch: Called with each batch when it is scored, before its requests are
            answered.
        patient: Says whether requests may wait longer, by ``swap_patience``, for what
            delays them will be over soon.
    """

    def __init__(self, batching: BatchingSettings, overload: OverloadSettings) -> None:
        self._max_batch_rows = batching.max_batch_rows
        self._inline_s = batching.inline_s
        self._overload = overload
        self._queues: dict[ServedModel, _Queue] = {}
        self._costs: WeakKeyDictionary[ServedModel, CostEstimate] = WeakKeyDictionary()
        self._running: _Batch | None = None
        self._flush_is_due = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="ranker")
        self.watch: Callable[[BatchNote], None] = lambda _: None
        self.patient: Callable[[], bool] = lambda: False

    @property
    def busy(self) -> bool:
        """Whether a new request has to wait."""
        return self._running is not None or bool(self._queues)

    @property
    def waiting_requests(self) -> int:
        """Requests that no batch has taken yet."""
        return sum(len(queue.jobs) for queue in self._queues.values())

    @property
    def waiting_rows(self) -> int:
        """Their candidates."""
        return sum(queue.rows for queue in self._queues.values())

    def expected_wait_s(self) -> float:
        """Estimate how long a request that came now would wait for others."""
        wait = 0.0
        if self._running is not None:
            running = self._running
            cost = self._cost(running.model).of(len(running.jobs), running.rows)
            wait += max(0.0, cost - (time.monotonic() - running.started))
        for model, queue in self._queues.items():
            wait += self._cost(model).of(len(queue.jobs), queue.rows)
        return wait

    def refuse_if_full(self, rows: int = 0) -> None:
        """Refuse a request for which there is no room.

        Raises:
            HttpFault: 429, with the time after which to ask again.
        """
        if not self._queues:
            return  # one that nothing waits before is never refused
        requests, waiting_rows = self.waiting_requests, self.waiting_rows
        for got, bound, name in (
            (requests + 1, self._overload.max_queued_requests, "requests"),
            (waiting_rows + rows, self._overload.max_queued_rows, "candidates"),
        ):
            if got > bound:
                raise self.overloaded(name, f"{bound:,} {name} wait already")
        wait_s, max_wait_s = self.expected_wait_s(), self._max_wait_s()
        if wait_s > max_wait_s:
            raise self.overloaded(
                "wait",
                f"the wait would be {wait_s:.3f} s, longer than {max_wait_s:g} s",
            )

    def overloaded(self, bound: str, reason: str) -> HttpFault:
        """Say that there is no room, and when to ask again.

        Args:
            bound: Which bound was reached, in a word, to count by.
            reason: The same for people.
        """
        after = str(max(1, math.ceil(self.expected_wait_s())))
        return HttpFault(
            HTTPStatus.TOO_MANY_REQUESTS,
            "overloaded",
            f"the server is busy: {reason}; ask again in {after} s",
            headers={"retry-after": after},
            reason=bound,
        )

    def put(
        self, model: ServedModel, ask: Ask, *, rows: int, deadline: float
    ) -> "asyncio.Future[Answer]":
        """Queue a request.

        Args:
            model: Which one is to answer.
            ask: The request.
            rows: Its candidates.
            deadline: Of ``time.monotonic``; nobody waits for the answer afterwards.

        Returns:
            Its answer, or an ``HttpFault`` with 504, or what the ranker refused it
            with. Cancelled while it waits, it costs nothing more.

        Raises:
            HttpFault: 429 if the queue is full or the wait too long.
        """
        self.refuse_if_full(rows)
        wait_s = self.expected_wait_s()
        own_s = self._cost(model).of(1, rows)
        now = time.monotonic()
        if wait_s and now < deadline < now + wait_s + own_s:
            raise self.overloaded(
                "deadline",
                f"the answer would take {wait_s + own_s:.3f} s, longer than the "
                "request has",
            )
        loop = self._enter_loop()
        job = _Job(ask, rows, deadline, loop.create_future())
        queue = self._queues.setdefault(model, _Queue())
        queue.jobs.append(job)
        queue.rows += rows
        job.future.add_done_callback(lambda _: self._forget(model, job))
        if self._running is None and not self._flush_is_due:
            # Not now, but with whatever else the loop has ready in this round.
            self._flush_is_due = True
            loop.call_soon(self._flush)
        return job.future

    def close(self) -> None:
        """End the worker when it has finished its batch."""
        self._worker.shutdown(wait=False)

    def _enter_loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            # Nobody of a loop before this one waits any more.
            self._loop, self._queues = loop, {}
            self._running, self._flush_is_due = None, False
        return loop

    def _max_wait_s(self) -> float:
        overload = self._overload
        return overload.max_wait_s * (overload.swap_patience if self.patient() else 1.0)

    def _cost(self, model: ServedModel) -> CostEstimate:
        cost = self._costs.get(model)
        if cost is None:
            cost = self._costs[model] = CostEstimate()
        return cost

    def _forget(self, model: ServedModel, job: _Job) -> None:
        """Make room at once where a request is cancelled while it waits."""
        queue = self._queues.get(model)
        if queue is not None and job in queue.jobs:
            queue.jobs.remove(job)
            queue.rows -= job.rows
            if not queue.jobs:
                del self._queues[model]

    def _flush(self) -> None:
        self._flush_is_due = False
        while self._running is None and self._queues:
            model, queue = next(iter(self._queues.items()))
            # Out and, if any are left, in again at the end: models take turns.
            del self._queues[model]
            jobs = self._take(queue, self._cost(model))
            if queue.jobs:
                self._queues[model] = queue
            if jobs:
                assert self._loop is not None
                rows = sum(job.rows for job in jobs)
                self._running = _batch(model, jobs, rows)
                if 0.0 < self._cost(model).of(len(jobs), rows) < self._inline_s:
                    # After whatever else the loop has to do, answers above all.
                    self._loop.call_soon(self._score_here, self._running)
                else:
                    self._worker.submit(self._work, self._loop, self._running)

    def _take(self, queue: _Queue, cost: CostEstimate) -> list[_Job]:
        jobs: list[_Job] = []
        rows, earliest, now = 0, math.inf, time.monotonic()
        while queue.jobs:
            job = queue.jobs[0]
            if not job.future.done():
                refusal = self._refusal(job, cost, now)
                if refusal is None:
                    together = cost.of(len(jobs) + 1, rows + job.rows)
                    soonest = min(earliest, job.deadline)
                    if jobs and (
                        rows + job.rows > self._max_batch_rows
                        or now + together > soonest
                    ):
                        break
                    jobs.append(job)
                    rows, earliest = rows + job.rows, soonest
                else:
                    job.future.set_exception(refusal)
            queue.jobs.popleft()
            queue.rows -= job.rows
        return jobs

    def _refusal(self, job: _Job, cost: CostEstimate, now: float) -> HttpFault | None:
        """Say why a request whose turn has come is not scored, if it is not."""
        max_wait_s = self._max_wait_s()
        if time.perf_counter() - job.waiting.since > max_wait_s:
            # It was let in on an estimate that was too good.
            return self.overloaded(
                "waited", f"the wait was longer than {max_wait_s:g} s"
            )
        if job.deadline <= now:
            return too_late()
        if now + cost.of(1, job.rows) > job.deadline:
            cost.doubt()
            return too_late()
        return None

    def _score_here(self, batch: _Batch) -> None:
        batch.started = time.monotonic()
        outcomes = _outcomes(batch.note, batch.note.asks, 0)
        self._done(batch, outcomes, time.monotonic() - batch.started)

    def _work(self, loop: asyncio.AbstractEventLoop, batch: _Batch) -> None:
        """Run in the worker; may not touch anything of ``self``."""
        outcomes = _outcomes(batch.note, batch.note.asks, 0)
        seconds = time.monotonic() - batch.started
        # Where the loop is closed by now, so is the door on everybody who waited.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._done, batch, outcomes, seconds)

    def _done(
        self,
        batch: _Batch,
        outcomes: Sequence[Answer | BaseException],
        seconds: float,
    ) -> None:
        self._running = None
        self._cost(batch.model).learn(len(batch.jobs), batch.rows, seconds=seconds)
        # First the worker, then the answers, so that it does not wait for them.
        self._flush()
        batch.note.outcomes = outcomes
        try:
            self.watch(batch.note)
        except Exception:
            logger.exception("a batch could not be noted")
        for job, outcome in zip(batch.jobs, outcomes, strict=True):
            if job.future.done():
                continue  # cancelled meanwhile
            if isinstance(outcome, BaseException):
                job.future.set_exception(outcome)
            else:
                job.future.set_result(outcome)


def too_late() -> HttpFault:
    """Say that a request ran out of time."""
    return HttpFault(
        HTTPStatus.GATEWAY_TIMEOUT,
        "too_late",
        "the answer would have come too late; give the request more time in "
        "x-request-timeout-seconds, or fewer candidates",
    )


def _batch(model: ServedModel, jobs: list[_Job], rows: int) -> _Batch:
    asks, waiting = [job.ask for job in jobs], [job.waiting for job in jobs]
    note = BatchNote(model, asks, waiting, time.perf_counter())
    return _Batch(model, jobs, rows, time.monotonic(), note)


def _outcomes(
    note: BatchNote, asks: Sequence[Ask], first: int
) -> Sequence[Answer | BaseException]:
    """Score requests of a batch, the first of which is its ``first``."""
    seen = Observation()
    try:
        outcomes = note.model.ranker.respond(
            asks, now_us=time.time_ns() // 1_000, observation=seen
        )
        assert len(outcomes) == len(asks)
    except Exception as fault:  # noqa: BLE001 - told to whoever asked
        if len(asks) == 1:
            return [fault]
        # One request broke the batch; the others shall not suffer for it.
        return [_outcomes(note, [ask], i)[0] for i, ask in enumerate(asks)]
    note.observations.append((first, seen))
    return outcomes
