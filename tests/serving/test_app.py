"""The HTTP API over a real socket, against the ranker in this process."""

import asyncio
import concurrent.futures
import json

import httpx
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys_mtl.export.bundle import load_bundle
from recsys_mtl.rank.ranker import Ranker
from serving.app import create_app
from serving.settings import ServingSettings

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


def test_ids_alone_score_as_in_process(client, ranker):
    rows = {"user_id": [USER] * len(ITEMS), "item_id": ITEMS, "ts": [AT] * len(ITEMS)}
    scored = ranker.score(pa.table(rows))
    answer = ask(client)
    for i, item in enumerate(ITEMS):
        got = by_id(answer)[item]
        assert got["score"] == pytest.approx(scored.score_B[i], abs=TOLERANCE)
        predictions = dict(zip(ranker.tasks, scored.prediction_BT[i], strict=True))
        assert got["predictions"] == pytest.approx(predictions, abs=TOLERANCE)


def test_features_given_score_as_features_looked_up(client, tiny):
    given = ask(
        client,
        user={
            "id": USER,
            "features": tiny.user_features(USER),
            "histories": tiny.user_histories(USER),
        },
        items=[{"id": i, "features": tiny.item_features(i)} for i in ITEMS],
        item_ids=None,
    )
    assert_same_items(given, ask(client))


def test_a_given_feature_wins_over_the_looked_up_one(client):
    plain = ask(client)
    changed = ask(
        client,
        items=[{"id": i, "features": {"price": 1e6}} for i in ITEMS],
        item_ids=None,
    )
    assert all(
        by_id(plain)[i]["score"] != pytest.approx(by_id(changed)[i]["score"], abs=1e-5)
        for i in ITEMS
    )


def test_a_feature_of_one_item_leaves_the_others_alone(client):
    one = {"id": ITEMS[0], "features": {"price": 1e6}}
    rest = [{"id": i} for i in ITEMS[1:]]
    changed, plain = by_id(ask(client, items=[one, *rest], item_ids=None)), ask(client)
    for item in ITEMS[1:]:
        assert changed[item]["score"] == pytest.approx(
            by_id(plain)[item]["score"], abs=TOLERANCE
        )


def test_items_come_best_first(client):
    scores = [item["score"] for item in ask(client)["items"]]
    assert scores == sorted(scores, reverse=True)


def test_equal_scores_stay_in_the_order_given(client):
    items = [{"id": 101, "features": {}} for _ in range(4)]
    answer = ask(client, items=[*items, {"id": 102}], item_ids=None)
    assert [item["id"] for item in answer["items"]].count(101) == 4
    strangers = [f"{n}" for n in (9001, 9002, 9003)]
    answer = ask(client, item_ids=[int(n) for n in strangers])
    assert [item["id"] for item in answer["items"]] == [9001, 9002, 9003]


def test_permuting_items_permutes_scores(client):
    assert_same_items(ask(client), ask(client, item_ids=ITEMS[::-1]))


def test_an_item_scores_alone_as_among_others(client):
    together = by_id(ask(client))
    for item in ITEMS:
        (alone,) = ask(client, item_ids=[item])["items"]
        assert alone["score"] == pytest.approx(together[item]["score"], abs=TOLERANCE)


def test_top_k_is_the_head_of_the_whole_answer(client):
    assert ask(client, top_k=2)["items"] == ask(client)["items"][:2]
    assert ask(client, top_k=99)["items"] == ask(client)["items"]


def test_tasks_choose_what_is_told_and_not_the_score(client):
    (full, short) = ask(client), ask(client, tasks=["watch"])
    assert [i["id"] for i in full["items"]] == [i["id"] for i in short["items"]]
    assert all(list(item["predictions"]) == ["watch"] for item in short["items"])


def test_nothing_to_rank_is_no_fault(client):
    assert ask(client, item_ids=[])["items"] == []


def test_unknown_users_and_items_are_scored_and_told(client):
    answer = ask(client, user={"id": "nobody"}, item_ids=[101, 777_777])
    assert answer["unknown"] == {"user": True, "items": [777_777]}
    assert all(np.isfinite(item["score"]) for item in answer["items"])
    assert ask(client)["unknown"] == {"user": False, "items": []}


