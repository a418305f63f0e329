"""The Open Inference Protocol by its commonest client, and by hand elsewhere."""

from urllib.parse import urlsplit

import numpy as np
import pytest
import tritonclient.http as triton
from asking import TOLERANCE, call
from tensors import body, given
from tritonclient.utils import InferenceServerException

from recsys_mtl import __version__
from serving.app import create_app
from serving.settings import ServingSettings

NUMPY = {"INT64": np.int64, "FP64": np.float64, "BYTES": np.object_}


@pytest.fixture(scope="module")
def server(url):
    with triton.InferenceServerClient(urlsplit(url).netloc) as server:
        yield server


@pytest.fixture(scope="module")
def raw(tiny):
    return tiny.interactions(30)


@pytest.fixture(scope="module")
def expected(client, raw):
    return client.post("/v1/score", json={"columns": raw.to_pydict()}).json()


def tensor(name, values, datatype, *, binary):
    array = np.asarray(values, NUMPY.get(datatype))
    given = triton.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array, binary_data=binary)
    return given


def inputs(raw, *, binary=True, column=False):
    kinds = {"user_id": "BYTES"}
    shape = (-1, 1) if column else (-1,)
    return [
        tensor(
            name,
            np.array(raw[name].to_pylist(), NUMPY[kinds.get(name, "INT64")]).reshape(
                shape
            ),
            kinds.get(name, "INT64"),
            binary=binary,
        )
        for name in raw.column_names
    ]


def assert_scores(result, expected, *, tasks=("click", "watch")):
    scores = {"score": expected["score"], **expected["predictions"]}
    for name in (*tasks, "score"):
        np.testing.assert_allclose(
            result.as_numpy(name), scores[name], atol=TOLERANCE, rtol=0
        )


def test_tritonclient_finds_the_server_and_its_models(server, ranker):
    assert server.is_server_live()
    assert server.is_server_ready()
    version = ranker.card.version
    assert server.is_model_ready("tiny")
    assert server.is_model_ready("tiny", version)
    assert not server.is_model_ready("tini")
    assert not server.is_model_ready("tiny", "0")
    told = server.get_server_metadata()
    assert told == {
        "name": "recsys-mtl",
        "version": __version__,
        "extensions": ["binary_tensor_data"],
    }
    card = server.get_model_metadata("tiny")
    assert card == server.get_model_metadata("tiny", version)
    assert (card["name"], card["versions"]) == ("tiny", [version])
    given = {t["name"]: (t["datatype"], t["shape"]) for t in card["inputs"]}
    assert given["user_id"] == ("BYTES", [-1])
    assert given["item_id"] == ("INT64", [-1])
    assert given["price"] == ("FP64", [-1])
    assert given["clicks.item_id"] == ("INT64", [-1, -1])
    assert [t["name"] for t in card["outputs"]] == ["click", "watch", "score"]
    assert server.get_model_repository_index() == [
        {"name": "tiny", "version": version, "state": "READY", "reason": ""}
    ]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_tritonclient_infers(server, raw, expected, binary_in, binary_out):
    outputs = None
    if binary_out is not None:  # else binary all, as the client asks by itself
        outputs = [
            triton.InferRequestedOutput(name, binary_data=binary_out)
            for name in ("score", "watch", "click")
        ]
    result = server.infer(
        "tiny", inputs(raw, binary=binary_in), outputs=outputs, request_id="r-9"
    )
    assert_scores(result, expected)
    told = result.get_response()
    assert (told["id"], told["model_name"]) == ("r-9", "tiny")
    assert told["parameters"] == {"unknown_users": 0, "unknown_items": 0}
    assert len(told["outputs"]) == 3


def test_columns_of_one_and_versions_and_mixed_outputs(server, raw, expected, ranker):
    outputs = [
        triton.InferRequestedOutput("click", binary_data=True),
        triton.InferRequestedOutput("score", binary_data=False),
    ]
    result = server.infer(
        "tiny",
        inputs(raw, column=True),
        model_version=ranker.card.version,
        outputs=outputs,
        timeout=5_000_000,
    )
    assert_scores(result, expected, tasks=["click"])
    assert result.as_numpy("watch") is None


