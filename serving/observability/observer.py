"""Notes what happens in a server, and tells it: metrics, logs, spans."""

import asyncio
import time
import uuid
from collections.abc import Iterable
from functools import partial
from http import HTTPStatus
from typing import Final, final
from weakref import WeakKeyDictionary

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from starlette.applications import Starlette
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recsys_mtl.rank.observation import Observation
from serving.model_set import ModelSet, ServedModel
from serving.observability.feedback import (
    Answers,
    Feedback,
    FeedbackRequest,
    FeedbackResponse,
)
from serving.observability.gauge import set_gauges
from serving.observability.ledger import Ledger
from serving.observability.log import RequestLog
from serving.observability.node import NodeFolder
from serving.observability.note import BatchNote, LookupNote
from serving.observability.prediction import PredictionTally
from serving.observability.record import Record, Stage, recording, usable_id
from serving.observability.tally import (
    count_batches,
    count_features,
    count_lookup,
    count_request,
)
from serving.observability.trace import Tracing
from serving.service import Service

__all__ = ["ObservedApp", "Observer"]

_WRITE_EVERY_S: Final = 1.0
_COUNT_EVERY: Final = 32
"""Requests, or batches, after which all are counted: together it takes less time."""
_COUNT_ROWS: Final = 2_048
"""Candidates of batches after which likewise: notes keep their answers."""
_OTHER: Final = "other"


