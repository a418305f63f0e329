"""The size of what comes before a body, over a socket."""

import os
import socket

import psutil
import pytest
from http_server import running

from serving.protocol import MAX_HEAD_BYTES
from serving.settings import ServingSettings

START = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n"
POST = b"POST /v1/rank HTTP/1.1\r\nhost: x\r\n"
BODY = b'{"user": {"id": "u3"}, "item_ids": [101, 105], "context": {"ts": 1}}'
MEGABYTE = 1024 * 1024


@pytest.fixture(scope="module")
def server(tiny):
    settings = ServingSettings.of_bundle(
        tiny.bundle,
        server={"engine": "uvicorn", "port": 0},
        overload={"default_timeout_s": 60, "max_wait_s": 60},
    )
    with running(settings) as client:
        yield client


@pytest.fixture
def connection(server):
    host, port = str(server.base_url).removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        yield connection


def received(connection):
    """All that comes until the server ends the connection."""
    got = b""
    try:
        while part := connection.recv(65_536):
            got += part
    except ConnectionError:
        pass
    return got


def flood(connection, part, *, megabytes):
    """Send without an end; how much got through before the server hung up."""
    sent, part = 0, part * (MEGABYTE // len(part))
    try:
        while sent < megabytes * MEGABYTE:
            connection.sendall(part)
            sent += len(part)
    except ConnectionError:
        pass
    return sent


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


@pytest.mark.parametrize(
    ("begin", "part"),
    [
        (START, b"x-a: " + b"a" * 1_000_000 + b"\r\n"),
        (START, b"x-a: b\r\n"),
        (START + b"x-a: ", b"a"),
        (START, b"x"),
        (b"GET /", b"a"),
        (POST + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", b"x-a: b\r\n"),
        (POST + b"transfer-encoding: chunked\r\n\r\n2;a=", b"b"),
    ],
    ids=["headers", "short headers", "value", "name", "target", "trailers", "chunk"],
)
def test_what_never_ends_is_cut_off_before_it_takes_memory(
    server, connection, begin, part
):
    before = psutil.Process(os.getpid()).memory_info().rss
    connection.sendall(begin)
    # What the sockets themselves hold is sent, too.
    assert flood(connection, part, megabytes=100) < 20 * MEGABYTE
    received(connection)
    assert psutil.Process(os.getpid()).memory_info().rss < before + 20 * MEGABYTE
    assert server.get("/v2/health/live").status_code == 200


def test_a_head_that_is_too_large_gets_431(connection):
    connection.sendall(START + b"x-a: " + b"a" * 70_000 + b"\r\n\r\n")
    assert received(connection).startswith(b"HTTP/1.1 431 ")


def test_the_bound_is_met_to_the_byte(server):
    path = "/v2/health/live"
    plain = server.build_request("GET", path)
    size = len(path) + sum(len(n) + len(v) + 4 for n, v in plain.headers.raw)
    room = MAX_HEAD_BYTES - size - len("x-a") - 4
    for spare, status in ((room, 200), (room + 1, 431)):
        answer = server.get(path, headers={"x-a": "a" * spare})
        assert answer.status_code == status


def test_bodies_and_other_requests_count_for_nothing(connection):
    header = b"x-a: " + b"a" * 40_000 + b"\r\n"
    plain = POST + header + b"content-length: %d\r\n\r\n" % (MEGABYTE + len(BODY))
    connection.sendall(plain + b" " * MEGABYTE + BODY)
    chunked = POST + header + b"transfer-encoding: chunked\r\n\r\n"
    spaces = chunk(b" ") * 50_000
    connection.sendall(chunked + spaces + chunk(BODY) + chunk(b""))
    # Pipelined: they arrive together, each within the bound.
    connection.sendall((START + header + b"\r\n") * 4)
    connection.sendall(START + b"connection: close\r\n\r\n")
    got = received(connection)
    assert got.count(b"HTTP/1.1 200 ") == 7, got[:2_000]


def test_an_answer_under_way_is_not_mixed_up_with_a_refusal(connection):
    body = b"content-length: %d\r\n\r\n" % len(BODY) + BODY
    large = START + b"x-a: " + b"a" * 70_000 + b"\r\n\r\n"
    connection.sendall(POST + body + large)
    assert not received(connection).startswith(b"HTTP/1.1 431 ")
