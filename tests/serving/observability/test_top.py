"""The live view, of scrapes and of real servers."""

import io
import os
import subprocess
import sys

import httpx
import numpy as np
import pytest
import yaml
from rich.console import Console

from recsys_mtl import __version__
from recsys_mtl.errors import DataError
from serving.observability.drift import stability_index
from serving.observability.scrape import Scrape, quantile
from serving.observability.top import frame
from serving.process import ServerProcess


def drawn(*scrapes):
    first, before, now = scrapes
    out = io.StringIO()
    Console(file=out, width=160).print(frame("http://x", first, before, now))
    return out.getvalue()


def scrape(asked, at):
    return Scrape.parse(asked("GET", "/metrics").text, at)


def row(text, first):
    lines = [line.strip() for line in text.splitlines()]
    # Thousands have commas.
    (found,) = [
        line.replace(",", "").split() for line in lines if line.startswith(first)
    ]
    return found


def test_a_frame_tells_rates_times_models_and_calibration(serving, ranker):
    asked = serving()
    answer = asked.rank().json()
    first = scrape(asked, 0.0)
    for _ in range(20):
        asked.rank()
    asked.rank(user={"id": "nobody"}, item_ids=[101, 9_999])
    event = {
        "event_id": "e",
        "request_id": answer["request_id"],
        "item_id": answer["items"][0]["id"],
        "labels": {ranker.tasks[0]: 1},
    }
    asked("POST", "/v1/feedback", json={"events": [event]})
    text = drawn(first, first, scrape(asked, 2.0))
    assert f"release {__version__}" in text
    assert "0 ready of 1" in text
    _, rate, failed, p50, p99, items = row(text, "/v1/rank")
    assert (float(rate), failed) == (10.5, "0.0%")
    assert 0 < float(p50) <= float(p99)
    assert 2 <= float(items) <= 5
    card = ranker.card
    model = row(text, f"{card.name} ")
    assert model[1] == card.version
    assert model[-3:] == ["0.0%", "4.8%", "1.6%"]
    task = row(text, f"{ranker.tasks[0]} ")
    assert task[1:3] == [card.name, card.version]
    predicted = answer["items"][0]["predictions"][ranker.tasks[0]]
    assert float(task[5]) == pytest.approx(predicted, abs=1e-3)
    assert task[6] == "1"


def test_a_frame_of_a_server_that_was_never_asked_has_dashes(serving):
    asked = serving()
    now = scrape(asked, 1.0)
    assert "-" in drawn(now, now, now)


def test_quantiles_are_those_of_prometheus():
    edges = np.array([1.0, 2.0, 4.0, np.inf])
    counts = np.array([2.0, 2.0, 4.0, 2.0])
    assert quantile(0.1, edges, counts) == 0.5
    assert quantile(0.4, edges, counts) == 2.0
    assert quantile(0.6, edges, counts) == 3.0
    assert quantile(0.99, edges, counts) == 4.0
    assert np.isnan(quantile(0.5, edges, np.zeros(4)))


def test_the_stability_index_is_exact_symmetric_and_grows():
    p, q = np.array([100.0, 300.0, 600.0]), np.array([200.0, 300.0, 500.0])
    exact = ((q - p) / 1_000 * np.log(q / p)).sum()
    assert stability_index(p, q) == pytest.approx(exact, rel=0.01)
    assert stability_index(p, q) == pytest.approx(stability_index(q, p))
    assert stability_index(p, p) == 0.0
    assert stability_index(p, np.array([900.0, 0.0, 0.0])) > 0.25
    # Windows add up: replicas' counts can be summed before.
    assert stability_index(p + p, q + q) == pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize("text", ["<html>no</html>", "up 1\n", ""])
def test_what_is_no_scrape_is_refused(text):
    with pytest.raises(DataError, match="what was answered"):
        Scrape.parse(text, 0.0)


def run_top(*options):
    return subprocess.run(
        [sys.executable, "-m", "recsys_mtl.cli", "top", *options, "--once"],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "160"},
        timeout=120,
        check=False,
    )


def test_an_address_that_does_not_answer_is_one_sentence():
    done = run_top("http://127.0.0.1:9")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "http://127.0.0.1:9/metrics does not answer" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_two_servers_of_a_node_tell_the_sum_of_both(tiny, ranker, tmp_path):
    settings = tmp_path / "serving.yaml"
    settings.write_text(
        yaml.safe_dump(
            {
                "models": [{"bundle": str(tiny.bundle)}],
                "observability": {"node_folder": "node"},
            }
        )
    )
    body = {"user": {"id": "u3"}, "item_ids": [101, 105]}
    where = {"route": "/v1/rank", "status": "200"}
    with (
        ServerProcess(settings, engine="uvicorn") as one,
        httpx.Client(timeout=30, trust_env=False) as client,
    ):
        with ServerProcess(settings, engine="uvicorn") as two:
            for url, count in ((one.url, 2), (two.url, 3)):
                for _ in range(count):
                    client.post(f"{url}/v1/rank", json=body).raise_for_status()
            # What the other did is told a second later at most.
            told = run_top(one.url)
            assert told.returncode == 0, told.stderr
            assert "2 ready of 2" in told.stdout
            for url in (one.url, two.url):
                both = Scrape.parse(client.get(f"{url}/metrics").text, 0.0)
                assert both.sum("recsys_requests_total", **where) == 5
                assert both.sum("recsys_replicas") == 2
                task = {"task": ranker.tasks[0]}
                name = "recsys_predicted_probability_count"
                assert both.sum(name, **task) == 10
        after = Scrape.parse(client.get(f"{one.url}/metrics").text, 0.0)
        assert after.sum("recsys_requests_total", **where) == 5
        assert after.sum("recsys_replicas") == 1
    assert (tmp_path / "node").is_dir()
