"""Metrics of the real app, over HTTP."""

import asyncio
import os

import numpy as np
import pytest
from prometheus_client.utils import floatToGoString

from recsys_mtl import __version__
from recsys_mtl.rank.observation import Observation
from recsys_mtl.rank.request import RankRequest, UserInput
from serving.observability.family import AMOUNT_EDGES, FAMILIES, PROBABILITY_EDGES

ITEMS = [101, 105, 117]
STAGES = {
    *("receive", "decode", "queue", "read", "encode", "forward", "fuse"),
    *("serialise", "total"),
}


def of(ranker, **labels):
    card = ranker.card
    return tuple(
        sorted({"model": card.name, "version": card.version, **labels}.items())
    )


def test_every_metric_of_the_registry_is_told(serving):
    text = serving()("GET", "/metrics").text
    told = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert told == FAMILIES.keys()


def test_requests_are_counted_by_what_became_of_them(serving, ranker):
    asked = serving()
    for _ in range(2):
        assert asked.rank().status_code == 200
    asked.rank(item_ids=None)
    asked.rank(model="nope")
    asked("POST", "/v1/rank", content=b"{")
    asked("GET", "/v1/models/nope")
    asked("GET", "/somewhere/else")
    told = asked.told()
    counts = {k[1:]: v for k, v in told.items() if k[0] == "recsys_requests_total"}
    nobody = {"model": "", "version": ""}
    expected = {
        of(ranker, route="/v1/rank", status="200"): 2,
        of(ranker, route="/v1/rank", status="422"): 1,
        of(ranker, route="/v1/rank", status="404", **nobody): 1,
        of(ranker, route="/v1/rank", status="400", **nobody): 1,
        of(ranker, route="/v1/models/{name}", status="404", **nobody): 1,
        of(ranker, route="other", status="404", **nobody): 1,
    }
    assert counts == expected


def test_stages_add_up_to_the_time_of_a_request(serving):
    asked = serving()
    for _ in range(3):
        asked.rank()
    told = asked.told()
    rank = ("route", "/v1/rank")
    sums = {
        dict(k[1:])["stage"]: v
        for k, v in told.items()
        if k[0] == "recsys_stage_seconds_sum" and rank in k
    }
    assert sums.keys() == STAGES
    for stage in STAGES:
        key = ("recsys_stage_seconds_count", rank, ("stage", stage))
        assert told[key] == 3
    total = sums.pop("total")
    assert 0.5 * total < sum(sums.values()) < total


def test_predictions_are_in_the_bins_they_belong_to(serving, ranker):
    asked, at = serving(), 1_700_000_400_000
    # Of all candidates, whatever part of them is returned.
    asked.rank(top_k=1, tasks=[], context={"ts": at})
    seen = Observation()
    request = RankRequest(user=UserInput(id="u3"), item_ids=ITEMS, context={"ts": at})
    ranker.respond([request], now_us=0, observation=seen)
    told = asked.told()
    kinds = set()
    for task, prediction_N in zip(
        ranker.card.tasks, seen.prediction_BT[0].T, strict=True
    ):
        kinds.add(task.kind)
        name, edges = (
            ("recsys_predicted_probability", PROBABILITY_EDGES)
            if task.kind == "binary"
            else ("recsys_predicted_amount", AMOUNT_EDGES)
        )
        where = of(ranker, task=task.name)
        assert told[f"{name}_count", *where] == len(ITEMS)
        total = pytest.approx(prediction_N.sum(), rel=1e-4)
        assert told[f"{name}_sum", *where] == total
        for edge in edges:
            bucket = (
                f"{name}_bucket",
                *of(ranker, task=task.name, le=floatToGoString(edge)),
            )
            assert told[bucket] == (prediction_N <= edge).sum()
    assert kinds == {"binary", "value"}


def test_predictions_that_are_no_numbers_are_counted_apart(
    serving, ranker, monkeypatch
):
    asked = serving()
    respond = type(ranker).respond

    def broken(self, requests, *, now_us, observation):
        outcomes = respond(self, requests, now_us=now_us, observation=observation)
        spoiled = observation.prediction_BT[0].copy()
        spoiled[1, 0] = np.nan
        observation.prediction_BT[0] = spoiled
        return outcomes

    monkeypatch.setattr(type(ranker), "respond", broken)
    asked.rank()
    told = asked.told()
    task = ranker.tasks[0]
    name = "recsys_predictions_not_finite_total"
    assert told[name, *of(ranker, task=task)] == 1
    counts = [v for k, v in told.items() if "_count" in k[0] and "predicted" in k[0]]
    assert counts == [len(ITEMS) - 1] * len(ranker.tasks)


def test_unknown_ids_and_candidates_are_counted(serving, ranker):
    asked = serving()
    asked.rank(user={"id": "nobody"}, item_ids=[101, 9_999])
    rows = [{"user_id": "u3", "item_id": 101}, {"user_id": "?", "item_id": 8_888}]
    asked("POST", "/v1/score", json={"rows": rows})
    told = asked.told()
    for kind, ids, unknown in (("user", 3, 2), ("item", 4, 2)):
        where = of(ranker, kind=kind)
        assert told["recsys_ids_total", *where] == ids
        assert told["recsys_unknown_ids_total", *where] == unknown
    for route, count in (("/v1/rank", 2), ("/v1/score", 2)):
        key = ("model", ranker.name), ("route", route)
        assert told["recsys_candidates_sum", *key] == count
    assert told["recsys_batch_rows_sum", ("model", ranker.name)] == 4
    assert told["recsys_batch_requests_count", ("model", ranker.name)] == 2


