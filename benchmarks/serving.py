"""A server under load: latency, throughput, overload, other models, and a long day.

    recsys-mtl run kuairand --output runs/kuairand
    recsys-mtl run kuairand --output runs/other --set train.seed=1
    python benchmarks/serving.py runs/kuairand/bundle --other runs/other/bundle
    python benchmarks/serving.py runs/kuairand/bundle --other runs/other/bundle \
        --parts soak --minutes 10

The load generator (``serving_load.py``) is on the machine that it loads. Users and
candidates are drawn from the bundle, requests name ids alone. Prints a line a part:

``latency``     one connection, 500 candidates: HTTP beside the ranker called in this
                process, in turns
``throughput``  16 connections, 500 candidates: replica under Ray Serve and HAProxy, the
                same app under uvicorn, and the same model under a deployment of Ray
                Serve's defaults with FastAPI, pydantic and JSON rows; in turns
``overload``    arrivals at 0.8 and then at 3 times what 16 connections get through
``swap``        500 requests a second of 20 candidates while models change and back
``soak``        two replicas at 0.7 of what they get through, features in Redis; models
                change each minute, a replica is killed twice, Redis is away for 30 s
"""

import argparse
import contextlib
import itertools
import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from serving_load import Load, closed_loop, open_loop, request_of

# The package of this file's name is meant from here on.
sys.path.remove(str(Path(__file__).parent))
from recsys_mtl.export.bundle import load_bundle
from recsys_mtl.rank.ranker import Ranker
from recsys_mtl.rank.request import RankRequest, UserInput
from serving.observability.scrape import Scrape
from serving.port import free_ports
from serving.process import ServerProcess

_NUM_REQUESTS = 64


