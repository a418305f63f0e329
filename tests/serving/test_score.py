import numpy as np
import pyarrow as pa
import pytest
from asking import AT, ITEMS, TOLERANCE, USER, ask, call

from recsys_mtl.export.bundle import load_bundle
from recsys_mtl.rank.ranker import Ranker
from serving.app import create_app
from serving.settings import ServingSettings


def test_rows_columns_and_process_score_alike(client, ranker, tiny):
    raw = tiny.interactions(40)
    scored = ranker.score(raw)
    by_row = client.post("/v1/score", json={"rows": raw.to_pylist()}).json()
    by_column = client.post("/v1/score", json={"columns": raw.to_pydict()}).json()
    for answer in (by_row, by_column):
        np.testing.assert_allclose(answer["score"], scored.score_B, atol=TOLERANCE)
        for t, task in enumerate(ranker.tasks):
            np.testing.assert_allclose(
                answer["predictions"][task],
                scored.prediction_BT[:, t],
                atol=TOLERANCE,
            )


def test_rows_with_everything_given_score_as_by_id(client, tiny):
    plain = tiny.interactions(20)
    full = [
        row
        | tiny.user_features(row["user_id"])
        | tiny.item_features(row["item_id"])
        | {
            f"{history}.{name}": events
            for history, lists in tiny.user_histories(row["user_id"]).items()
            for name, events in lists.items()
        }
        for row in plain.to_pylist()
    ]
    given = client.post("/v1/score", json={"rows": full})
    assert given.status_code == 200, given.text
    looked_up = client.post("/v1/score", json={"rows": plain.to_pylist()})
    np.testing.assert_allclose(
        given.json()["score"], looked_up.json()["score"], atol=TOLERANCE
    )


def test_unknown_rows_are_numbered(client):
    rows = [
        {"user_id": "u1", "item_id": 101},
        {"user_id": "nobody", "item_id": 777_777},
        {"item_id": 101},
    ]
    answer = client.post("/v1/score", json={"rows": rows}).json()
    assert answer["unknown"] == {"users": [1, 2], "items": [1]}
    assert answer["timestamp_from"] == "server"


@pytest.fixture(scope="module")
def kinds(tiny_kinds):
    return Ranker(load_bundle(tiny_kinds.bundle))


def test_details_over_http_are_those_offline(kinds, tiny_kinds):
    app = create_app(kinds, ServingSettings())
    rows = {"user_id": [USER] * len(ITEMS), "item_id": ITEMS, "ts": [AT] * len(ITEMS)}
    scored = kinds.score(pa.table(rows), details=True)
    columns = {"columns": rows, "details": True}
    answer = call(app, "POST", "/v1/score", json=columns).json()
    assert answer["details"].keys() == scored.details.keys() == {"leave", "rating"}
    for task, details in scored.details.items():
        for name, detail_B in details.items():
            np.testing.assert_allclose(
                answer["details"][task][name], detail_B, rtol=1e-6
            )
    ranking = {
        "user": {"id": USER},
        "item_ids": ITEMS,
        "context": {"ts": AT},
        "tasks": ["leave"],
        "details": True,
    }
    ranked = call(app, "POST", "/v1/rank", json=ranking).json()
    for item in ranked["items"]:
        place = ITEMS.index(item["id"])
        expected = {n: d[place] for n, d in scored.details["leave"].items()}
        assert item["details"] == {"leave": pytest.approx(expected, rel=1e-6)}


def test_without_asking_there_are_no_details(client, kinds):
    app = create_app(kinds, ServingSettings())
    request = {"user": {"id": USER}, "item_ids": ITEMS}
    answer = call(app, "POST", "/v1/rank", json=request).json()
    assert all("details" not in item for item in answer["items"])
    schemas = call(app, "GET", "/openapi.json").json()["components"]["schemas"]
    assert "details" in schemas["RankRequest"]["properties"]
    assert "details" in schemas["RankedItem"]["properties"]
    assert "details" not in schemas["RankedItem"]["required"]
    # Tasks without details say so rather than nothing.
    answer = ask(client, details=True)
    assert all(item["details"] == {} for item in answer["items"])
