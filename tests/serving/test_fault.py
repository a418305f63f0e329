import ast
from pathlib import Path

import pytest
from asking import call

import serving
from serving.app import create_app
from serving.settings import ServingSettings

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


def codes_of(module):
    """Codes in the source: of faults that are made, and of variables for them."""
    for node in ast.walk(ast.parse(module.read_text())):
        match node:
            case ast.Call(
                func=ast.Name("HttpFault"), args=[_, ast.Constant(code), *_]
            ) | ast.Assign([ast.Name("code")], ast.Constant(code)):
                yield code


def test_the_codes_that_are_told_are_those_that_are_answered(client):
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    told = schemas["ErrorDetail"]["properties"]["code"]["enum"]
    modules = Path(serving.__file__).parent.rglob("*.py")
    answered = {code for module in modules for code in codes_of(module)}
    assert answered == set(told)


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


def test_a_limit_is_a_setting(ranker):
    app = create_app(ranker, ServingSettings(limits={"max_items": 2}))
    for ids, status in (([1, 2], 200), ([1, 2, 3], 422)):
        answer = call(app, "POST", "/v1/rank", json={"item_ids": ids})
        assert answer.status_code == status
