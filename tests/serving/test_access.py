"""Every operation, asked without a key, with keys of each scope, and as described."""

import asyncio

import httpx
import pytest

from serving.app import create_app
from serving.keys import new_key
from serving.routes import OPERATIONS
from serving.settings import ServingSettings

SCOPES = ("rank", "feedback", "admin")
REFUSED = {401, 403}


def named(operation):
    return f"{operation.method} {operation.path}"


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory):
    """A file with a key of each scope, and the keys."""
    made = {scope: new_key(scope, [scope]) for scope in SCOPES}
    path = tmp_path_factory.mktemp("keys") / "keys.yaml"
    path.write_text("\n".join(line for _, line in made.values()))
    return path, {scope: key for scope, (key, _) in made.items()}


@pytest.fixture(scope="module")
def guarded(ranker, keys_file):
    path, keys = keys_file
    return create_app(ranker, ServingSettings(auth={"keys_file": path})), keys


def ask(app, method, path, **headers):
    async def main():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as c:
            return await c.request(method, path, headers=headers)

    return asyncio.run(main())


def bearer(key):
    return {"authorization": f"Bearer {key}"}


def document_of(app, **headers):
    return ask(app, "GET", "/openapi.json", **headers).json()


def path_of(operation, document):
    told = document["paths"][operation.path][operation.method.lower()]
    parts = {
        p["name"]: p["example"] for p in told.get("parameters", []) if p["in"] == "path"
    }
    return operation.path.format(**parts), told


@pytest.mark.parametrize("operation", OPERATIONS, ids=named)
def test_keys_open_what_the_operation_says_and_nothing_else(guarded, operation):
    app, keys = guarded
    document = document_of(app, **bearer(keys["rank"]))
    path, told = path_of(operation, document)
    documented = set(told["responses"])

    def status(**headers):
        response = ask(app, operation.method, path, **headers)
        if response.status_code in REFUSED:
            answer = told["responses"][str(response.status_code)]
            content = answer["content"]["application/json"]["schema"]
            schema = document["components"]["schemas"][content["$ref"].split("/")[-1]]
            assert response.json().keys() == schema["properties"].keys()
            assert answer.get("headers", {}).keys() <= response.headers.keys()
        return response.status_code

    without = status()
    with_key = {scope: status(**bearer(keys[scope])) for scope in SCOPES}
    by_header = {scope: status(**{"x-api-key": keys[scope]}) for scope in SCOPES}
    assert with_key == by_header
    match operation.access:
        case "open":
            assert told["security"] == []
            assert without not in REFUSED
            right, wrong = set(SCOPES), set()
            assert not documented & {"401", "403"}
        case "any":
            assert told["security"] == [{"bearer": []}, {"api_key": []}]
            assert without == 401
            right, wrong = set(SCOPES), set()
            assert "401" in documented
            assert "403" not in documented
        case scope:
            assert told["security"] == [{"bearer": [scope]}, {"api_key": [scope]}]
            assert without == 401
            right, wrong = {scope}, set(SCOPES) - {scope}
            assert {"401", "403"} <= documented
    assert all(with_key[scope] not in REFUSED for scope in right)
    assert all(with_key[scope] == 403 for scope in wrong)


def test_triton_clients_list_models_with_the_key_they_rank_with(guarded):
    app, keys = guarded
    answer = ask(app, "POST", "/v2/repository/index", **bearer(keys["rank"]))
    assert answer.status_code == 200
    assert answer.json()[0]["version"]


def test_stored_people_are_not_read_with_the_key_of_a_shop(guarded):
    app, keys = guarded
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        path = "/v1/entities/users/7"
        assert ask(app, method, path, **bearer(keys["rank"])).status_code == 403
        assert ask(app, method, path, **bearer(keys["admin"])).status_code != 403


def test_what_is_no_route_is_closed(guarded):
    app, keys = guarded
    for method, path in (
        ("DELETE", "/v1/models/x"),
        ("POST", "/v1/models/x:reload"),
        ("POST", "/v1/ranking"),
        ("POST", "/healthz"),
        ("POST", "/v2/models/x/infer/more"),
    ):
        assert ask(app, method, path).status_code == 401
        assert ask(app, method, path, **bearer(keys["rank"])).status_code == 403
        assert ask(app, method, path, **bearer(keys["admin"])).status_code in (404, 405)
    assert ask(app, "GET", "/nothing").status_code == 401
    assert ask(app, "GET", "/nothing", **bearer(keys["feedback"])).status_code == 404


def test_a_slash_at_the_end_wants_no_other_key(guarded):
    app, keys = guarded
    assert ask(app, "POST", "/v1/rank/").status_code == 401
    sent_on = ask(app, "POST", "/v1/rank/", **bearer(keys["rank"]))
    assert sent_on.status_code == 307


def test_pages_that_are_public_are_described_as_open(ranker, keys_file):
    path, _ = keys_file
    auth = {"keys_file": path, "public": ["docs"]}
    document = document_of(create_app(ranker, ServingSettings(auth=auth)))
    page, metrics = (document["paths"][p]["get"] for p in ("/docs", "/metrics"))
    assert page["security"] == []
    assert "401" not in page["responses"]
    assert metrics["security"]
    assert "401" in metrics["responses"]


def test_both_ways_to_send_a_key_are_described(guarded):
    app, keys = guarded
    schemes = document_of(app, **bearer(keys["rank"]))["components"]["securitySchemes"]
    assert schemes["bearer"] == {"type": "http", "scheme": "bearer"}
    assert schemes["api_key"] == {
        "type": "apiKey",
        "in": "header",
        "name": "x-api-key",
    }


def test_a_server_without_keys_is_described_without_them(ranker):
    app = create_app(ranker, ServingSettings())
    document = document_of(app)
    assert "securitySchemes" not in document["components"]
    for operation in OPERATIONS:
        path, told = path_of(operation, document)
        assert "security" not in told
        assert not told["responses"].keys() & {"401", "403"}
        assert ask(app, operation.method, path).status_code not in REFUSED


def test_a_rate_is_described_where_there_is_one(ranker):
    overload = {"requests_per_s": 0.1, "burst": 1}
    app = create_app(ranker, ServingSettings(overload=overload))
    document = document_of(app)
    assert "429" in document["paths"]["/v1/models"]["get"]["responses"]
    assert "429" not in document["paths"]["/healthz"]["get"]["responses"]
    assert ask(app, "GET", "/v1/models").status_code == 429
    assert ask(app, "GET", "/healthz").status_code == 200
