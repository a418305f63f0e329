"""Valid bodies, and what becomes of them when someone meddles with a few bytes."""

import copy
import json
import struct

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from serving.media import ARROW
from serving.routes.ranking import REQUEST_KEY

CHANGES = ["flip", "int", "long", "cut", "drop", "copy", "text"]
ODD_TEXTS = [b"null", b"NaN", b"-1", b"1e999", b"[", b"{}", b'"\\ud800"', b"\xff"]
ODD_NUMBERS = [0, 1, -1, 7, 255, 2**31 - 1, 2**31, -(2**31), 2**40, 2**63 - 1, -(2**63)]


def _stream(table, **options):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(
        sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)
    ) as writer:
        for batch in table.to_batches(max_chunksize=2):
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def arrow_bodies():
    """Streams of every type that columns may have."""
    plain = pa.table(
        {
            "item_id": pa.array([101, 105, None], pa.int32()),
            "price": [1.5, None, 2.5],
            "category": pa.array(["news", "film", None]).dictionary_encode(),
            "tags": pa.array([["a", "b"], [], None], pa.list_(pa.string())),
        }
    )
    views = pa.table(
        {
            "category": pa.array(["news", "x" * 40], pa.string_view()),
            "tags": pa.array([["a"], None], pa.large_list(pa.string_view())),
            "position": pa.array([True, None]),
            "price": pa.array([1.0, 2.0], pa.float16()),
        }
    )
    rest = {REQUEST_KEY: json.dumps({"user": {"id": "u3"}, "top_k": 2})}
    rows = pa.table(
        {
            "user_id": pa.array(["u1", "u2"], pa.large_string()),
            "ts": pa.array([1, 2], pa.timestamp("s")),
            "clicks.time": pa.array([[1], []], pa.list_(pa.int64())),
            "clicks.item_id": pa.array([[101], []], pa.list_(pa.int64())),
        }
    )
    typed = {"content-type": ARROW}
    return [
        ("/v1/rank", _stream(plain.replace_schema_metadata(rest)), typed),
        ("/v1/rank", _stream(plain, compression="lz4"), typed),
        ("/v1/rank", _stream(views), typed),
        ("/v1/score", _stream(rows), typed),
    ]


def tensor_bodies():
    """Inferences with tensors in JSON and behind it."""
    price = np.array([1.5, 2.5], np.float32).tobytes()
    users = b"".join(struct.pack("<I", 2) + user for user in (b"u1", b"u2"))
    head = json.dumps(
        {
            "id": "r",
            "inputs": [
                {
                    "name": "price",
                    "datatype": "FP32",
                    "shape": [2, 1],
                    "parameters": {"binary_data_size": len(price)},
                },
                {
                    "name": "user_id",
                    "datatype": "BYTES",
                    "shape": [2],
                    "parameters": {"binary_data_size": len(users)},
                },
                {
                    "name": "tags",
                    "datatype": "BYTES",
                    "shape": [2, 2],
                    "data": [["a", "b"], ["c", None]],
                },
            ],
            "outputs": [{"name": "click", "parameters": {"binary_data": True}}],
        }
    ).encode()
    length = {"inference-header-content-length": str(len(head))}
    return [("/v2/models/tiny/infer", head + price + users, length)]


def json_bodies():
    """Requests that use every field."""
    rank = {
        "request_id": "r",
        "user": {
            "id": "u3",
            "features": {"age": 30, "gender": "f"},
            "histories": {"clicks": {"time": [1, 2], "item_id": [101, 105]}},
        },
        "context": {"ts": 1_700_000_000_000, "position": 1},
        "items": [{"id": 101, "features": {"price": 1.5, "tags": "a|b"}}, {"id": None}],
        "top_k": 1,
        "tasks": ["click"],
        "details": True,
    }
    score = {
        "columns": {"user_id": ["u1", None], "item_id": [101, 7], "price": [1e3, None]}
    }
    return [
        ("/v1/rank", json.dumps(rank).encode(), {}),
        ("/v1/score", json.dumps(score).encode(), {}),
    ]


def _places(value, path=()):
    """Paths to every part of a JSON value but the whole."""
    inner = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value) if isinstance(value, list) else inner
    for key, part in list(inner):
        yield (*path, key)
        yield from _places(part, (*path, key))


ODD_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([*ODD_NUMBERS, 2**64, 10**400, 1.5, -0.0, 1e308]),
    st.text(max_size=3),
    st.sampled_from([[], {}, [[]], [None], [1, "a"], {"a": 1}, "x" * 300, [1] * 50]),
)


@st.composite
def mistaken(draw, bodies):
    """A valid body whose JSON is JSON still, with up to three values changed."""
    path, body, headers = draw(st.sampled_from(bodies))
    name = "inference-header-content-length"
    size = int(headers.get(name, len(body)))
    head = json.loads(body[:size])
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(head))
        if not places:
            break
        *way, last = draw(st.sampled_from(places))
        owner = head
        for key in way:
            owner = owner[key]
        match draw(st.sampled_from(["value", "drop", "twice"])):
            case "value":
                owner[last] = copy.deepcopy(draw(ODD_VALUES))
            case "drop":
                del owner[last]
            case "twice" if isinstance(owner, list):
                owner.append(copy.deepcopy(owner[last]))
            case _:
                owner[f"{last}x"] = copy.deepcopy(owner[last])
    encoded = json.dumps(head).encode()
    if name in headers:
        headers = {name: str(len(encoded))}
    return path, encoded + body[size:], headers


@st.composite
def meddled(draw, bodies):
    """A valid body after up to four changes: flips, odd numbers, cuts and copies."""
    path, body, headers = draw(st.sampled_from(bodies))
    body, headers = bytearray(body), dict(headers)
    for _ in range(draw(st.integers(1, 4))):
        if not body:
            break
        at = draw(st.integers(0, len(body) - 1))
        match draw(
            st.sampled_from(["flip", "int", "long", "cut", "drop", "copy", "text"])
        ):
            case "flip":
                body[at] ^= 1 << draw(st.integers(0, 7))
            case "int":  # lengths and offsets of messages lie on fours
                number = draw(st.sampled_from(ODD_NUMBERS)) & 0xFFFFFFFF
                body[at & ~3 : (at & ~3) + 4] = struct.pack("<I", number)
            case "long":
                number = draw(st.sampled_from(ODD_NUMBERS)) & (2**64 - 1)
                body[at & ~7 : (at & ~7) + 8] = struct.pack("<Q", number)
            case "cut":
                del body[at:]
            case "drop":
                del body[at : at + draw(st.integers(1, 16))]
            case "copy":
                end = at + draw(st.integers(1, 64))
                body[at:at] = body[at:end]
            case "text":
                body[at:at] = draw(st.sampled_from(ODD_TEXTS))
    if "inference-header-content-length" in headers and draw(st.booleans()):
        odd = ["", "0", "-1", str(len(body)), str(len(body) + 1), "9" * 30, "x"]
        headers["inference-header-content-length"] = draw(st.sampled_from(odd))
    return path, bytes(body), headers


ALL_BODIES = [*arrow_bodies(), *tensor_bodies(), *json_bodies()]
