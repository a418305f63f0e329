"""Stored users and items over HTTP: written, read and ranked with."""

import asyncio
import io
import json

import numpy as np
import pyarrow as pa
import pytest
from entity_app import (
    ARROW,
    AT,
    BOTH,
    LINES,
    SLOW,
    USER,
    app_with,
    outcomes_of,
    rank,
    scores,
    told,
)
from redis_server import running

from recsys_mtl.rank.request import RankRequest, RankTable, ScoreTable, UserInput
from serving.model_set import ModelSet
from serving.routes.ranking import REQUEST_KEY


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory):
    with running(tmp_path_factory.mktemp("redis")) as (url, _):
        yield url


@pytest.fixture(params=["lmdb", "redis"])
def options(request, tmp_path):
    if request.param == "lmdb":
        return {"kind": "lmdb", "path": str(tmp_path / "entities")} | BOTH | SLOW
    url = request.getfixturevalue("redis_url")
    of_redis = {"kind": "redis", "url": url, "prefix": str(tmp_path)}
    return of_redis | BOTH | SLOW


@pytest.fixture
def client(ranker, options):
    with app_with(ranker, **options) as (client, _):
        yield client


def stream(table):
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def test_what_was_put_ranks_as_if_the_request_had_given_it(client):
    before = rank(client)
    assert before["degraded"] is False
    assert before["stored"] == {"users": 0, "items": 0, "oldest_s": None}
    put = client.put("/v1/entities/users/nobody", json=USER)
    assert (put.status_code, put.json()) == (200, {"rows": 1})
    after = rank(client)
    given = rank(client, {"id": "somebody"} | USER)
    assert scores(after) == pytest.approx(scores(given))
    assert scores(after) != pytest.approx(scores(before))
    assert after["stored"]["users"] == 1
    assert 0 <= after["stored"]["oldest_s"] < 60
    assert "stored" in rank(client, user="u3")


def test_the_request_comes_before_the_store_and_the_store_before_the_bundle(
    client, tiny
):
    looked_up = rank(client, user="u3")
    other = {"age": tiny.user_features("u3")["age"] + 40.0}
    client.put("/v1/entities/users/u3", json={"features": other})
    stored = rank(client, user="u3")
    assert scores(stored) != pytest.approx(scores(looked_up))
    # Only the age came from the store; the rest stays the bundle's.
    by_hand = rank(client, {"id": "u3", "features": other})
    assert scores(stored) == pytest.approx(scores(by_hand))
    told = {"age": tiny.user_features("u3")["age"]}
    mine = rank(client, {"id": "u3", "features": told})
    assert scores(mine) == pytest.approx(scores(looked_up))
    empty = rank(client, {"id": "u3", "features": {"age": None}})
    assert scores(empty) == pytest.approx(scores(stored))
    assert client.delete("/v1/entities/users/u3").json() == {"rows": 1}
    assert scores(rank(client, user="u3")) == pytest.approx(scores(looked_up))


def test_a_given_history_stands_in_for_the_whole_stored_one(client):
    client.put("/v1/entities/users/nobody", json=USER)
    lists = {"clicks": {"time": [1_700_000_200_000]}}
    given = rank(client, {"id": "nobody", "histories": lists})
    features = USER["features"]
    plain = {"id": "x", "features": features, "histories": lists}
    assert scores(given) == pytest.approx(scores(rank(client, plain)))


def test_items_are_looked_up_where_the_settings_say_so(client, tiny):
    price = tiny.item_features(105)["price"] * 50
    lines = [
        {"id": 105, "features": {"price": price}},
        {"id": 999, "features": {"category": "film", "price": 3.5}},
    ]
    posted = client.post(
        "/v1/entities/items",
        content="\n".join(map(json.dumps, lines)) + "\n",
        headers={"content-type": LINES},
    )
    assert posted.json() == {"rows": 2}
    by_id = rank(client, user="u3", items=(101, 105, 999))
    assert by_id["stored"]["items"] == 2
    items = [{"id": 101}, *lines]
    given = client.post(
        "/v1/rank", json={"user": {"id": "u3"}, "items": items, "context": AT}
    ).json()
    assert scores(by_id) == pytest.approx(scores(given))
    rows = [{"user_id": "u3", "item_id": i, **AT} for i in (101, 105, 999)]
    in_rows = client.post("/v1/score", json={"rows": rows}).json()
    assert in_rows["score"] == pytest.approx(
        [scores(given)[i] for i in (101, 105, 999)]
    )
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    columns["price"] = [None, None, 3.5]
    in_columns = client.post("/v1/score", json={"columns": columns}).json()
    assert in_columns["score"] == pytest.approx(in_rows["score"])
    assert in_columns["stored"]["items"] == 2


