"""Ids of items in Arrow answers: whole numbers or text, as the model has them."""

import json

import msgspec
import pyarrow as pa
import pytest
from asking import call

from recsys_mtl.export.bundle import load_bundle
from recsys_mtl.rank.ranker import Ranker
from recsys_mtl.rank.request import RankRequest
from serving.app import create_app
from serving.arrow_answer import rank_stream
from serving.media import ARROW
from serving.routes.ranking import REQUEST_KEY
from serving.settings import ServingSettings

SLOW = {"max_wait_s": 60, "default_timeout_s": 60}


@pytest.fixture(scope="module")
def apps(tiny, tiny_texts):
    settings = ServingSettings(overload=SLOW)
    rankers = {
        "int": Ranker(load_bundle(tiny.bundle)),
        "text": Ranker(load_bundle(tiny_texts.bundle)),
    }
    return {name: create_app(ranker, settings) for name, ranker in rankers.items()}


def ranked(app, ids):
    """The answer of the same candidates in JSON, and in Arrow."""
    body = {"user": {"id": "u3"}, "item_ids": ids, "context": {"ts": 1_700_000_490_000}}
    plain = call(app, "POST", "/v1/rank", json=body)
    assert plain.status_code == 200, plain.text
    stream = call(app, "POST", "/v1/rank", json=body, headers={"accept": ARROW})
    assert stream.status_code == 200, stream.text
    return plain.json()["items"], pa.ipc.open_stream(stream.content).read_all()


@pytest.mark.parametrize(
    ("kind", "ids", "wanted"),
    [
        ("text", ["i101", "i105", "i117"], pa.string()),
        ("text", ["i101", "nobody knows it", "é", ""], pa.string()),
        ("text", ["i101", None, "i105", None], pa.string()),
        ("text", [101, "i105", None], pa.string()),
        ("text", [None, None], pa.string()),
        ("text", [], pa.string()),
        ("int", [101, 105, 117], pa.int64()),
        ("int", [101, None, 105], pa.int64()),
        ("int", [2**63 - 1, -5, 101], pa.int64()),
        ("int", [None], pa.int64()),
        ("int", [], pa.int64()),
    ],
)
def test_ids_are_those_of_json_in_the_type_of_the_model(apps, kind, ids, wanted):
    items, table = ranked(apps[kind], ids)
    assert table.schema.field("id").type == wanted
    as_given = [item["id"] for item in items]
    text = [None if i is None else str(i) for i in as_given]
    assert table["id"].to_pylist() == (text if wanted == pa.string() else as_given)
    assert sorted(map(str, as_given)) == sorted(map(str, ids))
    assert table["score"].to_pylist() == [item["score"] for item in items]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["i101", None, "i105"]),
        pa.array(["i101", None, "i105"], pa.large_string()),
        pa.array(["i101", None, "i105"]).dictionary_encode(),
    ],
    ids=lambda column: str(column.type),
)
def test_ids_that_came_in_arrow_come_back_as_text(apps, column):
    rest = {"user": {"id": "u3"}, "context": {"ts": 1_700_000_490_000}}
    table = pa.table({"item_id": column}, metadata={REQUEST_KEY: json.dumps(rest)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    answer = call(
        apps["text"],
        "POST",
        "/v1/rank",
        content=sink.getvalue().to_pybytes(),
        headers={"content-type": ARROW, "accept": ARROW},
    )
    assert answer.status_code == 200, answer.text
    told = pa.ipc.open_stream(answer.content).read_all()
    items, _ = ranked(apps["text"], ["i101", None, "i105"])
    assert told.schema.field("id").type == pa.string()
    assert told["id"].to_pylist() == [item["id"] for item in items]


@pytest.mark.parametrize(
    ("ids", "wanted"),
    [
        (["a", 3, None], ["a", "3", None]),
        ([7, 3, None], [7, 3, None]),
        ([None], [None]),
    ],
)
def test_a_model_without_a_key_hands_any_ids_back(ranker, ids, wanted):
    numbers = [101 + i for i in range(len(ids))]
    response = ranker.rank(RankRequest(item_ids=numbers), now_us=1)
    items = [
        msgspec.structs.replace(item, id=ids[item.id - 101]) for item in response.items
    ]
    signature = [c for c in ranker.card.signature if c.role != "key"]
    stream = rank_stream(
        msgspec.structs.replace(response, items=items),
        msgspec.structs.replace(ranker.card, signature=signature),
        None,
    )
    told = pa.ipc.open_stream(stream).read_all()["id"].to_pylist()
    order = [item.id - 101 for item in response.items]
    assert told == [wanted[i] for i in order]
