"""Logs of the real app."""

import contextlib
import hashlib
import hmac
import json
import logging

import pytest

from recsys_mtl.errors import ConfigError
from serving.observability.log import logs_written
from serving.observability.settings import LogSettings


@pytest.fixture
def written(serving, tmp_path):
    """Ask an app whose logs go to a file; gives the app and its lines so far."""
    path = tmp_path / "log"
    with contextlib.ExitStack() as stack:

        def make(**log):
            log = {"file": path, **log}
            stack.enter_context(logs_written(LogSettings(**log)))
            return serving(log=log)

        make.lines = lambda: [
            json.loads(line) for line in path.read_text().splitlines()
        ]
        yield make


def test_a_request_is_a_line_with_its_stages(written, ranker):
    asked = written(request_rate=1.0)
    asked("POST", "/v1/rank", json={"item_ids": [101]}, headers={"x-request-id": "r-1"})
    (line,) = written.lines()
    assert line["time"].endswith("Z")
    assert {n: line[n] for n in ("level", "logger", "message")} == {
        "level": "info",
        "logger": "serving.request",
        "message": "request",
    }
    assert line["request_id"] == "r-1"
    assert (line["route"], line["status"]) == ("/v1/rank", 200)
    assert (line["model"], line["version"]) == (ranker.name, ranker.card.version)
    assert line["candidates"] == 1
    spent = line["milliseconds"]
    assert {"decode", "queue", "forward", "serialise", "total"} <= spent.keys()
    assert sum(v for n, v in spent.items() if n != "total") <= spent["total"] + 0.01


def test_without_a_key_users_are_left_out(written):
    written(request_rate=1.0).rank(user={"id": "secret-7"})
    (line,) = written.lines()
    assert "secret" not in str(line)
    assert "user" not in line


def test_users_are_keyed_hashes(written, tmp_path):
    key = tmp_path / "key"
    key.write_text("0123456789abcdef\n")
    asked = written(request_rate=1.0, id_key_file=key)
    for user in ("secret-7", "secret-7", "other"):
        asked.rank(user={"id": user})
    asked("POST", "/v1/score", json={"rows": [{"item_id": 101}], "request_id": "q"})
    text = (tmp_path / "log").read_text()
    assert "secret-7" not in text
    first, second, third, rows = (line.get("user") for line in written.lines())
    assert first == second != third
    digest = hmac.new(b"0123456789abcdef", b"secret-7", hashlib.sha256).hexdigest()
    assert first == digest[:16]
    assert rows is None  # of which each may have a user of its own


def test_sampling_goes_by_the_id_of_the_request(written):
    asked = written(request_rate=0.3)
    for _ in range(2):
        for number in range(100):
            header = {"x-request-id": f"request-{number}"}
            asked("POST", "/v1/rank", json={"item_ids": [101]}, headers=header)
    ids = [line["request_id"] for line in written.lines()]
    once = ids[: len(ids) // 2]
    assert ids == once * 2
    assert 15 < len(once) < 45


def test_without_sampling_only_failures_and_slow_requests_are_written(
    written, ranker, monkeypatch
):
    asked = written(slow_request_s=30.0)
    asked.rank()
    asked.rank(item_ids=None)
    assert written.lines() == []

    def fail(*args, **kwargs):
        raise ZeroDivisionError("why")

    monkeypatch.setattr(type(ranker), "respond", fail)
    failed = asked.rank()
    reason, request = written.lines()
    assert "ZeroDivisionError: why" in reason["exception"]
    assert (request["status"], request["code"]) == (500, "internal")
    assert request["level"] == "warning"
    assert request["request_id"] == failed.headers["x-request-id"]


def test_slow_requests_are_written_with_their_stages_and_counted(written):
    asked = written(slow_request_s=1e-6)
    asked.rank()
    (line,) = written.lines()
    assert (line["logger"], line["level"]) == ("serving.slow_request", "warning")
    assert line["milliseconds"]["forward"] > 0
    key = ("recsys_slow_requests_total", ("route", "/v1/rank"))
    assert asked.told()[key] == 1
    # Health checks and pages are none of it.
    asked("GET", "/healthz")
    assert len(written.lines()) == 1


def test_a_line_stays_one_line(tmp_path):
    path = tmp_path / "log"
    with logs_written(LogSettings(file=path)):
        logging.getLogger("serving.x").error("a\nb\u2028c")
        logging.getLogger("elsewhere").error("not ours")
    logging.getLogger("serving.x").info("too late")
    (line,) = path.read_text().splitlines()
    assert json.loads(line)["message"] == "a\nb\u2028c"


def test_files_that_cannot_be_used_are_told(tmp_path, serving):
    with (
        pytest.raises(ConfigError, match=r"log\.file cannot be written"),
        logs_written(LogSettings(file=tmp_path / "no" / "log")),
    ):
        pass
    for text, reason in ((None, "cannot be read"), ("short", "16 bytes or more")):
        key = tmp_path / "key"
        if text is not None:
            key.write_text(text)
        with pytest.raises(ConfigError, match=reason):
            serving(log={"id_key_file": key})