def test_an_unknown_user_scores_as_one_without_an_id(client):
    assert_same_items(
        ask(client, user={"id": "nobody"}), ask(client, user={"id": "someone else"})
    )


def test_the_time_of_the_request_counts_and_is_told(client):
    answer = ask(client)
    assert (answer["timestamp"], answer["timestamp_from"]) == (AT, "request")
    # Before its first event, a user has no history.
    early = ask(client, context={"ts": 0})
    assert by_id(early)[101]["score"] != pytest.approx(by_id(answer)[101]["score"])


def test_the_server_tells_the_time_it_took(client):
    answer = ask(client, context={})
    assert answer["timestamp_from"] == "server"
    assert_same_items(answer, ask(client, context={"ts": answer["timestamp"]}))


def test_request_ids_come_back_and_are_made_where_left_out(client):
    assert ask(client, request_id="r-7")["request_id"] == "r-7"
    assert ask(client)["request_id"] != ask(client)["request_id"]


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


def test_parallel_requests_get_their_own_answers(client):
    chunks = [ITEMS[i : i + 2] for i in range(4)]
    alone = [ask(client, item_ids=chunk, request_id="x") for chunk in chunks]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        together = list(
            pool.map(
                lambda chunk: ask(client, item_ids=chunk, request_id="x"), chunks * 8
            )
        )
    assert together == alone * 8


REFUSALS = {
    "no JSON": ("/v1/rank", b"{", 400, "malformed_json", None),
    "no UTF-8": ("/v1/rank", b'{"request_id":"\xff"}', 400, "malformed_json", None),
    "too deep": (
        "/v1/score",
        b'{"rows":[{"age":' + b"[" * 99_999,
        400,
        "malformed_json",
        None,
    ),
    "no such model": (
        "/v1/rank",
        {"model": "tini", "item_ids": [1]},
        404,
        "not_found",
        "model",
    ),
    "no such route": ("/v1/rnak", {}, 404, "not_found", None),
    "neither way": ("/v1/rank", {}, 422, "invalid", "items"),
    "both ways": (
        "/v1/rank",
        {"items": [{"id": 1}], "item_ids": [1]},
        422,
        "invalid",
        "items",
    ),
    "misspelt field": ("/v1/rank", {"itemids": []}, 422, "invalid", None),
    "misspelt feature": (
        "/v1/rank",
        {"item_ids": [1], "user": {"features": {"agee": 3}}},
        422,
        "invalid",
        "user.features.agee",
    ),
    "item feature at the user": (
        "/v1/rank",
        {"item_ids": [1], "user": {"features": {"price": 3}}},
        422,
        "invalid",
        "user.features.price",
    ),
    "key as a feature": (
        "/v1/rank",
        {"items": [{"features": {"item_id": 3}}]},
        422,
        "invalid",
        "items[0].features.item_id",
    ),
    "text for a number": (
        "/v1/rank",
        {"items": [{"id": 1}, {"id": 2, "features": {"price": "3"}}]},
        422,
        "invalid",
        "items[1].features.price",
    ),
    "text for an id": (
        "/v1/rank",
        {"item_ids": [101, "abc"]},
        422,
        "invalid",
        "item_ids[1]",
    ),
    "an id of 65 bits": (
        "/v1/rank",
        {"item_ids": [2**64]},
        422,
        "invalid",
        "item_ids[0]",
    ),
    "NaN": (
        "/v1/rank",
        b'{"items":[{"features":{"price":NaN}}]}',
        422,
        "invalid",
        "items[0].features.price",
    ),
    "infinity": (
        "/v1/score",
        b'{"columns":{"price":[1,1e999]}}',
        422,
        "invalid",
        "columns.price[1]",
    ),
    "too many items": (
        "/v1/rank",
        {"item_ids": list(range(2_001))},
        422,
        "invalid",
        "item_ids",
    ),
    "too many rows": ("/v1/score", {"rows": [{}] * 2_001}, 422, "invalid", "rows"),
    "uneven columns": (
        "/v1/score",
        {"columns": {"item_id": [1, 2], "price": [1.0]}},
        422,
        "invalid",
        "columns.price",
    ),
    "misspelt column": (
        "/v1/score",
        {"rows": [{"item_id": 1}, {"prize": 1.0}]},
        422,
        "invalid",
        "rows[1].prize",
    ),
    "no such task": (
        "/v1/rank",
        {"item_ids": [1], "tasks": ["click", "clik"]},
        422,
        "invalid",
        "tasks[1]",
    ),
    "no such history": (
        "/v1/rank",
        {"item_ids": [1], "user": {"histories": {"clikcs": {"time": []}}}},
        422,
        "invalid",
        "user.histories.clikcs",
    ),
    "a history without times": (
        "/v1/rank",
        {"item_ids": [1], "user": {"histories": {"clicks": {"item_id": [1]}}}},
        422,
        "invalid",
        "user.histories.clicks.time",
    ),
    "an uneven history": (
        "/v1/rank",
        {
            "item_ids": [1],
            "user": {"histories": {"clicks": {"time": [1, 2], "item_id": [1]}}},
        },
        422,
        "invalid",
        "user.histories.clicks.item_id",
    ),
    "a time that is none": (
        "/v1/rank",
        {"item_ids": [1], "context": {"ts": "yesterday"}},
        422,
        "invalid",
        "context.ts",
    ),
    "a time out of the calendar": (
        "/v1/rank",
        {"item_ids": [1], "context": {"ts": 2**62}},
        422,
        "invalid",
        "context.ts",
    ),
}


