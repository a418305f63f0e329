"""Servers to put under load, and what they are asked."""

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from serving_load import request_of

from recsys_mtl.export.bundle import load_bundle
from recsys_mtl.rank.ranker import Ranker
from recsys_mtl.rank.request import RankRequest, UserInput
from serving.port import free_ports
from serving.process import ServerProcess

__all__ = ["Asks", "default_server", "memory_mb", "put_models", "server_of"]

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


@contextlib.contextmanager
def server_of(folder: Path, **changes: Any) -> Iterator[ServerProcess]:
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
def default_server(folder: Path) -> Iterator[str]:
    """Start the server of ``serving_default.py``; gives its address."""
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


def put_models(url: str, folder: Path) -> None:
    """Let a server answer with another bundle."""
    models = {"models": [{"bundle": str(folder.resolve())}]}
    answer = httpx.put(f"{url}/v1/models", json=models, timeout=300, trust_env=False)
    assert answer.is_success, (answer.status_code, answer.text)


def memory_mb(server: ServerProcess) -> int:
    """Memory of all replicas that nobody shares with them."""
    total = 0
    for process in server.replicas():
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().uss
    return round(total / 1e6)
