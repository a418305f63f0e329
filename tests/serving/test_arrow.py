"""Arrow IPC streams over a socket: as JSON, and refused where JSON could not lie."""

import json
import struct

import numpy as np
import pyarrow as pa
import pytest
from asking import AT, ITEMS, TOLERANCE, USER, ask, by_id, call

from serving.app import create_app
from serving.arrow_answer import RESPONSE_KEY
from serving.media import ARROW
from serving.routes.ranking import REQUEST_KEY
from serving.settings import ServingSettings


def stream(columns, rest=None, **options):
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    if rest is not None:
        table = table.replace_schema_metadata({REQUEST_KEY: json.dumps(rest)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(
        sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)
    ) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def post(client, path, body, **headers):
    return client.post(path, content=body, headers={"content-type": ARROW, **headers})


def refusal(response):
    error = response.json()["error"]
    return response.status_code, error["code"], error["field"], error["message"]


REST = {"user": {"id": USER}, "context": {"ts": AT}, "request_id": "r-1"}


def test_candidates_in_arrow_rank_as_in_json(client):
    prices = [1.0, None, 3.0, 4.0, 5.0]
    items = [
        {"id": i, "features": {"price": p}} for i, p in zip(ITEMS, prices, strict=True)
    ]
    plain = ask(client, items=items, item_ids=None, request_id="r-1")
    body = stream({"item_id": ITEMS, "price": prices}, REST)
    answer = post(client, "/v1/rank", body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == plain


def test_rank_answers_in_arrow_where_that_is_accepted(client):
    rest = REST | {"top_k": 3, "tasks": ["watch"]}
    body = stream({"item_id": pa.array(ITEMS, pa.int32())}, rest)
    answer = post(client, "/v1/rank", body, accept=ARROW)
    assert answer.headers["content-type"] == ARROW
    table = pa.ipc.open_stream(answer.content).read_all()
    plain = ask(client, top_k=3, tasks=["watch"], request_id="r-1")
    assert table.column_names == ["id", "score", "prediction.watch"]
    assert table["id"].to_pylist() == [item["id"] for item in plain["items"]]
    for item, row in zip(plain["items"], table.to_pylist(), strict=True):
        assert row["score"] == item["score"]
        assert row["prediction.watch"] == item["predictions"]["watch"]
    told = json.loads(table.schema.metadata[RESPONSE_KEY])
    plain.pop("items")
    assert told == plain


def test_an_arrow_answer_without_candidates_has_its_columns(client):
    body = stream({"item_id": pa.array([], pa.int64())}, REST)
    table = pa.ipc.open_stream(
        post(client, "/v1/rank", body, accept=ARROW).content
    ).read_all()
    assert table.num_rows == 0
    assert table.column_names == ["id", "score", "prediction.click", "prediction.watch"]


def test_json_may_be_answered_in_arrow(client):
    request = {"user": {"id": USER}, "item_ids": ITEMS, "context": {"ts": AT}}
    answer = client.post("/v1/rank", json=request, headers={"accept": ARROW})
    table = pa.ipc.open_stream(answer.content).read_all()
    plain = by_id(ask(client))
    for row in table.to_pylist():
        assert row["score"] == pytest.approx(plain[row["id"]]["score"], abs=TOLERANCE)


def words_in_views(column):
    """A dictionary of views, in two chunks."""
    coded = column.combine_chunks().dictionary_encode()
    words = coded.dictionary.cast(pa.string_view())
    whole = pa.DictionaryArray.from_arrays(coded.indices, words)
    return pa.chunked_array([whole.slice(0, 25), whole.slice(25)])


def test_rows_in_arrow_score_as_in_json(client, tiny):
    raw = tiny.interactions(60)
    plain = client.post("/v1/score", json={"columns": raw.to_pydict()}).json()
    for table in (
        raw,
        pa.concat_tables([raw.slice(0, 25), raw.slice(25)]),
        raw.set_column(0, "user_id", raw["user_id"].dictionary_encode()),
        raw.set_column(0, "user_id", raw["user_id"].cast(pa.string_view())),
        raw.set_column(0, "user_id", words_in_views(raw["user_id"])),
    ):
        answer = post(client, "/v1/score", stream(table), accept=ARROW)
        assert answer.status_code == 200, answer.text
        scored = pa.ipc.open_stream(answer.content).read_all()
        np.testing.assert_allclose(scored["score"], plain["score"], atol=TOLERANCE)
        for task, numbers in plain["predictions"].items():
            np.testing.assert_allclose(
                scored[f"prediction.{task}"], numbers, atol=TOLERANCE
            )
        told = json.loads(scored.schema.metadata[RESPONSE_KEY])
        assert told["unknown"] == plain["unknown"]


@pytest.mark.parametrize(
    ("accept", "arrow"),
    [
        (ARROW, True),
        (f"{ARROW};q=0.9, application/json;q=0.5", True),
        (f"{ARROW}, application/json", False),
        (f"{ARROW};q=0", False),
        (f"{ARROW};q=x", False),
        ("*/*", False),
        ("text/html", False),
        ("", False),
    ],
)
def test_json_is_answered_unless_arrow_is_preferred(client, accept, arrow):
    answer = client.post(
        "/v1/rank", json={"item_ids": [101]}, headers={"accept": accept}
    )
    assert (answer.headers["content-type"] == ARROW) == arrow


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({"content-type": "text/csv"}, "content-type"),
        ({"content-type": "application/json", "content-encoding": "gzip"}, None),
    ],
)
def test_other_bodies_are_not_supported(client, headers, field):
    response = client.post("/v1/rank", content=b"{}", headers=headers)
    status, code, named, _ = refusal(response)
    assert (status, code) == (415, "unsupported")
    assert named == (field or "content-encoding")