def test_features_and_lists_and_gaps_come_through(server, client):
    price, present = [3.5, 0.0, 9.0], [True, False, True]
    times = [[1, 2], [5, 0], [0, 0]]
    items = [[101, 105], [117, 0], [0, 0]]
    there = [[True, True], [True, False], [False, False]]
    columns = {
        "item_id": [101, 105, 117],
        "ts": [1_700_000_400_000] * 3,
        "price": [3.5, None, 9.0],
        "clicks.time": [[1, 2], [5], []],
        "clicks.item_id": [[101, 105], [117], []],
    }
    expected = client.post("/v1/score", json={"columns": columns}).json()
    given = [
        tensor("item_id", columns["item_id"], "INT64", binary=True),
        tensor("ts", columns["ts"], "INT64", binary=False),
        tensor("price", np.array(price, np.float32), "FP32", binary=True),
        tensor("price:present", present, "BOOL", binary=True),
        tensor("clicks.time", times, "INT64", binary=True),
        tensor("clicks.time:present", there, "BOOL", binary=False),
        tensor("clicks.item_id", items, "INT64", binary=True),
        tensor("clicks.item_id:present", there, "BOOL", binary=True),
    ]
    assert_scores(server.infer("tiny", given), expected)


def test_null_in_json_is_missing(client):
    columns = {"item_id": [101, 101], "price": [None, 2.0], "ts": [1, 1]}
    expected = client.post("/v1/score", json={"columns": columns}).json()
    asked = body(
        *(given(n, c, "FP64" if n == "price" else "INT64") for n, c in columns.items())
    )
    answer = client.post("/v2/models/tiny/infer", json=asked).json()
    score = next(o for o in answer["outputs"] if o["name"] == "score")
    assert score["shape"] == [2]
    assert score["data"] == pytest.approx(expected["score"], abs=TOLERANCE)


def test_details_are_outputs_to_those_who_name_them(tiny_kinds):
    from recsys_mtl.export.bundle import load_bundle
    from recsys_mtl.rank.ranker import Ranker

    app = create_app(Ranker(load_bundle(tiny_kinds.bundle)), ServingSettings())
    card = call(app, "GET", "/v2/models/kinds").json()
    names = [output["name"] for output in card["outputs"]]
    assert "leave.median" in names
    columns = {"item_id": [101, 105], "ts": [1, 1]}
    score = call(
        app, "POST", "/v1/score", json={"columns": columns, "details": True}
    ).json()
    asked = body(*(given(name, cells) for name, cells in columns.items()))
    plain = call(app, "POST", "/v2/models/kinds/infer", json=asked).json()
    assert [o["name"] for o in plain["outputs"]] == [
        "leave",
        "rating",
        "click",
        "score",
    ]
    asked["outputs"] = [{"name": "leave.median"}]
    (detail,) = call(app, "POST", "/v2/models/kinds/infer", json=asked).json()[
        "outputs"
    ]
    assert detail["data"] == pytest.approx(score["details"]["leave"]["median"])


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/models/tini", 404),
        ("/v2/models/tiny/versions/0", 404),
        ("/v2/models/tiny/versions/0/infer", 405),
        ("/v2/nothing", 404),
    ],
)
def test_other_paths_are_told_in_the_protocols_way(client, path, status):
    response = client.get(path)
    assert response.status_code == status
    assert list(response.json()) == ["error"]


def test_tritonclient_reads_our_errors(server):
    with pytest.raises(InferenceServerException, match="did you mean 'price'"):
        server.infer("tiny", [tensor("prize", [1.0], "FP64", binary=True)])


def test_readiness_waits_for_the_warm_up(ranker):
    app = create_app(ranker, ServingSettings())
    paths = ["/v2/health/ready", "/v2/models/tiny/ready"]
    assert call(app, "GET", "/v2/health/live").status_code == 200
    assert [call(app, "GET", path).status_code for path in paths] == [503, 503]
    index = call(app, "POST", "/v2/repository/index").json()
    assert index[0]["state"] == "UNAVAILABLE"
    app.state.service.warm_up()
    assert [call(app, "GET", path).status_code for path in paths] == [200, 200]
