"""A load generator for HTTP: closed loop, or arrivals that wait for nobody."""

import asyncio
import contextlib
import gc
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

__all__ = ["Load", "closed_loop", "open_loop", "request_of"]


class Failure(NamedTuple):
    """A request that did not get 200.

    Attributes:
        due: When it was due, seconds from the start.
        outcome: Status, or ``lost``.
        ms: Milliseconds until that was known, from when it was due.
        text: How the answer's body begins, or what was wrong with the connection.
    """

    due: float
    outcome: str
    ms: float
    text: str


@dataclass
class Load:
    """What came of a load.

    Attributes:
        seconds: How long it lasted.
        ms: Milliseconds of each request that got 200, from when it was due.
        due: When these were due, seconds from the start.
        outcomes: Statuses, and ``lost`` for connections that ended without an answer.
        versions: Of the models that answered these.
        failures: The others, the first thousands of them.
    """

    seconds: float = 0.0
    ms: list[float] = field(default_factory=list)
    due: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    versions: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def fail(self, due: float, outcome: str, ms: float, text: str) -> None:
        """Count a request that did not get 200."""
        self.outcomes[outcome] += 1
        if len(self.failures) < _MAX_FAILURES:
            self.failures.append(Failure(due, outcome, ms, text[:_TEXT]))

    @property
    def per_s(self) -> float:
        """Requests a second that got 200."""
        return len(self.ms) / self.seconds

    def quantile(self, q: float, start: float = 0.0, end: float = math.inf) -> float:
        """Quantile of the milliseconds of requests due in [start, end)."""
        of = [
            ms for ms, due in zip(self.ms, self.due, strict=True) if start <= due < end
        ]
        return round(float(np.quantile(of, q)), 2) if of else math.nan


def request_of(url: str, path: str, body: bytes, **headers: str) -> bytes:
    """Write a POST request."""
    host = url.removeprefix("http://")
    given = {"content-type": "application/json", **headers}
    lines = [f"POST {path} HTTP/1.1", f"host: {host}", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in given.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


class _Connection(asyncio.Protocol):
    """Sends one request at a time and keeps the connection."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[tuple[str, bytes]] | None = None
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self.open = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def ask(self, request: bytes) -> asyncio.Future[tuple[str, bytes]]:
        self._answer = asyncio.get_running_loop().create_future()
        assert self._transport is not None
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        headers = bytes(self._buffer[:head]).lower()
        start = headers.find(b"content-length:")
        assert start >= 0, "an answer has no length"
        length = int(headers[start + 15 :].split(b"\r\n", 1)[0])
        if len(self._buffer) < head + 4 + length:
            return
        body = bytes(self._buffer[head + 4 : head + 4 + length])
        self._buffer.clear()
        if b"connection: close" in headers:
            self.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((headers[9:12].decode(), body))

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("closed"))

    def close(self) -> None:
        self.open = False
        if self._transport is not None:
            self._transport.close()


async def _connect(url: str) -> _Connection:
    host, _, port = url.removeprefix("http://").partition(":")
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(_Connection, host, int(port))
    return connection


async def _once(
    connection: _Connection, request: bytes, load: Load, began: float, due: float
) -> None:
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            status, body = await connection.ask(request)
    except (OSError, TimeoutError) as fault:
        connection.close()
        load.fail(due - began, "lost", (time.perf_counter() - due) * 1e3, repr(fault))
        return
    ms = (time.perf_counter() - due) * 1e3
    if status != "200":
        load.fail(due - began, status, ms, body.decode(errors="replace"))
        return
    load.outcomes[status] += 1
    load.ms.append(ms)
    load.due.append(due - began)
    place = body.find(b'"version":"') + 11
    load.versions.append(body[place : place + 12].decode())


def closed_loop(
    url: str, requests: Sequence[bytes], *, connections: int, seconds: float
) -> Load:
    """Ask again as soon as there is an answer.

    Args:
        url: Of the server.
        requests: Sent in turn.
        connections: How many ask.
        seconds: How long.
    """

    async def run() -> Load:
        load, began = Load(), time.perf_counter()

        async def one(number: int) -> None:
            connection = await _connect(url)
            while time.perf_counter() - began < seconds:
                if not connection.open:
                    connection = await _connect(url)
                request = requests[number % len(requests)]
                number += connections
                await _once(connection, request, load, began, time.perf_counter())
            connection.close()

        await asyncio.gather(*(one(number) for number in range(connections)))
        load.seconds = time.perf_counter() - began
        return load

    with _short_collections():
        return asyncio.run(run())


def open_loop(
    url: str,
    requests: Sequence[bytes],
    *,
    per_s: float,
    seconds: float,
    seed: int = 0,
    meanwhile: Callable[[], None] | None = None,
) -> Load:
    """Ask at random moments, whether or not there are answers.

    A request's time counts from when it was due, so that a server that stops is not
    asked less for it.

    Args:
        url: Of the server.
        requests: Sent in turn.
        per_s: Arrivals a second, a Poisson process.
        seconds: How long.
        seed: Of the arrivals.
        meanwhile: Runs once in a thread while the load lasts.
    """

    async def run() -> Load:
        load, idle = Load(), list[_Connection]()
        rng = np.random.default_rng(seed)
        gaps = rng.exponential(1.0 / per_s, int(per_s * seconds * 1.2) + 100)
        began = time.perf_counter() + 0.1
        aside = (
            None
            if meanwhile is None
            else asyncio.create_task(asyncio.to_thread(meanwhile))
        )

        async def one(request: bytes, due: float) -> None:
            connection = None
            while idle and connection is None:
                last = idle.pop()
                connection = last if last.open else None
            if connection is None:
                try:
                    connection = await _connect(url)
                except OSError as fault:
                    late = (time.perf_counter() - due) * 1e3
                    load.fail(due - began, "lost", late, repr(fault))
                    return
            await _once(connection, request, load, began, due)
            if connection.open:
                idle.append(connection)

        tasks: set[asyncio.Task[None]] = set()
        for number, offset in enumerate(np.cumsum(gaps)):
            if offset > seconds:
                break
            due = began + float(offset)
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(one(requests[number % len(requests)], due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        load.seconds = seconds
        with contextlib.suppress(ValueError):
            await asyncio.wait(set(tasks))
        for connection in idle:
            connection.close()
        if aside is not None:
            await aside
        return load

    with _short_collections():
        return asyncio.run(run())


@contextlib.contextmanager
def _short_collections() -> Iterator[None]:
    """Leave what is there already out of garbage collections.

    To look through a bundle and its libraries takes tenths of a second, in which no
    request is sent, and then all that were due: the server would seem to be late.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


_TIMEOUT_S = 30.0
_MAX_FAILURES = 10_000
_TEXT = 300