def views_of_one(text, count):
    """Many texts that are one stretch of letters, as only views can be."""
    one = pa.array([text], pa.string_view())
    _, view, letters = one.buffers()
    views = pa.py_buffer(view.to_pybytes()[:16] * count)
    return pa.Array.from_buffers(pa.string_view(), count, [None, views, letters])


WRONG = {
    "a misspelt column": ({"prize": [1.0]}, "columns.prize", "did you mean 'price'"),
    "two of one name": (
        pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["price", "price"]),
        "columns.price",
        "two so named",
    ),
    "no columns": (pa.table({}), "columns", "one column or more"),
    "NaN": ({"price": pa.array([1.0, np.nan])}, "columns.price[1]", "finite"),
    "infinity": ({"price": [np.inf]}, "columns.price[0]", "finite"),
    "a struct": ({"price": [{"a": 1.0}]}, "columns.price", "numbers, texts, times"),
    "nested lists": ({"tags": [[["a"]]]}, "columns.tags", "numbers, texts, times"),
    "bytes": ({"category": [b"x"]}, "columns.category", "numbers, texts, times"),
    "decimals": (
        {"price": pa.array([1]).cast(pa.decimal128(20))},
        "columns.price",
        "numbers, texts, times",
    ),
    "a map": (
        {"price": pa.array([{}], pa.map_(pa.string(), pa.int64()))},
        "columns.price",
        "numbers, texts, times",
    ),
    "nulls without end": (
        {"tags": pa.array([[None]], pa.list_(pa.null()))},
        "columns.tags",
        "numbers, texts, times",
    ),
    "text for a number": ({"price": ["3"]}, "columns.price", "a number, got string"),
    "too many rows": (
        {"item_id": pa.array(np.arange(2_001))},
        "columns",
        "at most 2,000 rows, got 2,001",
    ),
    "rows of nothing": ({"price": pa.nulls(2_001)}, "columns", "2,001"),
    "too many columns": (
        {f"c{i}": [1] for i in range(1_001)},
        "columns",
        "at most 1,000 columns",
    ),
    "long text": ({"category": ["x" * 70_000]}, "columns.category[0]", "65,536"),
    "a large dictionary": (
        {
            "category": pa.DictionaryArray.from_arrays(
                pa.array(np.zeros(2_000), pa.int8(), safe=False), ["x" * 60_000]
            )
        },
        "columns",
        "unpack to at most",
    ),
    "many views of one text": (
        {"category": views_of_one("x" * 60_000, 2_000)},
        "columns",
        "unpack to at most",
    ),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_a_wrong_stream_is_refused_by_name(client, case):
    columns, field, reason = case
    status, code, named, message = refusal(post(client, "/v1/rank", stream(columns)))
    assert (status, code, named) == (422, "invalid", field)
    assert reason in message


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
@pytest.mark.parametrize("kind", ["dictionary", "plain"])
def test_compressed_buffers_are_refused_before_they_unpack(client, codec, kind):
    texts = pa.array(["x" * 60_000] * 200)
    columns = {"category": texts.dictionary_encode() if kind == "dictionary" else texts}
    body = stream(columns, compression=codec)
    assert len(body) < 100_000
    _, code, field, message = refusal(post(client, "/v1/rank", body))
    assert (code, field) == ("invalid", "columns")
    assert "compressed" in message


