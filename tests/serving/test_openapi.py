import gzip
import re

from entity_app import app_with

from serving.app import create_app
from serving.settings import ServingSettings


def test_openapi_names_every_route_of_the_app_and_no_other(client, ranker):
    document = client.get("/openapi.json").json()
    app = create_app(ranker, ServingSettings())
    told = {
        (path, method.upper())
        for path, operations in document["paths"].items()
        for method in operations
    }
    served = {
        (route.path, method)
        for route in app.routes
        for method in route.methods - {"HEAD"}
    }
    assert told == served


def test_the_examples_of_openapi_are_answered_as_it_says(client):
    document = client.get("/openapi.json").json()
    examples = 0
    for path, operations in document["paths"].items():
        for method, told in operations.items():
            content = told.get("requestBody", {}).get("content", {})
            example = content.get("application/json", {}).get("example")
            if method != "get" and example is None:
                continue  # changes something, or takes nothing
            examples += example is not None
            parts = {
                p["name"]: p["example"]
                for p in told.get("parameters", [])
                if p["in"] == "path"
            }
            how = {} if example is None else {"json": example}
            response = client.request(method, path.format(**parts), **how)
            answers = told["responses"][str(response.status_code)]["content"]
            # This server stores no entities that could be read or written.
            stored = path.startswith("/v1/entities")
            assert (response.status_code == 200) != stored, (path, response.text)
            assert response.headers["content-type"].partition(";")[0] in answers
    assert examples >= 4


def bodies(document):
    """Every body that is taken: method, URL and media type, and what is told of it."""
    for path, operations in document["paths"].items():
        for method, told in operations.items():
            parts = {p["name"]: p.get("example") for p in told.get("parameters", [])}
            for media in told.get("requestBody", {}).get("content", {}):
                yield method, path.format(**parts), media, told


def test_every_route_that_takes_a_body_refuses_compressed_ones(ranker, tmp_path):
    asked = set()
    store = {"kind": "lmdb", "path": str(tmp_path / "entities")}
    with app_with(ranker, **store) as (client, _):
        document = client.get("/openapi.json").json()
        for method, path, media, told in bodies(document):
            headers = {"content-type": media, "content-encoding": "gzip"}
            body = gzip.compress(b"{}")
            answer = client.request(method, path, content=body, headers=headers)
            assert answer.status_code == 415, (path, answer.text)
            assert "415" in told["responses"], path
            asked.add(path)
    assert {"/v1/feedback", "/v1/models", "/v1/entities/users"} <= asked


def test_openapi_knows_the_features_of_the_bundle(client):
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    features = schemas["UserInput"]["properties"]["features"]
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


def test_the_documentation_is_a_page_that_needs_no_other_host(client):
    response = client.get("/docs")
    assert response.headers["content-type"].startswith("text/html")
    assert "openapi.json" in response.text
    assert not re.findall(
        r"(?:https?:)?//[a-z]", re.sub(r"(?m)//  ?.*", "", response.text)
    )
    assert "default-src 'none'" in response.headers["content-security-policy"]