@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS)
def test_a_wrong_request_is_refused_by_name(client, case):
    path, body, status, code, field = case
    how = {"content": body} if isinstance(body, bytes) else {"json": body}
    response = client.post(path, **how)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["field"]) == (
        status,
        code,
        field,
    )
    assert error["message"]
    assert "Traceback" not in response.text


def test_a_misspelt_feature_gets_the_nearest_name(client):
    body = {"item_ids": [1], "user": {"features": {"agee": 3}}}
    message = client.post("/v1/rank", json=body).json()["error"]["message"]
    assert message == "unknown name 'agee'; did you mean 'age'?"


def test_a_wrong_method_is_told_the_right_one(client):
    response = client.get("/v1/rank")
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    assert response.json()["error"]["message"] == "/v1/rank takes POST, not GET"


def test_a_large_body_is_refused_whatever_its_headers_say(client):
    def endless():
        for _ in range(64):
            yield b" " * 65_536

    response = client.post("/v1/rank", content=endless())
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "too_large"
    declared = client.post("/v1/rank", content=b" " * 4_000_000)
    assert declared.status_code == 413
    assert client.get("/healthz").status_code == 200


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner)
    ),
    max_leaves=6,
)
names = st.sampled_from(
    [
        "user_id",
        "item_id",
        "ts",
        "age",
        "price",
        "tags",
        "clicks.time",
        "clicks.item_id",
    ]
)
columns = st.dictionaries(names, json_values, max_size=4)
requests = st.one_of(
    json_values,
    st.fixed_dictionaries(
        {},
        optional={
            "user": st.fixed_dictionaries(
                {},
                optional={
                    "id": json_values,
                    "features": columns,
                    "histories": st.dictionaries(
                        st.sampled_from(["clicks", "views"]), columns, max_size=2
                    ),
                },
            ),
            "context": columns,
            "items": st.lists(
                st.fixed_dictionaries({}, optional={"id": json_values}), max_size=3
            ),
            "item_ids": json_values,
            "rows": st.lists(columns, max_size=3),
            "columns": columns,
            "top_k": json_values,
            "tasks": json_values,
        },
    ),
)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(path=st.sampled_from(["/v1/rank", "/v1/score"]), body=requests)
def test_no_json_breaks_the_server(client, path, body):
    response = client.post(path, content=json.dumps(body))
    assert response.status_code in (200, 400, 404, 422), response.text
    if response.status_code != 200:
        assert response.json()["error"]["message"]