@final
class Observer:
    """Keeps the counts of one replica.

    All of it happens on the event loop, after the answer is on its way: what happened
    is noted, and counted some dozens of requests at a time, or when somebody asks. Once
    a second, where anything happened, counts go to the node's folder and one request a
    model is looked at for missing features, in another thread.

    Args:
        service: Whose requests.
        app: Its routes are the values of the label ``route``.

    Raises:
        ConfigError: A file of the settings cannot be used.
    """

    def __init__(self, service: Service, app: Starlette) -> None:
        settings = service.settings.observability
        self._service = service
        self._routes = [route for route in app.routes if isinstance(route, Route)]
        self._paths: dict[tuple[object, frozenset[str]], str] = {
            (route.endpoint, frozenset(route.param_convertors)): route.path
            for route in self._routes
        }
        self._ledger = Ledger()
        self._answers = Answers(settings.feedback_window_bytes)
        self._feedback = Feedback(
            self._answers,
            self._ledger,
            max_events=settings.max_feedback_events,
            remembered=settings.remembered_feedback_events,
        )
        self._log = RequestLog(settings.log)
        self._tracing = Tracing(settings.trace) if settings.trace.enabled else None
        folder = settings.node_folder
        self._node = None if folder is None else NodeFolder(folder, self._ledger)
        self._feature_interval_s = settings.feature_sample_interval_s
        self._features_counted = 0.0
        self._tallies: WeakKeyDictionary[ServedModel, PredictionTally] = (
            WeakKeyDictionary()
        )
        self._latest: dict[str, BatchNote] = {}
        self._ended_requests: list[tuple[Record, float, bool, bool]] = []
        self._batches: list[BatchNote] = []
        self._batch_rows = 0
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._meet(service.models)
        service.watchers.append(self._meet)
        service.batcher.watch = self.batch
        service.swap.watch = partial(self._ledger.add, "recsys_swaps_total")
        service.entities.watch = self.lookup

    def feedback(self, events: FeedbackRequest) -> FeedbackResponse:
        """Take feedback; errors as of ``Feedback.take``."""
        self._count()  # answers to join it to
        self._feedback.serves([model.card for model in self._service.models.models])
        return self._feedback.take(events)

    async def metrics(self) -> bytes:
        """Write all metrics in Prometheus' text format, of all replicas of the node.

        The counts are taken at once; another thread writes them, which takes several
        milliseconds.
        """
        self._refresh()
        if self._node is None:
            told = list(self._ledger.collect())
            return await asyncio.to_thread(generate_latest, _Told(told))
        self._node.write()
        node = self._node
        return await asyncio.to_thread(lambda: generate_latest(_Told(node.collect())))

    async def finish(self) -> None:
        """Wait until features are counted of which counting has begun; then close."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def close(self) -> None:
        """Write what was not written yet; the node forgets this replica's gauges."""
        if self._timer is not None:
            self._timer.cancel()
        if self._tracing is not None:
            self._tracing.close()
        if self._node is not None:
            self._count()
            self._node.write()
            self._node.close()

    async def watch(
        self, app: ASGIApp, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Let ``app`` answer a request, and note what happens."""
        record = _record(scope)
        recording(record)

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                named = (b"x-request-id", record.request_id.encode("latin-1"))
                message["headers"] = [*message.get("headers", ()), named]
            await send(message)

        try:
            await app(scope, receive, tell)
        except BaseException:
            record.status = record.status or HTTPStatus.INTERNAL_SERVER_ERROR
            raise
        finally:
            end = time.perf_counter()
            record.route = self._route(scope)
            self._ended(record, end, answered=scope["method"] == "POST")

    def batch(self, note: BatchNote) -> None:
        """Take note of a batch; called before anybody gets an answer."""
        spans = _by_stage(note.observations)
        for waiting in note.waiting:
            record = waiting.record
            if record is not None:
                record.spans.append(("queue", waiting.since, note.began))
                record.spans.extend(spans)
        for first, seen in note.observations:
            for place in seen.degraded:
                record = note.waiting[first + place].record
                if record is not None:
                    record.degraded = True
            self._batch_rows += sum(map(len, seen.prediction_BT.values()))
        self._latest[note.model.name] = note
        self._batches.append(note)
        self._plan()

    def lookup(self, note: LookupNote) -> None:
        """Take note of a lookup in the store of users and items."""
        count_lookup(self._ledger, note)

    def _route(self, scope: Scope) -> str:
        """Name the route, with the names of its parameters instead of values."""
        if "endpoint" in scope:
            place = scope["endpoint"], frozenset(scope["path_params"])
            return self._paths.get(place, _OTHER)
        # Refused before anybody looked for the route.
        for route in self._routes:
            if route.matches(scope)[0] is not Match.NONE:
                return route.path
        return _OTHER

    def _count(self) -> None:
        """Count all that was noted."""
        ended, self._ended_requests = self._ended_requests, []
        batches, self._batches = self._batches, []
        self._batch_rows = 0
        for record, total_s, answered, slow in ended:
            count_request(self._ledger, record, total_s, answered=answered, slow=slow)
        by_model: dict[ServedModel, list[BatchNote]] = {}
        for note in batches:
            by_model.setdefault(note.model, []).append(note)
        for model, notes in by_model.items():
            count_batches(self._ledger, notes, self._tally(model), self._answers)

    def _meet(self, models: ModelSet) -> None:
        """Make ready to count for models, now and not while somebody waits."""
        for model in models.models:
            self._tally(model)

    def _tally(self, model: ServedModel) -> PredictionTally:
        tally = self._tallies.get(model)
        if tally is None:
            tally = self._tallies[model] = PredictionTally(self._ledger, model.card)
        return tally

    def _ended(self, record: Record, end: float, *, answered: bool) -> None:
        total_s = end - record.started
        trace_id, slow = None, False
        if answered:
            if self._tracing is not None:
                trace_id = self._tracing.write(record, end)
            slow = self._log.write(record, total_s, trace_id)
        self._ended_requests.append((record, total_s, answered, slow))
        self._plan()

    def _plan(self) -> None:
        """Write soon, if that is not planned already, and count what is enough."""
        loop = asyncio.get_running_loop()
        noted = max(len(self._ended_requests), len(self._batches))
        if noted >= _COUNT_EVERY or self._batch_rows >= _COUNT_ROWS:
            # When the answers are on their way, which were made ready before.
            loop.call_soon(self._count)
        if self._timer is None or self._loop is not loop:
            self._loop = loop
            self._timer = loop.call_later(_WRITE_EVERY_S, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._node is None:
            self._count()
        else:
            self._refresh()
            self._node.write()
        now = time.monotonic()
        if self._latest and now - self._features_counted >= self._feature_interval_s:
            self._features_counted = now
            latest, self._latest = self._latest, {}
            for note in latest.values():
                task = asyncio.create_task(count_features(self._ledger, note))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _refresh(self) -> None:
        self._count()
        set_gauges(self._ledger, self._service, self._answers)


@final
class ObservedApp(Starlette):
    """An app of which every request is noted, errors of the app itself included."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; see ASGI."""
        observer: Observer | None = getattr(self.state, "observer", None)
        if observer is None or scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        await observer.watch(super().__call__, scope, receive, send)


def _by_stage(
    observations: Iterable[tuple[int, Observation]],
) -> list[tuple[Stage, float, float]]:
    """One span a stage: what was done request by request is one piece of time."""
    first: dict[Stage, float] = {}
    total: dict[Stage, float] = {}
    for _, seen in observations:
        for name, start, end in seen.spans:
            first.setdefault(name, start)
            total[name] = total.get(name, 0.0) + end - start
    return [(name, start, start + total[name]) for name, start in first.items()]


class _Told(CollectorRegistry):
    """Metrics that were collected already."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        super().__init__()
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _record(scope: Scope) -> Record:
    given, parent = None, None
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given = value.decode("latin-1")
        elif name == b"traceparent":
            parent = value.decode("latin-1")
    known = given if usable_id(given) else None
    return Record(
        request_id=uuid.uuid4().hex if known is None else known,
        given_id=known is not None,
        started=time.perf_counter(),
        trace_parent=parent,
    )
