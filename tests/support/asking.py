"""Asking a server over a socket, or its app without one."""

import asyncio

import httpx
import pytest

TOLERANCE = 1e-6


USER, ITEMS, AT = "u3", [101, 105, 117, 102, 130], 1_700_000_400_000


def ask(client, **changes):
    request = {"user": {"id": USER}, "item_ids": ITEMS, "context": {"ts": AT}}
    response = client.post("/v1/rank", json=request | changes)
    assert response.status_code == 200, response.text
    return response.json()


def call(app, method, path, **how):
    """Ask an app without a socket."""

    async def one_request():
        # The app is to answer even when it also raises, for servers to log.
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://test"
        ) as client:
            return await client.request(method, path, **how)

    return asyncio.run(one_request())


def by_id(answer):
    return {item["id"]: item for item in answer["items"]}


def assert_same_items(left, right):
    left, right = by_id(left), by_id(right)
    assert left.keys() == right.keys()
    for name, item in left.items():
        assert item["score"] == pytest.approx(right[name]["score"], abs=TOLERANCE)
        assert item["predictions"] == pytest.approx(
            right[name]["predictions"], abs=TOLERANCE
        )
