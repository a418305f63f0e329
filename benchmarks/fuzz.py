"""Whatever is sent, the server answers: malformed bodies by the thousand, counted.

    python benchmarks/fuzz.py --examples 5000

A small bundle is served by uvicorn in a process of its own, so that a crash is seen.
Valid bodies in JSON, Arrow and binary tensors are meddled with a few bytes at a time;
requests are drawn from the OpenAPI document as well, and answers compared with it.

Prints one JSON line a kind: how many were sent, the statuses answered, what broke, and
the slowest answer. Ends with 1 if anything was answered with 500, was not answered, or
did not fit the document.
"""

import argparse
import collections
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import requests
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.core.failures import FailureGroup

_TESTS = Path(__file__).parent.parent / "tests"
# The root too: this folder has a program named like the package serving.
sys.path[:0] = [str(_TESTS.parent), str(_TESTS), str(_TESTS / "support")]

from conftest import RECIPE, _make  # noqa: E402
from mutation import (  # noqa: E402
    arrow_bodies,
    json_bodies,
    meddled,
    mistaken,
    tensor_bodies,
)
from openapi_fuzz import CHECKS, operations  # noqa: E402

from serving.process import ServerProcess  # noqa: E402

_TIMEOUT_S = 10.0
_KINDS = {
    "arrow": meddled(arrow_bodies()),
    "tensors": meddled(tensor_bodies()),
    "json": meddled(json_bodies()),
    "tensors, values": mistaken(tensor_bodies()),
    "json, values": mistaken(json_bodies()),
}


class Count:
    """What became of the requests of one kind."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.statuses: collections.Counter[str] = collections.Counter()
        self.broken: list[str] = []
        self.slowest_s = 0.0

    def add(self, ask: Callable[[], int], told: str) -> None:
        """Ask once; whatever is wrong is kept and nothing is raised."""
        start = time.perf_counter()
        try:
            status = ask()
        except (httpx.HTTPError, requests.RequestException, FailureGroup) as fault:
            self.statuses[type(fault).__name__] += 1
            self.broken.append(f"{told}: {fault}"[:300])
        else:
            self.statuses[str(status)] += 1
            if status == 500:
                self.broken.append(f"{told}: {status}")
        self.slowest_s = max(self.slowest_s, time.perf_counter() - start)

    def tell(self) -> None:
        """Print one line."""
        line = {
            "kind": self.kind,
            "sent": sum(self.statuses.values()),
            "statuses": dict(sorted(self.statuses.items())),
            "broken": len(self.broken),
            "first_broken": self.broken[:3],
            "slowest_ms": round(1e3 * self.slowest_s, 1),
        }
        print(json.dumps(line), flush=True)


def draw(strategy: Any, examples: int, use: Callable[[Any], None], start: int) -> None:
    """Use ``examples`` values of a strategy."""

    @seed(start)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def each(value: Any) -> None:
        use(value)

    each()


def meddle(client: httpx.Client, kind: str, examples: int, start: int) -> Count:
    """Send meddled bodies of one kind."""
    count = Count(kind)

    def send(sent: tuple[str, bytes, dict[str, str]]) -> None:
        path, body, headers = sent
        count.add(
            lambda: client.post(path, content=body, headers=headers).status_code,
            f"{path} {body!r} {headers}",
        )

    draw(_KINDS[kind], examples, send, start)
    return count


def conform(url: str, examples: int, start: int) -> Count:
    """Send what the OpenAPI document allows, and compare the answers with it."""
    count = Count("openapi")
    for operation in operations(url):

        def send(case: Any) -> None:
            def ask() -> int:
                response = case.call(timeout=_TIMEOUT_S)
                case.validate_response(response, checks=CHECKS)
                return int(response.status_code)

            count.add(ask, str(case))

        draw(operation.as_strategy(), examples, send, start)
    return count


def main() -> None:
    """Serve, send, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=1_000, help="of each kind")
    parser.add_argument("--openapi", type=int, default=50, help="of each route")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = _make(Path(folder), RECIPE).bundle
        with (
            ServerProcess(bundle, engine="uvicorn") as server,
            httpx.Client(
                base_url=server.url, timeout=_TIMEOUT_S, trust_env=False
            ) as client,
        ):
            counts = []
            for kind in _KINDS:
                counts.append(meddle(client, kind, options.examples, options.seed))
                counts[-1].tell()
            counts.append(conform(server.url, options.openapi, options.seed))
            counts[-1].tell()
            alive = client.get("/readyz").status_code == 200
    print(json.dumps({"alive_after_all": alive}))
    sys.exit(int(not alive or any(count.broken for count in counts)))


if __name__ == "__main__":
    main()
