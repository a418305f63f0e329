"""What became of predictions: labels, joined with the answers they are about."""

import contextlib
import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal, final

import numpy as np
from jaxtyping import Float
from msgspec import Meta, Struct

from recsys_mtl.errors import RequestError
from recsys_mtl.rank.card import ModelCard
from recsys_mtl.rank.column import unknown_name
from recsys_mtl.rank.request import Id
from serving.observability.ledger import Ledger

__all__ = [
    "Answers",
    "Feedback",
    "FeedbackEvent",
    "FeedbackRequest",
    "FeedbackResponse",
]

_NAME: Final = 256
_BYTES_PER_ID: Final = 16  # beside the id itself: a reference, and what is rounded up
_BYTES_PER_ANSWER: Final = 1_000
_LONGEST_INT: Final = 20  # of 64 bits, with its sign

Name = Annotated[str, Meta(min_length=1, max_length=_NAME)]
Outcome = Literal["joined", "given", "unjoined", "duplicate"]


class FeedbackEvent(Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of one candidate of one answer by now.

    Attributes:
        event_id: An event that comes twice counts once.
        request_id: As the answer had it.
        item_id: The candidate, as the request or the answer had it.
        labels: By task; tasks that are left out or null have no label yet.
        model: As the answer had it; needed along with ``predictions``.
        version: As the answer had it; needed along with ``predictions``.
        predictions: By task, as the answer had them. With them an event counts
            wherever it arrives; without, only at the replica that gave the answer, and
            as long as that remembers it.
    """

    event_id: Name
    request_id: Name
    labels: dict[str, float | None]
    item_id: Id = None
    model: Name | None = None
    version: Name | None = None
    predictions: dict[str, float] | None = None


class FeedbackRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Events; all of them count, or none if one of them is refused."""

    events: list[FeedbackEvent]


class FeedbackResponse(Struct, frozen=True):
    """What became of the events.

    Attributes:
        joined: Joined to an answer that this replica remembers.
        given: Counted with the predictions that they brought.
        unjoined: Not counted: nobody here remembers the answer, its candidates have no
            such item, or its version was never served here.
        duplicate: Not counted: they were here before.
    """

    joined: int
    given: int
    unjoined: int
    duplicate: int


@final
@dataclass(frozen=True)
class _Answer:
    request_id: str
    card: ModelCard
    ids: Sequence[Id]
    prediction_NT: Float[np.ndarray, "candidates tasks"]
    size: int = field(init=False)

    def __post_init__(self) -> None:
        # Texts of 65,536 letters are ids, too. sys.getsizeof takes thrice the time.
        ids = sum(
            [each.__sizeof__() for each in self.ids], self.request_id.__sizeof__()
        )
        ids += _BYTES_PER_ID * len(self.ids)
        size = _BYTES_PER_ANSWER + ids + self.prediction_NT.nbytes
        object.__setattr__(self, "size", size)

    def place(self, item_id: Id) -> int | None:
        """Find a candidate by its id, however that is written."""
        for written in _ways_to_write(item_id):
            with contextlib.suppress(ValueError):
                return self.ids.index(written)
        return None


@final
class Answers:
    """The newest answers, as many as fit.

    Args:
        max_bytes: Of all together, estimated; 0 remembers none.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._answers: OrderedDict[str, _Answer] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._answers)

    def remember(
        self,
        request_id: str,
        card: ModelCard,
        ids: Sequence[Id],
        prediction_NT: Float[np.ndarray, "candidates tasks"],
    ) -> None:
        """Keep an answer; another one with that id is forgotten.

        Shape:
            - prediction_NT: ``(candidates, tasks)``
        """
        self._forget(request_id)
        # A copy, for a part of a batch would keep the whole of it.
        answer = _Answer(request_id, card, ids, prediction_NT.copy())
        if answer.size > self._max_bytes:
            return
        self._answers[request_id] = answer
        self.bytes += answer.size
        while self.bytes > self._max_bytes:
            self._forget(next(iter(self._answers)))

    def find(
        self, request_id: str, item_id: Id
    ) -> tuple[ModelCard, dict[str, float]] | None:
        """Find what was predicted of a candidate, by task; the first of equal ids.

        A whole number and the text that writes it are one id: a request may have the
        one, and its answer the other.
        """
        answer = self._answers.get(request_id)
        place = None if answer is None else answer.place(item_id)
        if answer is None or place is None:
            return None
        tasks = [task.name for task in answer.card.tasks]
        row = answer.prediction_NT[place].tolist()
        return answer.card, dict(zip(tasks, row, strict=True))

    def _forget(self, request_id: str) -> None:
        answer = self._answers.pop(request_id, None)
        if answer is not None:
            self.bytes -= answer.size


@final
class Feedback:
    """Counts labels and their predictions.

    Args:
        answers: To join with.
        ledger: Where the sums are kept.
        max_events: Of one request.
        remembered: Ids of events by which duplicates are found.
    """

    def __init__(
        self, answers: Answers, ledger: Ledger, *, max_events: int, remembered: int
    ) -> None:
        self._answers = answers
        self._ledger = ledger
        self._max_events = max_events
        self._remembered = remembered
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._served: dict[tuple[str, str], ModelCard] = {}

    def serves(self, cards: Sequence[ModelCard]) -> None:
        """Take note of models that answer, of which events may tell predictions."""
        for card in cards:
            self._served[card.name, card.version] = card

    def take(self, request: FeedbackRequest) -> FeedbackResponse:
        """Count events.

        Raises:
            RequestError: There are too many, or one has a task that is none, a number
                that is not finite, or no probability where the task has those. None
                of them was counted.
        """
        events = request.events
        if len(events) > self._max_events:
            raise RequestError(
                "events",
                f"must have at most {self._max_events:,} entries, got {len(events):,}; "
                "send several requests",
            )
        found = [self._found(event, f"events[{i}]") for i, event in enumerate(events)]
        counts: dict[Outcome, int] = dict.fromkeys(
            ("joined", "given", "unjoined", "duplicate"), 0
        )
        for event, (outcome, card, predictions) in zip(events, found, strict=True):
            if event.event_id in self._seen:
                counts["duplicate"] += 1
                continue
            counts[outcome] += 1
            if card is not None:
                # Only what counted: an unjoined event may be sent again, elsewhere.
                self._remember(event.event_id)
                self._count(card, event.labels, predictions)
        for outcome, count in counts.items():
            if count:
                self._ledger.add(
                    "recsys_feedback_events_total", outcome, by=float(count)
                )
        return FeedbackResponse(**counts)

    def _found(
        self, event: FeedbackEvent, field: str
    ) -> tuple[Outcome, ModelCard | None, Mapping[str, float]]:
        """Check an event, and find its predictions."""
        card, predictions, outcome = None, event.predictions, "unjoined"
        joined = self._answers.find(event.request_id, event.item_id)
        if joined is not None:
            # What this replica remembers is certain; what callers tell may be rounded.
            (card, predictions), outcome = joined, "joined"
        elif predictions is not None:
            for name in ("model", "version"):
                if getattr(event, name) is None:
                    raise RequestError(
                        f"{field}.{name}", "must be there along with predictions"
                    )
            card = self._served.get((event.model or "", event.version or ""))
            outcome = "unjoined" if card is None else "given"
        kinds = self._kinds(card)
        for part, values in (
            ("labels", event.labels),
            ("predictions", event.predictions or {}),
        ):
            for task, value in values.items():
                place = f"{field}.{part}.{task}"
                if task not in kinds:
                    raise unknown_name(place, task, kinds)
                if value is not None:
                    _check(place, value, kinds[task])
        return outcome, card, predictions or {}  # type: ignore[return-value]

    def _kinds(self, card: ModelCard | None) -> dict[str, str]:
        cards = self._served.values() if card is None else [card]
        return {task.name: task.kind for each in cards for task in each.tasks}

    def _remember(self, event_id: str) -> None:
        self._seen[event_id] = None
        if len(self._seen) > self._remembered:
            self._seen.popitem(last=False)

    def _count(
        self,
        card: ModelCard,
        labels: Mapping[str, float | None],
        predictions: Mapping[str, float],
    ) -> None:
        for task, label in labels.items():
            prediction = predictions.get(task)
            if label is None or prediction is None:
                continue
            where = (card.name, card.version, task)
            add = self._ledger.add
            add("recsys_feedback_labels_total", *where)
            add("recsys_feedback_label_sum_total", *where, by=float(label))
            add("recsys_feedback_prediction_sum_total", *where, by=float(prediction))


def _ways_to_write(item_id: Id) -> Iterator[Id]:
    """Give the id, and its other form if it has one."""
    yield item_id
    if isinstance(item_id, int):
        yield str(item_id)
    elif item_id is not None and len(item_id) <= _LONGEST_INT:
        with contextlib.suppress(ValueError):
            if str(number := int(item_id)) == item_id:  # unlike that of "007"
                yield number


def _check(field: str, value: float, kind: str) -> None:
    if not math.isfinite(value):
        raise RequestError(field, f"must be a finite number, got {value}")
    if kind == "binary" and not 0.0 <= value <= 1.0:
        raise RequestError(
            field, f"must be from 0 to 1, for the task is binary, got {value:g}"
        )