@pytest.mark.parametrize(
    ("rest", "status", "field"),
    [
        (b"{", 400, "metadata[recsys-mtl.request]"),
        (b"[]", 422, "metadata[recsys-mtl.request]"),
        (b'{"top_k":0}', 422, "metadata[recsys-mtl.request].top_k"),
        (b'{"item_ids":[1]}', 422, "items"),
        (b'{"user":{"features":{"agee":1}}}', 422, "user.features.agee"),
        (b'{"model":"tini"}', 404, "model"),
    ],
)
def test_a_wrong_rest_of_a_request_is_refused(client, rest, status, field):
    table = pa.table({"item_id": [101]}).replace_schema_metadata({REQUEST_KEY: rest})
    got, _, named, _ = refusal(post(client, "/v1/rank", stream(table)))
    assert (got, named) == (status, field)


def claims(body, old, new):
    """Change a number in the last message of a stream."""
    at = body.rindex(struct.pack("<q", old))
    return body[:at] + struct.pack("<q", new) + body[at + 8 :]


def test_claimed_lengths_are_not_believed(client):
    body = stream({"price": [1.5] * 777})
    for length in (778, 10**6, 2**31, 2**40, 2**62, -1):
        for at in range(body.count(struct.pack("<q", 777))):
            del at
            response = post(client, "/v1/rank", claims(body, 777, length))
            assert response.status_code in (400, 422), response.text
    size = 777 * 8
    for length in (size + 8, 2**40, 2**62, -8):
        response = post(client, "/v1/rank", claims(body, size, length))
        assert response.status_code in (400, 422), response.text


def test_a_stream_cut_short_is_refused_wherever(client):
    body = stream({"price": [1.5, 2.5], "tags": [["a"], None]}, REST)
    for end in range(0, len(body), 8):
        response = post(client, "/v1/rank", body[:end])
        assert response.status_code == 400, (end, response.text)


def test_what_follows_the_end_of_a_stream_is_refused(client):
    body = stream({"price": [1.5]})
    for more in (b"x", body, body[-8:]):
        assert refusal(post(client, "/v1/rank", body + more))[1] == "malformed_arrow"


def test_dictionary_indices_out_of_range_are_refused(client):
    table = {
        "category": pa.DictionaryArray.from_arrays(
            pa.array([0, 119], pa.int8()), ["a"], safe=False
        )
    }
    status, code, *_ = refusal(post(client, "/v1/rank", stream(table)))
    assert (status, code) == (400, "malformed_arrow")


def test_a_stream_of_endless_small_messages_is_refused(client):
    sink = pa.BufferOutputStream()
    batch = pa.record_batch({"price": pa.array([], pa.float64())})
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        for _ in range(1_001):
            writer.write_batch(batch)
    body = sink.getvalue().to_pybytes()
    status, _, _, message = refusal(post(client, "/v1/rank", body))
    assert status == 400
    assert "1,000 messages" in message


def test_limits_of_tables_are_settings(ranker):
    settings = ServingSettings(limits={"max_columns": 1, "max_cell_bytes": 100})
    app = create_app(ranker, settings)

    def status(columns):
        return call(
            app,
            "POST",
            "/v1/rank",
            content=stream(columns),
            headers={"content-type": ARROW},
        ).status_code

    assert status({"price": [1.0]}) == 200
    assert status({"price": [1.0], "position": [1]}) == 422
    assert status({"price": [1.0] * 13}) == 422
