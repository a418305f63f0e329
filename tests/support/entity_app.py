"""Apps with a store of users and items, asked without a socket."""

import asyncio
import contextlib
import threading

import httpx
from metric_series import series

from serving.app import create_app
from serving.settings import ServingSettings

__all__ = [
    "ARROW",
    "AT",
    "BOTH",
    "LINES",
    "SLOW",
    "USER",
    "app_with",
    "outcomes_of",
    "rank",
    "scores",
    "told",
]

ARROW = "application/vnd.apache.arrow.stream"
LINES = "application/x-ndjson"
BOTH = {"looked_up": ["users", "items"]}
# Shapes are checked in tests, which takes a multiple of the time.
SLOW = {"timeout_s": 5.0}
AT = {"ts": 1_700_000_490_000}


class Client:
    """Asks an app without a socket; its loop runs in a thread, as a server's does."""

    def __init__(self, app):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self._client = httpx.AsyncClient(
            transport=transport, base_url="http://test", timeout=60
        )

    def request(self, method, path, **options):
        asked = self._client.request(method, path, **options)
        return asyncio.run_coroutine_threadsafe(asked, self._loop).result(60)

    def get(self, path):
        return self.request("GET", path)

    def put(self, path, **options):
        return self.request("PUT", path, **options)

    def post(self, path, **options):
        return self.request("POST", path, **options)

    def delete(self, path):
        return self.request("DELETE", path)

    def close(self):
        closed = asyncio.run_coroutine_threadsafe(self._client.aclose(), self._loop)
        closed.result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()


@contextlib.contextmanager
def app_with(ranker, **entities):
    """A client of an app, and its lookup."""
    settings = ServingSettings.of_bundle(
        "unused",
        entities=entities,
        overload={"max_wait_s": 60, "default_timeout_s": 60},
    )
    app = create_app(ranker, settings)
    service = app.state.service
    service.warm_up()
    with (
        contextlib.closing(service.entities),
        contextlib.closing(Client(app)) as client,
    ):
        yield client, service.entities


def rank(client, user="nobody", items=(101, 105, 110), **more):
    """The answer; ``user`` is an id, or what a request says of one."""
    who = {"id": user} if isinstance(user, str) else user
    ask = {"user": who, "item_ids": list(items), "context": AT} | more
    answer = client.post("/v1/rank", json=ask)
    assert answer.status_code == 200, answer.text
    return answer.json()


def scores(answer):
    """By item."""
    return {item["id"]: item["score"] for item in answer["items"]}


def told(client):
    """The app's metrics, by name and labels."""
    return series(client.get("/metrics").text)


def outcomes_of(client):
    """Lookups by what became of them."""
    return {
        key[1][1]: number
        for key, number in told(client).items()
        if key[0] == "recsys_entity_lookups_total"
    }


USER = {
    "features": {"gender": "f", "age": 33},
    "histories": {"clicks": {"time": [1_700_000_100_000], "item_id": [105]}},
}
