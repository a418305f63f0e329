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
``overload``    arrivals at 0.8 and then at 3 times what 8 connections get through
``swap``        500 requests a second of 20 candidates while models change and back
``soak``        two replicas at 0.7 of what they get through, features in Redis; models
                change each minute, a replica is killed twice, Redis is away for 30 s
"""

import argparse
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before the folder of this file, which has a program named like the package serving.
sys.path.insert(0, str(Path(__file__).parents[1]))
from serving_load import Load, closed_loop, open_loop
from serving_soak import soak
from serving_target import Asks, default_server, memory_mb, put_models, server_of

from recsys_mtl.export.bundle import load_bundle
from recsys_mtl.rank.ranker import Ranker


def latency(asks: Asks, options: argparse.Namespace) -> dict[str, Any]:
    """One connection beside calls in this process."""
    typed, bare, http = asks.typed(500), list[float](), Load()
    with server_of(asks.folder) as server:
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
        patient = {"overload": {"max_wait_s": 5.0}}
        ray = stack.enter_context(server_of(asks.folder, **patient)).url
        uvicorn = stack.enter_context(
            server_of(asks.folder, engine="uvicorn", **patient)
        ).url
        default = stack.enter_context(default_server(asks.folder))
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
    changes = {} if options.max_wait is None else {"max_wait_s": options.max_wait}
    with server_of(asks.folder, overload=changes) as server:
        requests = asks.http(server.url, 500)
        closed_loop(server.url, requests, connections=8, seconds=3)
        capacity = closed_loop(
            server.url, requests, connections=8, seconds=options.seconds
        ).per_s
        seconds = 2 * options.seconds
        usual = open_loop(server.url, requests, per_s=0.8 * capacity, seconds=seconds)
        before = memory_mb(server)
        over = open_loop(server.url, requests, per_s=3 * capacity, seconds=seconds)
        after = open_loop(server.url, requests, per_s=0.8 * capacity, seconds=10)
        memory = memory_mb(server)
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
    with server_of(asks.folder, replicas=options.replicas) as server:
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
                put_models(server.url, folder)
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
                "failed_meanwhile": sum(
                    start <= f.due < end + 0.2 for f in load.failures
                ),
                "wrong_versions": wrong,
            }
    return told | {"per_s": options.per_s, "replicas": options.replicas}


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
    parser.add_argument("--max-wait", type=float, help="overload.max_wait_s, if other")
    parser.add_argument("--minutes", type=float, default=10.0, help="of the soak")
    options = parser.parse_args()
    if options.other is None and {"swap", "soak"} & set(options.parts):
        parser.error("--other: the parts swap and soak need a second bundle")
    asks = Asks(options.bundle)
    for part in options.parts:
        print(json.dumps({"part": part} | _PARTS[part](asks, options)), flush=True)


if __name__ == "__main__":
    main()
