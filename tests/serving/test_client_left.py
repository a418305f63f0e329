"""A client that leaves while its request waits, over a socket."""

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from asking import AT, USER
from http_server import running
from metric_series import series

from recsys_mtl.rank.ranker import Ranker
from serving.settings import ServingSettings

RANK = {"user": {"id": USER}, "item_ids": [101, 105], "context": {"ts": AT}}
SCORE = {"rows": [{"user_id": USER, "item_id": 101, "ts": AT}]}
INFER = {
    "inputs": [{"name": "item_id", "shape": [1], "datatype": "INT64", "data": [101]}]
}
PATHS = {
    "/v1/rank": RANK,
    "/v1/score": SCORE,
    "/v2/models/tiny/infer": INFER,
}


class HeldModel:
    """The real model, which takes its time: it scores when it is let go.

    Attributes:
        scored: Ids of the requests that came to it, in their order.
    """

    def __init__(self, respond):
        self.scored = []
        self.holds = threading.Event()
        self.free = threading.Event()
        self._respond = respond

    def respond(self, ranker, requests, **options):
        ids = [request.request_id for request in requests]
        self.scored += ids
        if "first" in ids:
            self.holds.set()
            assert self.free.wait(60)
        return self._respond(ranker, requests, **options)


@pytest.fixture(scope="module")
def server(tiny):
    settings = ServingSettings.of_bundle(
        tiny.bundle,
        server={"engine": "uvicorn", "port": 0},
        batching={"inline_s": 0},  # a held model holds its thread alone
        overload={"default_timeout_s": 60, "max_wait_s": 60},
    )
    with running(settings) as client:
        yield client


@pytest.fixture
def held(monkeypatch, server):
    model = HeldModel(Ranker.respond)

    # A function, which becomes a method; ``model.respond`` itself would not.
    def respond(ranker, requests, **options):
        return model.respond(ranker, requests, **options)

    monkeypatch.setattr(Ranker, "respond", respond)
    yield model
    model.free.set()


def named(body, name):
    return body | ({"id": name} if "inputs" in body else {"request_id": name})


def told(client, name, **labels):
    """The sum of all series with these labels."""
    wanted = set(labels.items())
    metrics = series(client.get("/metrics").text)
    return sum(
        n for key, n in metrics.items() if key[0] == name and wanted <= {*key[1:]}
    )


def soon(holds):
    """Wait until a condition holds, and fail if it never does."""
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def send(client, path, body):
    """Send a request, and leave the connection open."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(content)}\r\n\r\n"
    host, port = str(client.base_url).removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.sendall(head.encode() + content)
    return connection


@pytest.mark.parametrize(("path", "body"), PATHS.items(), ids=PATHS)
def test_who_leaves_while_waiting_costs_the_model_nothing(server, held, path, body):
    route = path.replace("tiny", "{name}")
    before = {
        name: told(server, name, route=route)
        for name in ("recsys_clients_left_total", "recsys_shed_total")
    }
    batches = told(server, "recsys_batch_requests_sum")
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(server.post, path, json=named(body, "first"))
        assert held.holds.wait(30)
        with send(server, path, named(body, "leaves")):
            soon(lambda: told(server, "recsys_queue_requests") == 1)
        # The model is still busy with the first one: nothing but leaving ends the wait.
        soon(lambda: told(server, "recsys_queue_requests") == 0)
        left = before["recsys_clients_left_total"] + 1
        soon(lambda: told(server, "recsys_clients_left_total", route=route) == left)
        assert told(server, "recsys_queue_rows") == 0
        stays = threads.submit(server.post, path, json=named(body, "stays"))
        soon(lambda: told(server, "recsys_queue_requests") == 1)
        held.free.set()
        assert (first.result(60).status_code, stays.result(60).status_code) == (
            200,
            200,
        )
    assert held.scored == ["first", "stays"]
    soon(lambda: told(server, "recsys_batch_requests_sum") == batches + 2)
    assert told(server, "recsys_requests_total", route=route, status="499") == 1
    assert told(server, "recsys_shed_total", route=route) == before["recsys_shed_total"]
