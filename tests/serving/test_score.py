import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
from asking import AT, ITEMS, TOLERANCE, USER, ask, call

from recsys_mtl.errors import RequestError
from recsys_mtl.export.bundle import load_bundle
from recsys_mtl.rank.ranker import Ranker
from recsys_mtl.rank.request import ScoreRequest
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


def test_rows_may_know_different_things_of_their_events(client, tiny):
    clicks = tiny.user_histories("u1")["clicks"]
    told = {f"clicks.{name}": events for name, events in clicks.items()}
    assert len(told["clicks.time"]) > 1
    base = tiny.interactions(1).to_pylist()[0]
    left_out = {name: told[name] for name in ("clicks.time", "clicks.item_id")}
    rows = [
        base | told,
        base | left_out,
        base,  # its own, of the bundle
        base | {"clicks.time": []},
        base | left_out | {"clicks.category": None},
    ]
    alone = [
        client.post("/v1/score", json={"rows": [row]}).json()["score"][0]
        for row in rows
    ]
    assert alone[0] != pytest.approx(alone[1]), "what is told counts"
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    unknown = pa.array(columns["clicks.category"], pa.list_(pa.string()))
    table = pa.table(columns | {"clicks.category": unknown})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    arrow = {"content-type": "application/vnd.apache.arrow.stream"}
    for how in (
        {"json": {"rows": rows}},
        {"json": {"columns": columns}},
        {"content": sink.getvalue().to_pybytes(), "headers": arrow},
    ):
        together = client.post("/v1/score", **how)
        assert together.status_code == 200, together.text
        np.testing.assert_allclose(together.json()["score"], alone, atol=TOLERANCE)


def test_a_list_of_fewer_events_than_times_is_refused(client):
    row = {"clicks.time": [1, 2], "clicks.category": ["a"]}
    told = client.post("/v1/score", json={"rows": [{}, row]}).json()["error"]
    assert told["field"] == "rows[1].clicks.category"
    assert "must have 2 events like its list of times, got 1" in told["message"]


@pytest.mark.parametrize("text", ["a", "1,0", ""])
def test_text_is_no_list_of_events(client, text):
    row = {"clicks.time": [1], "clicks.category": text}
    answer = client.post("/v1/score", json={"rows": [{}, row]})
    assert answer.status_code == 422
    told = answer.json()["error"]
    assert told["field"] == "rows[1].clicks.category"
    assert f"must be a list of events, got {text!r}" in told["message"]


def test_names_that_nobody_knows_are_refused_before_cells_are_made(ranker):
    rows = [{}] * 1_999 + [{f"unknown{i}": 0 for i in range(20_000)}]
    tracemalloc.start()
    with pytest.raises(RequestError, match="unknown name 'unknown0'") as refused:
        ranker.answer(ScoreRequest(rows=rows), now_us=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused.value.field == "rows[1999].unknown0"
    assert peak < 20_000_000


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