def test_typed_tables_are_filled_like_cells(ranker, options):
    with app_with(ranker, **options) as (client, lookup):
        client.put("/v1/entities/users/nobody", json=USER)
        client.put("/v1/entities/items/105", json={"features": {"price": 900.5}})
        (model,) = ModelSet.of({"tiny": ranker}).models
        ids = [101, 105]

        def ask(request):
            filled, _, degraded = asyncio.run(lookup.fill(request, model, time_s=9.0))
            assert not degraded
            (outcome,) = ranker.respond([filled], now_us=0)
            return outcome

        user = UserInput(id="nobody")
        cells = ask(RankRequest(user=user, item_ids=ids, context=AT))
        whole = pa.array([7, None], pa.int16())
        for price in ({}, {"price": pa.nulls(2, pa.float32())}, {"price": whole}):
            table = pa.table({"item_id": pa.array(ids, pa.int32())} | price)
            typed = ask(RankTable(user=user, context=AT, table=table))
            mine = {item.id: item.score for item in typed.items}
            them = {item.id: item.score for item in cells.items}
            assert mine[105] == pytest.approx(them[105])
        rows = pa.table(
            {"user_id": ["nobody"] * 2, "item_id": ids, "ts": [AT["ts"]] * 2}
        )
        scored = ask(ScoreTable(table=rows))
        assert scored.score == pytest.approx([them[i] for i in ids])


@pytest.mark.parametrize("given", [None, "d|a"])
def test_lists_and_text_for_them_are_the_same_whoever_wrote_them(client, given):
    stored = {101: ["b", "c"], 105: "b|c", 110: ""}
    for item, tags in stored.items():
        put = client.put(
            f"/v1/entities/items/{item}", json={"features": {"tags": tags}}
        )
        assert put.status_code == 200, put.text
    tags = {101: ["b", "c"], 105: ["b", "c"], 999: given and ["d", "a"]}
    items = [{"id": i, "features": {"tags": tags.get(i)}} for i in (101, 105, 110, 999)]
    wanted = {}
    for item in items:  # one by one, each with its list
        answer = client.post("/v1/rank", json={"items": [item], "context": AT})
        assert answer.status_code == 200, answer.text
        wanted |= scores(answer.json())
    ids = list(wanted)
    columns = {"item_id": ids, "ts": [AT["ts"]] * 4}
    if given is not None:
        columns["tags"] = [None, None, None, given]
    rows = [
        dict(zip(columns, row, strict=True))
        for row in zip(*columns.values(), strict=True)
    ]
    own = pa.table({n: c for n, c in columns.items() if n != "ts"})
    rest = {REQUEST_KEY: json.dumps({"context": AT})}
    inputs = [
        {"id": row["item_id"], "features": {"tags": row.get("tags")}} for row in rows
    ]
    arrow = {"content-type": ARROW}
    for path, ask in (
        ("/v1/rank", {"json": {"items": inputs, "context": AT}}),
        (
            "/v1/rank",
            {"content": stream(own.replace_schema_metadata(rest)), "headers": arrow},
        ),
        ("/v1/score", {"json": {"rows": rows}}),
        ("/v1/score", {"json": {"columns": columns}}),
        ("/v1/score", {"content": stream(pa.table(columns)), "headers": arrow}),
    ):
        answer = client.post(path, **ask)
        assert answer.status_code == 200, answer.text
        got = answer.json()
        got = (
            dict(zip(ids, got["score"], strict=True)) if "score" in got else scores(got)
        )
        assert got == pytest.approx(wanted, abs=1e-5), path


def test_arrow_streams_store_many_rows(client, tiny):
    table = tiny.users.rename_columns(["id", "gender", "age"])
    table = table.append_column(
        "clicks.time",
        pa.array([[1_700_000_000_500]] * len(table), pa.list_(pa.timestamp("ms"))),
    )
    posted = client.post(
        "/v1/entities/users",
        content=stream(table),
        headers={"content-type": ARROW},
    )
    assert posted.json() == {"rows": len(table)}
    got = client.get("/v1/entities/users/u3").json()
    assert got["source"] == "store"
    assert got["cells"]["clicks.time"] == [1_700_000_000_500]
    assert got["cells"]["age"] == tiny.user_features("u3")["age"]


