from asking import call

from serving.app import create_app
from serving.settings import ServingSettings


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
    keys = {c["origin"]: c["name"] for c in card["signature"] if c["role"] == "key"}
    assert keys == {"user": "user_id", "item": "item_id"}
    assert column["ts"]["role"] == "timestamp"
    assert column["ts"]["unit"] == "ms"
    assert column["clicks.item_id"]["role"] == "history"
    assert card["scoring"]["weights"]
    assert card["version"]


def test_an_unknown_model_is_not_found(client):
    response = client.get("/v1/models/nope")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


def test_a_model_is_asked_for_by_name(ranker):
    app = create_app({"a": ranker, "b": ranker}, ServingSettings())
    for model, status in {"a": 200, "b": 200, None: 200, "c": 404}.items():
        body = {"item_ids": [101], "model": model}
        assert call(app, "POST", "/v1/rank", json=body).status_code == status