def test_missing_features_are_counted_in_the_background(serving, ranker):
    asked = serving(feature_sample_interval_s=1e-3)
    asked.rank(user={"id": "nobody"}, request_id="r")

    async def later():
        await asyncio.sleep(1.2)
        while asked.observer._tasks:
            await asyncio.sleep(0.01)

    asked.runner.run(later())
    told = asked.told()
    gaps = ranker.gaps(
        RankRequest(user=UserInput(id="nobody"), item_ids=ITEMS),
        now_us=1_700_000_000_000_000,
    )
    assert gaps["age"].missing == gaps["age"].rows == len(ITEMS)
    assert gaps["price"].missing == 0
    for feature, gap in gaps.items():
        where = of(ranker, feature=feature)
        assert told["recsys_feature_cells_total", *where] == gap.rows
        assert told["recsys_missing_cells_total", *where] == gap.missing
        assert told["recsys_unseen_cells_total", *where] == gap.unseen


def test_models_and_the_process_are_told(serving, ranker):
    asked = serving({"a": ranker, "b": ranker})
    told = asked.told()
    card = ranker.card
    for name, share in (("a", 1.0), ("b", 0.0)):
        model = ("model", name), ("version", card.version)
        assert told["recsys_model_info", ("created", card.created), *model] == 1
        assert told["recsys_model_traffic_ratio", *model] == share
        assert 0 < told["recsys_model_age_seconds", *model] < 3_600
        for task, weight in card.scoring.weights.items():
            key = (model[0], ("task", task), model[1])
            assert told["recsys_score_weight", *key] == weight
    assert told["recsys_build_info", ("release", __version__)] == 1
    assert told["recsys_replicas",] == 1
    assert told["recsys_replicas_ready",] == 0
    asked.app.state.service.warm_up()
    assert asked.told()["recsys_replicas_ready",] == 1
    assert told["recsys_memory_bytes",] > 10_000_000


def test_metrics_hold_no_id(serving):
    asked = serving()
    secret = "u3-7c9e"
    asked.rank(user={"id": secret}, item_ids=[4_242_424], request_id="request-7c9e")
    asked("GET", f"/v1/models/{secret}")
    asked("GET", f"/{secret}")
    text = asked("GET", "/metrics").text
    assert "7c9e" not in text
    assert "4242424" not in text


@pytest.mark.parametrize(
    ("given", "echoed"),
    [
        ("abc-1", True),
        ("a" * 128, True),
        ("a" * 129, False),
        ("with space", False),
        (None, False),
    ],
)
def test_a_request_id_is_taken_if_it_can_be_and_echoed(serving, given, echoed):
    asked = serving()
    headers = {} if given is None else {"x-request-id": given}
    body = {"item_ids": [101]}
    for path, status in (("/v1/rank", 200), ("/nowhere", 404)):
        answer = asked("POST", path, json=body, headers=headers)
        assert answer.status_code == status
        assert (answer.headers["x-request-id"] == given) is echoed
        assert answer.headers["x-request-id"]
    ranked = asked("POST", "/v1/rank", json=body, headers=headers)
    assert ranked.json()["request_id"] == ranked.headers["x-request-id"]


def test_the_id_of_the_body_is_the_answers_and_goes_for_the_log(serving):
    asked = serving()
    body = {"item_ids": [101], "request_id": "mine"}
    alone = asked("POST", "/v1/rank", json=body)
    assert alone.headers["x-request-id"] == alone.json()["request_id"] == "mine"
    both = asked("POST", "/v1/rank", json=body, headers={"x-request-id": "hop"})
    assert (both.headers["x-request-id"], both.json()["request_id"]) == ("hop", "mine")
    odd = asked("POST", "/v1/rank", json=body | {"request_id": "a\r\nset-cookie: b"})
    assert odd.json()["request_id"] == "a\r\nset-cookie: b"
    assert "set-cookie" not in odd.headers


def test_a_failure_of_the_server_is_counted_and_named(serving, ranker, monkeypatch):
    def fail(*args, **kwargs):
        raise ZeroDivisionError

    asked = serving()
    monkeypatch.setattr(type(ranker), "respond", fail)
    answer = asked.rank()
    assert answer.status_code == 500
    assert answer.headers["x-request-id"]
    key = of(ranker, route="/v1/rank", status="500")
    assert asked.told()["recsys_requests_total", *key] == 1


def test_refusals_are_counted_by_reason(serving, ranker, monkeypatch):
    asked = serving()
    batcher = asked.app.state.service.batcher

    def full(rows=0):
        raise batcher.overloaded("candidates", "too many wait")

    monkeypatch.setattr(batcher, "refuse_if_full", full)
    assert asked.rank().status_code == 429
    monkeypatch.undo()
    late = asked(
        "POST",
        "/v1/rank",
        json={"item_ids": [101]},
        headers={"x-request-timeout-seconds": "1e-6"},
    )
    assert late.status_code == 504
    told = asked.told()
    key = ("reason", "candidates"), ("route", "/v1/rank")
    assert told["recsys_shed_total", *key] == 1
    assert told["recsys_deadline_missed_total", ("route", "/v1/rank")] == 1


def test_a_folder_of_the_node_tells_the_same(serving, ranker, tmp_path):
    asked = serving(node_folder=tmp_path / "node")
    asked.rank()
    told = asked.told()
    key = of(ranker, route="/v1/rank", status="200")
    assert told["recsys_requests_total", *key] == 1
    assert told["recsys_replicas",] == 1
    assert list((tmp_path / "node").glob(f"gauge_livesum_{os.getpid()}.db"))
    asked.observer.close()
    assert not list((tmp_path / "node").glob("gauge_*"))