def test_what_is_known_is_told_with_source_and_age(client, tiny):
    got = client.get("/v1/entities/users/u3").json()
    assert got["source"] == "bundle"
    assert got["cells"]["age"] == tiny.user_features("u3")["age"]
    assert got["age_s"] > 0
    assert client.get("/v1/entities/users/nobody").status_code == 404
    assert client.get("/v1/entities/things/x").json()["error"]["field"] == "kind"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"features": {"age": "old"}}, "features.age"),
        ({"features": {"agee": 3}}, "features.agee"),
        ({"features": {"price": 3}}, "features.price"),
        ({"features": {"position": 3}}, "features.position"),
        ({"features": {"clicks.time": ["x"]}}, "features.clicks.time[0]"),
        ({"histories": {"clicks": {"item_id": [1]}}}, "histories.clicks.time"),
        (
            {"histories": {"clicks": {"time": [1, 2], "item_id": [1]}}},
            "histories.clicks.item_id",
        ),
        ({"histories": {"click": {"time": [1]}}}, "histories.click.time"),
        ({"stuff": 1}, None),
    ],
)
def test_rows_that_fit_no_model_are_refused_by_field(ranker, tmp_path, body, field):
    with app_with(ranker, kind="lmdb", path=str(tmp_path / "e")) as (client, lookup):
        refused = client.put("/v1/entities/users/u", json=body)
        assert refused.status_code == 422, refused.text
        if field is not None:
            assert refused.json()["error"]["field"] == field
        lines = "\n".join(map(json.dumps, [{"id": "a"}, {"id": "u"} | body]))
        refused = client.post(
            "/v1/entities/users", content=lines, headers={"content-type": LINES}
        )
        assert refused.status_code == 422
        if field is not None:
            assert refused.json()["error"]["field"] == f"[1].{field}"
        assert not lookup.store.get_many("users", ["a", "u"], now_us=0).present_B.any()


@pytest.mark.parametrize(
    ("content", "media", "status"),
    [
        (b"{", LINES, 400),
        (b'{"id": null}', LINES, 422),
        (b"ARROW1", ARROW, 400),
        (b"", "text/csv", 415),
        (b"x" * 2_000, LINES, 413),
    ],
)
def test_bodies_that_are_no_rows_are_refused(ranker, tmp_path, content, media, status):
    small = {"kind": "lmdb", "path": str(tmp_path / "e"), "max_body_bytes": 1_000}
    with app_with(ranker, **small) as (client, _):
        answer = client.post(
            "/v1/entities/users", content=content, headers={"content-type": media}
        )
        assert answer.status_code == status, answer.text


def test_a_server_without_a_store_says_how_to_have_one(ranker):
    with app_with(ranker, kind="snapshot") as (client, _):
        for answer in (
            client.put("/v1/entities/users/u", json={}),
            client.post("/v1/entities/users", content=b""),
            client.delete("/v1/entities/users/u"),
        ):
            assert answer.status_code == 409
            assert "kind: lmdb" in answer.json()["error"]["message"]
        assert client.get("/v1/entities/users/u3").json()["source"] == "bundle"
        answer = rank(client)
        assert "stored" not in answer
        assert answer["degraded"] is False


def test_hits_and_misses_are_counted_by_kind(client):
    client.put("/v1/entities/users/nobody", json=USER)
    client.put("/v1/entities/items/105", json={"features": {"price": 2.5}})
    rank(client, user="nobody", items=(101, 105, 110))
    rank(client, user="somebody", items=(101,))
    metrics = told(client)
    assert outcomes_of(client) == {"found": 2}
    for kind, asked, missed in (("users", 2, 1), ("items", 4, 3)):
        assert metrics["recsys_entity_keys_total", ("kind", kind)] == asked
        assert metrics["recsys_entity_misses_total", ("kind", kind)] == missed
    assert metrics["recsys_entity_lookup_seconds_count",] == 2
    assert metrics["recsys_entity_lookup_seconds_sum",] > 0
    assert not any(key[0] == "recsys_entity_faults_total" for key in metrics)


def test_ages_are_numbers(client):
    client.put("/v1/entities/users/nobody", json=USER)
    age = client.get("/v1/entities/users/nobody").json()["age_s"]
    assert np.isfinite(age)