class Asks:
    """Requests of users and candidates that a bundle has."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ranker = Ranker(load_bundle(folder))
        store = self.ranker.bundle.store
        assert store.users is not None, "the bundle has no users"
        assert store.items is not None, "the bundle has no items"
        self._items = store.items
        self._item_ids = store.items.rows.column(store.items.key).to_pylist()
        self._user_ids = store.users.rows.column(store.users.key).to_pylist()

    def typed(self, candidates: int) -> list[RankRequest]:
        """Draw requests."""
        rng = np.random.default_rng(0)
        return [
            RankRequest(
                user=UserInput(id=self._user_ids[rng.integers(len(self._user_ids))]),
                item_ids=[
                    self._item_ids[i]
                    for i in rng.integers(len(self._item_ids), size=candidates)
                ],
                top_k=20,
            )
            for _ in range(_NUM_REQUESTS)
        ]

    def http(self, url: str, candidates: int) -> list[bytes]:
        """Write the same for the wire."""
        return [
            request_of(url, "/v1/rank", _body(request))
            for request in self.typed(candidates)
        ]

    def rows(self, url: str, candidates: int) -> list[bytes]:
        """Write the same as rows, with all that is known of each item."""
        keys = self.ranker.bundle.recipe.data.keys
        assert keys.user is not None
        table, place = self._items.rows, {k: i for i, k in enumerate(self._item_ids)}
        written = []
        for request in self.typed(candidates):
            found = table.take([place[i] for i in request.item_ids or ()]).to_pylist()
            rows = [{keys.user: request.user.id, **row} for row in found]
            body = json.dumps({"rows": rows}, default=str).encode()
            written.append(request_of(url, "/score", body))
        return written


def _body(request: RankRequest) -> bytes:
    told = {"user": {"id": request.user.id}, "item_ids": request.item_ids, "top_k": 20}
    return json.dumps(told).encode()


def latency(asks: Asks, options: argparse.Namespace) -> dict[str, Any]:
    """One connection beside calls in this process."""
    typed, bare, http = asks.typed(500), list[float](), Load()
    with _server(asks.folder) as server:
        requests = asks.http(server.url, 500)
        closed_loop(server.url, requests, connections=1, seconds=3)
        for _ in range(options.rounds):
            for request in typed * 2:
                start = time.perf_counter()
                asks.ranker.respond([request], now_us=int(time.time() * 1e6))
                bare.append((time.perf_counter() - start) * 1e3)
            part = closed_loop(
                server.url, requests, connections=1, seconds=options.seconds
            )
            http.ms += part.ms
            http.due += part.due
    p50, p99, own = http.quantile(0.5), http.quantile(0.99), statistics.median(bare)
    return {
        "in_process_p50_ms": round(own, 2),
        "p50_ms": p50,
        "p99_ms": p99,
        "bound_p50_ms": round(1.5 * own + 1, 2),
        "p99_over_p50": round(p99 / p50, 2),
    }


def throughput(asks: Asks, options: argparse.Namespace) -> dict[str, Any]:
    """Requests a second of three servers, in turns."""
    per_s: dict[str, list[float]] = {"ray": [], "uvicorn": [], "default": []}
    with contextlib.ExitStack() as stack:
        ray = stack.enter_context(_server(asks.folder)).url
        uvicorn = stack.enter_context(_server(asks.folder, engine="uvicorn")).url
        default = stack.enter_context(_default_server(asks.folder))
        targets = {
            "ray": (ray, asks.http(ray, 500)),
            "uvicorn": (uvicorn, asks.http(uvicorn, 500)),
            "default": (default, asks.rows(default, 500)),
        }
        for number in range(options.rounds + 1):
            for name, (url, requests) in targets.items():
                load = closed_loop(
                    url, requests, connections=16, seconds=options.seconds
                )
                assert set(load.outcomes) == {"200"}, (name, load.outcomes)
                if number:
                    per_s[name].append(load.per_s)
    middle = {name: statistics.median(values) for name, values in per_s.items()}
    return {
        "requests_per_s": {name: round(value, 1) for name, value in middle.items()},
        "ray_over_uvicorn": round(middle["ray"] / middle["uvicorn"], 2),
        "ray_over_default": round(middle["ray"] / middle["default"], 2),
    }


def overload(asks: Asks, options: argparse.Namespace) -> dict[str, Any]:
    """Far more than can be done."""
    with _server(asks.folder) as server:
        requests = asks.http(server.url, 500)
        closed_loop(server.url, requests, connections=16, seconds=3)
        capacity = closed_loop(
            server.url, requests, connections=16, seconds=options.seconds
        ).per_s
        seconds = 2 * options.seconds
        usual = open_loop(server.url, requests, per_s=0.8 * capacity, seconds=seconds)
        before = _memory_mb(server)
        over = open_loop(server.url, requests, per_s=3 * capacity, seconds=seconds)
        after = open_loop(server.url, requests, per_s=0.8 * capacity, seconds=10)
        memory = _memory_mb(server)
    p99 = usual.quantile(0.99)
    calm = [after.quantile(0.95, second, second + 1) <= 2 * p99 for second in range(10)]
    return {
        "capacity_per_s": round(capacity, 1),
        "usual": {"p99_ms": p99, "outcomes": usual.outcomes},
        "over": {"p99_ms": over.quantile(0.99), "outcomes": over.outcomes},
        "served_of_capacity": round(over.per_s / capacity, 2),
        "p99_over_usual": round(over.quantile(0.99) / p99, 2),
        "recovered_after_s": next(
            (second for second in range(10) if all(calm[second:])), None
        ),
        "memory_mb": [before, memory],
    }


def swap(asks: Asks, options: argparse.Namespace) -> dict[str, Any]:
    """Models change while requests arrive."""
    other = Ranker(load_bundle(options.other))
    first, second = asks.ranker.card.version, other.card.version
    assert first != second, "--other has the same model"
    with _server(asks.folder, replicas=options.replicas) as server:
        requests = asks.http(server.url, 20)
        open_loop(server.url, requests, per_s=options.per_s, seconds=5)
        usual = open_loop(
            server.url, requests, per_s=options.per_s, seconds=options.seconds
        )
        told = {"usual": {"p99_ms": usual.quantile(0.99), "outcomes": usual.outcomes}}
        for name, folder, old, new in (
            ("swap", options.other, first, second),
            ("back", asks.folder, second, first),
        ):
            at: list[float] = []

            def put(folder: Path = folder, at: list[float] = at) -> None:
                began = time.perf_counter()
                time.sleep(2)
                at.append(time.perf_counter() - began)
                _put(server.url, folder)
                at.append(time.perf_counter() - began)

            load = open_loop(
                server.url,
                requests,
                per_s=options.per_s,
                seconds=2 * options.seconds,
                meanwhile=put,
            )
            start, end = at
            wrong = sum(
                version not in (old, new)
                or (due < start and version != old)
                or (due > end + 0.2 and version != new)
                for due, version in zip(load.due, load.versions, strict=True)
            )
            p99 = load.quantile(0.99, start, end + 0.2)
            told[name] = {
                "took_s": round(end - start, 2),
                "p99_ms": p99,
                "p99_over_usual": round(p99 / usual.quantile(0.99), 2),
                "outcomes": load.outcomes,
                "wrong_versions": wrong,
            }
    return told | {"per_s": options.per_s, "replicas": options.replicas}


def soak(asks: Asks, options: argparse.Namespace) -> dict[str, Any]:
    """Everything that happens to a server on a long day."""
    seconds = options.minutes * 60
    events: list[str] = []
    memory: list[int] = []
    with _redis() as (redis, redis_port):
        entities = {"kind": "redis", "url": f"redis://127.0.0.1:{redis_port}/0"}
        with _server(asks.folder, replicas=2, entities=entities) as server:
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
            _put(self._server.url, next(self._folders))

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
                memory.append(_memory_mb(self._server))


def _put(url: str, folder: Path) -> None:
    models = {"models": [{"bundle": str(folder.resolve())}]}
    answer = httpx.put(f"{url}/v1/models", json=models, timeout=300, trust_env=False)
    assert answer.is_success, (answer.status_code, answer.text)


def _kill_replica(server: ServerProcess) -> None:
    server.replicas()[0].send_signal(signal.SIGKILL)


def _memory_mb(server: ServerProcess) -> int:
    """Memory of all replicas that nobody shares with them."""
    total = 0
    for process in server.replicas():
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().uss
    return round(total / 1e6)


def _counted(url: str) -> float:
    return _sum(url, "recsys_requests_total", route="/v1/rank")


def _sum(url: str, name: str, **labels: str) -> float:
    text = httpx.get(f"{url}/metrics", timeout=30, trust_env=False).text
    return Scrape.parse(text, time.monotonic()).sum(name, **labels)


@contextlib.contextmanager
def _server(folder: Path, **changes: Any) -> Iterator[ServerProcess]:
    """Start a server with few settings of its own."""
    engine = changes.pop("engine", "ray")
    replicas = changes.pop("replicas", 1)
    settings = {"models": [{"bundle": str(folder.resolve())}], **changes}
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / "serving.yaml"
        path.write_text(json.dumps(settings))
        with ServerProcess(path, engine=engine, replicas=replicas) as server:
            yield server


@contextlib.contextmanager
def _default_server(folder: Path) -> Iterator[str]:
    (port,) = free_ports(1)
    script = Path(__file__).with_name("serving_default.py")
    command = [sys.executable, str(script), str(folder), str(port)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        while (line := process.stdout.readline()) != "ready\n":
            assert line, "the server of defaults ended"
        yield f"http://127.0.0.1:{port}"
        assert process.stdin is not None
        process.stdin.close()


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


_PARTS: dict[str, Callable[[Asks, argparse.Namespace], dict[str, Any]]] = {
    "latency": latency,
    "throughput": throughput,
    "overload": overload,
    "swap": swap,
    "soak": soak,
}


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--other", type=Path, help="bundle of the same features")
    short = [part for part in _PARTS if part != "soak"]
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=short)
    parser.add_argument("--seconds", type=float, default=10.0, help="of one load")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--per-s", type=float, default=500.0, help="while models swap")
    parser.add_argument("--replicas", type=int, default=1, help="while models swap")
    parser.add_argument("--minutes", type=float, default=10.0, help="of the soak")
    options = parser.parse_args()
    if options.other is None and {"swap", "soak"} & set(options.parts):
        parser.error("--other: the parts swap and soak need a second bundle")
    asks = Asks(options.bundle)
    for part in options.parts:
        print(json.dumps({"part": part} | _PARTS[part](asks, options)), flush=True)


if __name__ == "__main__":
    main()
