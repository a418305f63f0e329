"""A long day of a server, on a schedule that fits into any time."""

import argparse
import contextlib
import itertools
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
from serving_load import closed_loop, open_loop
from serving_target import Asks, memory_mb, put_models, server_of

from serving.observability.scrape import Scrape
from serving.port import free_ports
from serving.process import ServerProcess

__all__ = ["soak"]


def soak(asks: Asks, options: argparse.Namespace) -> dict[str, Any]:
    """Everything that happens to a server on a long day."""
    seconds = options.minutes * 60
    events: list[str] = []
    memory: list[int] = []
    with _redis() as (redis, redis_port):
        entities = {"kind": "redis", "url": f"redis://127.0.0.1:{redis_port}/0"}
        with server_of(asks.folder, replicas=2, entities=entities) as server:
            requests = asks.http(server.url, 500)
            closed_loop(server.url, requests, connections=16, seconds=5)
            capacity = closed_loop(server.url, requests, connections=16, seconds=10)
            counted = _counted(server.url)
            day = _Day(server, seconds, (options.other, asks.folder), redis)

            def run() -> None:
                day.run(events, memory)

            load = open_loop(
                server.url,
                requests,
                per_s=0.7 * capacity.per_s,
                seconds=seconds,
                meanwhile=run,
            )
            time.sleep(2)
            counted = _counted(server.url) - counted
            degraded = _sum(server.url, "recsys_degraded_total")
    return {
        "minutes": options.minutes,
        "capacity_per_s": round(capacity.per_s, 1),
        "p50_ms": load.quantile(0.5),
        "p99_ms": load.quantile(0.99),
        "outcomes": load.outcomes,
        "unexpected": [f for f in load.failures if f.outcome != "429"],
        "answers_counted_by_server": counted,
        "degraded": degraded,
        "versions": {v: load.versions.count(v) for v in sorted(set(load.versions))},
        "memory_mb_by_minute": memory,
        "events": events,
    }


class _Day:
    """What happens to the server, on a schedule that fits into its time."""

    def __init__(
        self,
        server: ServerProcess,
        seconds: float,
        folders: tuple[Path, Path],
        redis: psutil.Popen,
    ) -> None:
        self._server, self._seconds, self._redis = server, seconds, redis
        self._folders = itertools.cycle(folders)

    def run(self, events: list[str], memory: list[int]) -> None:
        def change() -> None:
            put_models(self._server.url, next(self._folders))

        def kill() -> None:
            _kill_replica(self._server)

        began = time.monotonic()
        minute = min(60.0, self._seconds / 5)
        plan: list[tuple[float, str, Callable[[], object]]] = [
            (minute * n, "models change", change)
            for n in range(1, int(self._seconds / minute))
        ]
        for share in (0.35, 0.65):
            plan.append((share * self._seconds, "a replica is killed", kill))
        away = 0.5 * self._seconds
        plan.append((away, "Redis stops", self._redis.suspend))
        plan.append((away + minute / 2, "Redis goes on", self._redis.resume))
        for due, what, happen in sorted(plan, key=lambda entry: entry[0]):
            time.sleep(max(0.0, began + due - time.monotonic()))
            start = time.monotonic()
            try:
                happen()
                told = what
            except Exception as fault:  # noqa: BLE001 - told, and the day goes on
                told = f"{what}: {fault}"
            took = time.monotonic() - start
            events.append(f"{start - began:.0f} s: {told} ({took:.1f} s)")
            if what == "models change":
                memory.append(memory_mb(self._server))


def _kill_replica(server: ServerProcess) -> None:
    server.replicas()[0].send_signal(signal.SIGKILL)


def _counted(url: str) -> float:
    return _sum(url, "recsys_requests_total", route="/v1/rank")


def _sum(url: str, name: str, **labels: str) -> float:
    text = httpx.get(f"{url}/metrics", timeout=30, trust_env=False).text
    return Scrape.parse(text, time.monotonic()).sum(name, **labels)


@contextlib.contextmanager
def _redis() -> Iterator[tuple[psutil.Popen, int]]:
    found = shutil.which("redis-server")
    assert found, "the soak needs redis-server"
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory() as work:
        process = psutil.Popen(
            [found, "--port", str(port), "--bind", "127.0.0.1", "--dir", work],
            stdout=subprocess.DEVNULL,
        )
        try:
            yield process, port
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
                process.kill()
            process.wait()