@settings(max_examples=50, deadline=None)
@given(body=st.binary(max_size=200))
def test_no_bytes_break_the_server(client, body):
    response = client.post("/v1/rank", content=body)
    assert response.status_code in (400, 422), response.text


def test_models_tell_what_they_read(client, ranker):
    (card,) = client.get("/v1/models").json()["models"]
    assert card == client.get(f"/v1/models/{ranker.name}").json()
    assert [task["name"] for task in card["tasks"]] == list(ranker.tasks)
    column = {c["name"]: c for c in card["signature"]}
    assert column["age"]["origin"] == "user"
    assert column["price"] == {
        "name": "price",
        "type": "float",
        "origin": "item",
        "role": "feature",
        "unit": None,
    }
    assert column["ts"]["role"] == "timestamp"
    assert column["ts"]["unit"] == "ms"
    assert column["clicks.item_id"]["role"] == "history"
    assert card["score"]["weights"]
    assert card["version"]


def test_an_unknown_model_is_not_found(client):
    response = client.get("/v1/models/nope")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


def test_readiness_waits_for_the_warm_up(ranker):
    app = create_app(ranker, ServingSettings())
    assert call(app, "GET", "/healthz").status_code == 200
    assert call(app, "GET", "/readyz").status_code == 503
    app.state.service.warm_up()
    assert call(app, "GET", "/readyz").status_code == 200


def test_a_model_is_asked_for_by_name(ranker):
    app = create_app({"a": ranker, "b": ranker}, ServingSettings())
    for model, status in {"a": 200, "b": 200, None: 200, "c": 404}.items():
        body = {"item_ids": [101], "model": model}
        assert call(app, "POST", "/v1/rank", json=body).status_code == status


def test_an_unexpected_failure_has_an_id_and_no_trace(ranker, monkeypatch, caplog):
    def fail(*args, **kwargs):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(type(ranker), "respond", fail)
    app = create_app(ranker, ServingSettings())
    response = call(app, "POST", "/v1/rank", json={"item_ids": [1]})
    assert response.status_code == 500
    error = response.json()["error"]
    assert error["code"] == "internal"
    assert "secret" not in response.text
    number = error["message"].split()[-1]
    assert number in caplog.text


def test_openapi_names_every_route_and_its_examples_work(client, ranker):
    document = client.get("/openapi.json").json()
    app = create_app(ranker, ServingSettings())
    assert set(document["paths"]) == {route.path for route in app.routes}
    for path in ("/v1/rank", "/v1/score"):
        content = document["paths"][path]["post"]["requestBody"]["content"]
        response = client.post(path, json=content["application/json"]["example"])
        assert response.status_code == 200, response.text
    features = document["components"]["schemas"]["UserInput"]["properties"]["features"]
    assert set(features["properties"]) == {"gender", "age"}


def test_every_reference_of_openapi_leads_somewhere(client):
    document = client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]

    def references(part):
        if isinstance(part, dict):
            yield from ([part["$ref"]] if "$ref" in part else [])
            for inner in part.values():
                yield from references(inner)
        elif isinstance(part, list):
            for inner in part:
                yield from references(inner)

    found = set(references(document))
    assert found
    assert {r.removeprefix("#/components/schemas/") for r in found} <= schemas.keys()


def test_the_documentation_is_a_page(client):
    response = client.get("/docs")
    assert response.headers["content-type"].startswith("text/html")
    assert "openapi.json" in response.text


def test_a_limit_is_a_setting(ranker):
    app = create_app(ranker, ServingSettings(limits={"max_items": 2}))
    for ids, status in (([1, 2], 200), ([1, 2, 3], 422)):
        answer = call(app, "POST", "/v1/rank", json={"item_ids": ids})
        assert answer.status_code == status


def test_connections_are_kept_alive(url):
    with httpx.Client(base_url=url, trust_env=False) as client:
        first = client.get("/healthz")
        second = client.get("/healthz")
    assert first.extensions["network_stream"] is second.extensions["network_stream"]


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
