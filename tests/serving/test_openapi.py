from serving.app import create_app
from serving.settings import ServingSettings


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
