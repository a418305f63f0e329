"""What happened to one request, noted while it is answered."""

import re
import time
import uuid
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Literal, final

from recsys_mtl.rank.observation import RankStage

__all__ = [
    "Record",
    "Stage",
    "current",
    "name_request",
    "note_choice",
    "note_fault",
    "recording",
    "stage",
    "usable_id",
]

Stage = Literal["receive", "decode", "queue", "serialise"] | RankStage
"""What a request goes through: its body arrives; becomes typed; waits for the model;
then ``RankStage``; and the answer becomes bytes."""


@final
@dataclass(slots=True, eq=False)
class Record:
    """Notes on a request.

    Attributes:
        request_id: Of the header ``x-request-id``, else of the body, else made up.
        given_id: Whether it came in the header.
        started: When it came, of ``time.perf_counter``.
        trace_parent: The header ``traceparent``, unchecked.
        route: Path of the route, with the names of its parameters in place of values.
        model: Who answered; empty if nobody.
        version: Of the model.
        user: Id of the user, only ever told as a keyed hash.
        status: Of the response; 0 until it begins.
        candidates: Or rows.
        degraded: Whether defaults stood in for a store of features.
        code: Why it was refused, for programs; empty if it was not.
        reason: Why exactly, where the code has several reasons.
        spans: Stage, start and end, as of ``time.perf_counter``.
    """

    request_id: str
    given_id: bool
    started: float
    trace_parent: str | None = None
    route: str = ""
    model: str = ""
    version: str = ""
    user: str | None = None
    status: int = 0
    candidates: int = 0
    degraded: bool = False
    code: str = ""
    reason: str = ""
    spans: list[tuple[Stage, float, float]] = field(default_factory=list)

    def seconds(self) -> dict[Stage, float]:
        """Give the time of each stage, in the order of their beginnings."""
        total: dict[Stage, float] = {}
        for name, start, end in self.spans:
            total[name] = total.get(name, 0.0) + end - start
        return total


_CURRENT: ContextVar[Record | None] = ContextVar("record", default=None)


def current() -> Record | None:
    """Find the record of the request that this task answers, if it answers one."""
    return _CURRENT.get()


recording = _CURRENT.set
"""Make a record that of this task; returns the token to take it back with."""


_USABLE: Final = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


def usable_id(given: str | None) -> bool:
    """Whether an id of a request may stand in a header and in logs as it is."""
    return given is not None and _USABLE.fullmatch(given) is not None


def name_request(given: str | None) -> str:
    """Settle the id of the request that is answered.

    Args:
        given: In its body; it goes for the log too, unless a header had another.

    Returns:
        ``given``, else the header's, else one that is made up.
    """
    record = _CURRENT.get()
    if given is None:
        return uuid.uuid4().hex if record is None else record.request_id
    if record is not None and not record.given_id and usable_id(given):
        record.request_id = given
    return given


def note_choice(model: str, version: str, *, rows: int, user: str | None) -> None:
    """Note who answers the request, with how many candidates, and for which user."""
    record = _CURRENT.get()
    if record is not None:
        record.model, record.version = model, version
        record.candidates, record.user = rows, user


def note_fault(code: str, reason: str) -> None:
    """Note why the request was refused."""
    record = _CURRENT.get()
    if record is not None:
        record.code, record.reason = code, reason


@final
class stage:  # noqa: N801 - reads as a statement: with stage("decode")
    """Time a block as a stage of the request; does nothing outside of one.

    Args:
        name: Of the stage; several blocks of one name add up.

    Example:
        >>> with stage("decode"):
        ...     pass
    """

    __slots__ = ("_name", "_record", "_start")

    def __init__(self, name: Stage) -> None:
        self._name: Stage = name

    def __enter__(self) -> None:
        self._record = _CURRENT.get()
        self._start = time.perf_counter()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._record is not None:
            span = (self._name, self._start, time.perf_counter())
            self._record.spans.append(span)
