"""Who gets in: keys, scopes, rates, over real sockets."""

import asyncio
import json
import socket
import time
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256

import httpx
import pytest
from http_server import running
from hypothesis import given
from hypothesis import strategies as st

from recsys_mtl.errors import ConfigError
from serving.app import create_app
from serving.keys import ApiKey, KeyRing, new_key, read_keys
from serving.rate import RateLimit
from serving.settings import ServingSettings

BODY = {"user": {"id": "u3"}, "item_ids": [101, 105], "context": {"ts": 1}}


def ring_of(folder, *scopes, **entry):
    """Write a file with a key a scope, and give them."""
    keys, lines = {}, []
    for scope in scopes:
        keys[scope], line = new_key(scope, [scope], entry.get("not_after"))
        lines.append(line)
    path = folder / "keys.yaml"
    path.write_text("\n".join(lines))
    return path, keys


def bearer(key):
    return {"authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def guarded(tiny, tmp_path_factory):
    """A server with a key of each scope."""
    path, keys = ring_of(tmp_path_factory.mktemp("keys"), "rank", "feedback", "admin")
    settings = ServingSettings.of_bundle(
        tiny.bundle,
        server={"engine": "uvicorn", "port": 0},
        auth={"keys_file": path},
        overload={"default_timeout_s": 60, "max_wait_s": 60},
    )
    with running(settings) as client:
        yield client, keys


@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
def test_a_key_of_the_scope_gets_in(guarded, header):
    client, keys = guarded
    given = bearer(keys["rank"]) if header == "authorization" else {}
    response = client.post(
        "/v1/rank", json=BODY, headers=given or {header: keys["rank"]}
    )
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/rank"),
        ("POST", "/v1/score"),
        ("GET", "/v1/models"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/nothing"),
    ],
)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer("wrong"),
        {"authorization": "Bearer"},
        {"authorization": "Basic eA=="},
        bearer("é"),
    ],
)
def test_nobody_gets_in_without_a_key(guarded, method, path, headers):
    client, _ = guarded
    headers = {name: value.encode() for name, value in headers.items()}
    response = client.request(method, path, headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["error"]["code"] == "unauthorized"


def test_a_key_of_another_scope_is_told_which_it_needs(guarded):
    client, keys = guarded
    for scope in ("feedback", "admin"):
        response = client.post("/v1/rank", json=BODY, headers=bearer(keys[scope]))
        assert response.status_code == 403
        assert "'rank'" in response.json()["error"]["message"]
    for path in ("/v1/entities/user/7", "/v1/whatever/comes"):
        response = client.put(path, headers=bearer(keys["rank"]))
        assert response.status_code == 403
        assert "'admin'" in response.json()["error"]["message"]


def test_health_needs_no_key(guarded):
    client, _ = guarded
    for path in ("/healthz", "/readyz"):
        assert client.get(path).status_code == 200


def test_two_keys_are_good_while_they_are_changed(guarded, tmp_path):
    path, keys = ring_of(tmp_path, "rank")
    ring = KeyRing(path)
    new, line = new_key("next", ["rank"])
    path.write_text(path.read_text() + "\n" + line)
    ring._checked = -1e9  # as if a second had gone by
    assert ring.find(new).name == "next"
    assert ring.find(keys["rank"]).name == "rank"
    path.write_text(line)
    ring._checked = -1e9
    assert ring.find(keys["rank"]) is None
    assert ring.find(new).name == "next"


def test_a_mounted_file_is_changed_by_changing_a_link(tmp_path):
    versions = {}
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        versions[version] = ring_of(tmp_path / version, "rank")[1]["rank"]
    link = tmp_path / "now"
    link.symlink_to("1")
    ring = KeyRing(link / "keys.yaml")
    assert ring.find(versions["1"])
    (tmp_path / "other").symlink_to("2")
    (tmp_path / "other").replace(link)
    ring._checked = -1e9
    assert ring.find(versions["2"])
    assert ring.find(versions["1"]) is None


def test_a_slip_of_the_pen_shuts_nobody_out(tmp_path, caplog):
    path, keys = ring_of(tmp_path, "rank")
    ring = KeyRing(path)
    path.write_text("- {name: x, sha256: 12, scopes: [rnk]}")
    ring._checked = -1e9
    assert ring.find(keys["rank"])
    assert "stay as they were" in caplog.text


def test_a_key_ends_after_its_last_day():
    def good(not_after, now):
        entry = {"name": "x", "sha256": "0" * 64, "scopes": ["rank"]}
        return ApiKey(**entry, not_after=not_after).is_good(now)

    evening = datetime(2026, 9, 30, 23, 59, tzinfo=UTC)
    for day in (date(2026, 9, 30), "2026-09-30"):
        assert good(day, evening)
        assert not good(day, evening + timedelta(minutes=2))
    assert good("2026-09-30T23:59:30Z", evening)
    assert not good("2026-09-30T12:00:00", evening)
    assert good(None, evening)


def test_an_expired_key_is_refused(tmp_path):
    path, keys = ring_of(tmp_path, "rank", not_after=date(2020, 1, 1))
    assert KeyRing(path).find(keys["rank"]) is None


FAULTS = {
    "{": "no YAML",
    "name: x": "list of entries",
    "- {name: x, scopes: [rank]}": r"\[0\]\.sha256",
    "- {name: x, sha256: secret, scopes: [rank]}": r"\[0\]\.sha256",
    f"- {{name: x, sha256: '{'0' * 64}', scopes: [rnk]}}": r"\[0\]\.scopes",
    f"- {{name: x, sha256: '{'0' * 64}', scopes: []}}": r"\[0\]\.scopes",
    "\n".join([f"- {{name: x, sha256: '{'0' * 64}', scopes: [rank]}}"] * 2): "'x'",
}


@pytest.mark.parametrize(("text", "place"), FAULTS.items())
def test_a_wrong_keys_file_is_told_by_place_and_not_by_content(tmp_path, text, place):
    path = tmp_path / "keys.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=place) as fault:
        read_keys(path)
    assert "secret" not in str(fault.value)


def test_a_keys_file_that_is_not_there_stops_the_start(ranker, tmp_path):
    settings = ServingSettings(auth={"keys_file": tmp_path / "none.yaml"})
    with pytest.raises(ConfigError, match="cannot be read"):
        asyncio.run(ask(create_app({"m": ranker}, settings), "/healthz"))


def test_a_new_key_is_stored_as_its_hash_alone():
    key, line = new_key("x", ["rank", "admin"])
    (entry,) = json.loads(f"[{line.removeprefix('- ')}]")
    assert entry["sha256"] == sha256(key.encode()).hexdigest()
    assert key not in line
    assert len({new_key("x", ["rank"])[0] for _ in range(100)}) == 100


async def ask(app, path, **how):
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
        return await client.get(path, **how)


def test_pages_may_be_public(ranker, tmp_path):
    path, _ = ring_of(tmp_path, "rank")
    auth = {"keys_file": path, "public": ["docs"]}
    app = create_app({"m": ranker}, ServingSettings(auth=auth))
    assert asyncio.run(ask(app, "/openapi.json")).status_code == 200
    assert asyncio.run(ask(app, "/metrics")).status_code == 401
    assert asyncio.run(ask(app, "/v1/models")).status_code == 401


def test_each_key_has_a_rate_of_its_own(ranker, tmp_path):
    path, keys = ring_of(tmp_path, "rank", "admin")
    settings = ServingSettings(
        auth={"keys_file": path}, overload={"requests_per_s": 0.1, "burst": 2}
    )
    app = create_app({"m": ranker}, settings)

    async def main():
        for scope in ("rank", "admin"):
            told = [
                await ask(app, "/v1/models", headers=bearer(keys[scope]))
                for _ in range(3)
            ]
            assert [t.status_code for t in told] == [200, 200, 429]
            assert told[2].json()["error"]["code"] == "rate_limited"
            assert 9 <= int(told[2].headers["retry-after"]) <= 11
        assert (await ask(app, "/healthz")).status_code == 200

    asyncio.run(main())


@given(
    gaps=st.lists(st.floats(0, 5), min_size=1, max_size=60),
    per_s=st.floats(0.1, 10),
    burst=st.integers(1, 10),
)
def test_nobody_gets_more_than_the_rate_and_who_waits_gets_in(gaps, per_s, burst):
    limit, now, let_in = RateLimit(per_s, burst), 0.0, []
    for gap in gaps:
        now += gap
        wait_s = limit.take("x", now=now)
        if not wait_s:
            let_in.append(now)
        else:
            assert wait_s <= 1 / per_s + 1e-9
    for i, start in enumerate(let_in):
        for j in range(i, len(let_in)):
            most = burst + per_s * (let_in[j] - start)
            assert j - i + 1 <= most + 1e-6
    assert limit.take("y", now=now) == 0.0


def test_memory_of_callers_is_bounded():
    limit = RateLimit(1, 1)
    for n in range(20_000):
        limit.take(str(n), now=0.0)
    assert len(limit._buckets) == 10_000


def stalled(url, *parts, pause=0.25):
    """Send parts slowly; give what comes back, and after how long it ended."""
    host, port = url.removeprefix("http://").split(":")
    started = time.monotonic()
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        for part in parts:
            try:
                connection.sendall(part)
            except OSError:
                break
            time.sleep(pause)
        got = b""
        try:
            while part := connection.recv(4_096):
                got += part
        except OSError:
            pass
    return got, time.monotonic() - started


@pytest.fixture(scope="module")
def hurried(tiny):
    """A server without patience for slow senders."""
    settings = ServingSettings.of_bundle(
        tiny.bundle,
        server={"engine": "uvicorn", "port": 0},
        limits={"header_timeout_s": 0.5, "body_timeout_s": 0.5},
        overload={
            "default_timeout_s": 60,
            "max_wait_s": 60,
            "max_body_bytes_held": 1_000,
        },
    )
    with running(settings) as client:
        yield client


def test_headers_that_never_end_are_cut_off(hurried):
    url = str(hurried.base_url)
    drip = [b"POST /v1/rank HTTP/1.1\r\n", *[b"x-a: b\r\n"] * 12]
    for parts in ([], [b"\r\n"] * 12, drip):
        got, seconds = stalled(url, *parts)
        assert got == b""
        assert seconds < 5
    assert hurried.post("/v1/rank", json=BODY).status_code == 200


def test_a_body_that_never_ends_gets_408(hurried):
    head = b"POST /v1/rank HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n\r\n"
    got, seconds = stalled(str(hurried.base_url), head, b"{", b" ", b" ", b" ")
    assert got.startswith(b"HTTP/1.1 408")
    assert b"too_slow" in got
    assert seconds < 5


def test_bodies_held_at_once_are_bounded(hurried):
    response = hurried.post("/v1/rank", content=b" " * 1_001)
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) >= 1
    # What was held is given back.
    for _ in range(3):
        assert hurried.post("/v1/rank", json=BODY).status_code == 200
