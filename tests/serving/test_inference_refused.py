"""Inferences that are refused, in the protocol's own way."""

import json
import struct

import numpy as np
import pytest
from tensors import body, given

ITEM = given("item_id", [101, 105])
WRONG = {
    "no inputs": (body(), 422, "inputs: must be one tensor or more"),
    "an unknown column": (body(given("prize", [1])), 422, "did you mean 'price'"),
    "two of one name": (body(ITEM, ITEM), 422, "inputs.item_id: must be one tensor"),
    "uneven rows": (body(ITEM, given("ts", [1])), 422, "inputs.ts: must have 2 rows"),
    "too few values": (
        body(given("item_id", [1], shape=[2])),
        422,
        "inputs.item_id.data: must have 2 values, as its shape says, got 1",
    ),
    "a claimed shape": (
        body(given("item_id", [1], shape=[2_000, 2**31])),
        422,
        "inputs.item_id.data",
    ),
    "more rows than there may be": (
        body(given("item_id", [1], shape=[2**31])),
        422,
        "inputs.item_id: must have at most 2,000 rows, got 2,147,483,648",
    ),
    "rows of empty lists without end": (
        body(given("tags", [], "BYTES", [2**31, 0])),
        422,
        "inputs.tags: must have at most 2,000 rows, got 2,147,483,648",
    ),
    "text for a history": (
        body(ITEM, given("clicks.category", ["a", "b"], "BYTES")),
        422,
        "clicks.category[0]: must be a list of events, got 'a'",
    ),
    "a negative shape": (body(given("item_id", [1], shape=[-1])), 422, "shape[0]"),
    "no shape": (
        {"inputs": [given("item_id", [1]) | {"shape": []}]},
        422,
        "[rows]",
    ),
    "three axes": (body(given("item_id", [1], shape=[1, 1, 1])), 422, "shape"),
    "a matrix for a scalar": (
        body(given("price", [[1, 2]], "FP64", [1, 2])),
        422,
        "inputs.price: must have the shape [rows] or [rows, 1]",
    ),
    "ragged data": (
        body(given("tags", [["a"], ["a", "b"]], "BYTES", [2, 2])),
        422,
        "inputs.tags.data: must be 2 lists of 2",
    ),
    "text for a number": (
        body(given("item_id", ["a"])),
        422,
        "inputs.item_id.data[0]: must be a whole number",
    ),
    "too large for its datatype": (
        body(given("item_id", [101, 300], "INT8")),
        422,
        "inputs.item_id.data[1]: must be of INT8, got 300",
    ),
    "a truth that is none": (body(given("item_id", [1], "BOOL")), 422, "true or false"),
    "a datatype for another": (
        body(given("price", ["1"], "BYTES")),
        422,
        "inputs.price: must be a column of which each value is a number",
    ),
    "an unknown datatype": (body(given("price", [1], "BF16")), 422, "BF16"),
    "no data": (
        body({"name": "price", "shape": [1], "datatype": "FP64"}),
        422,
        "binary_data_size",
    ),
    "a mask of nothing": (
        body(given("price:present", [True], "BOOL")),
        422,
        "inputs.price:present",
    ),
    "a mask that is none": (
        body(given("price", [1.0], "FP64"), given("price:present", [1])),
        422,
        "must be BOOL of the shape [1]",
    ),
    "an unknown output": (
        body(ITEM, outputs=[{"name": "clik"}]),
        422,
        "outputs[0].name: unknown name 'clik'; did you mean 'click'?",
    ),
    "an output twice": (
        body(ITEM, outputs=[{"name": "click"}, {"name": "click"}]),
        422,
        "a second time",
    ),
    "an option without effect": (
        body(ITEM, parameters={"priority": 1}),
        422,
        "priority",
    ),
    "a timeout of nothing": (body(ITEM, parameters={"timeout": 0}), 422, "timeout"),
    "too many rows": (body(given("item_id", [1] * 2_001)), 422, "at most 2,000"),
    "no JSON": (b"{", 400, "no JSON"),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_a_wrong_inference_is_refused_in_the_protocols_way(client, case):
    asked, status, reason = case
    how = {"content": asked} if isinstance(asked, bytes) else {"json": asked}
    response = client.post("/v2/models/tiny/infer", **how)
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    assert reason in response.json()["error"]


def binary(head, tail, length=None):
    encoded = json.dumps(head).encode()
    length = len(encoded) if length is None else length
    return {
        "content": encoded + tail,
        "headers": {"inference-header-content-length": str(length)},
    }


def sized(name, datatype, shape, size):
    return {
        "name": name,
        "datatype": datatype,
        "shape": shape,
        "parameters": {"binary_data_size": size},
    }


def texts(*values):
    return b"".join(struct.pack("<I", len(v)) + v for v in values)


BINARY = {
    "too few bytes": (
        binary(body(sized("price", "FP64", [2], 16)), b"\0" * 8),
        "must be followed by 16 bytes, got 8",
    ),
    "another size than the shape's": (
        binary(body(sized("price", "FP64", [2], 8)), b"\0" * 8),
        "must have 16 bytes for its shape and datatype, got 8",
    ),
    "bytes left over": (
        binary(body(sized("price", "FP64", [1], 8)), b"\0" * 9),
        "1 are left over",
    ),
    "NaN": (
        binary(body(sized("price", "FP32", [1], 4)), struct.pack("<f", np.nan)),
        "inputs.price[0]: must be a finite number",
    ),
    "text past the end": (
        binary(body(sized("user_id", "BYTES", [1], 5)), struct.pack("<I", 9) + b"a"),
        "inputs.user_id: must be 1 texts",
    ),
    "more texts than told": (
        binary(body(sized("user_id", "BYTES", [1], 10)), texts(b"a", b"b")),
        "inputs.user_id: must be 1 texts",
    ),
    "billions of texts": (
        binary(body(sized("user_id", "BYTES", [2_000, 2**31], 5)), texts(b"a")),
        "inputs.user_id: must be 4,294,967,296,000 texts",
    ),
    "no UTF-8": (
        binary(body(sized("user_id", "BYTES", [2], 10)), texts(b"a", b"\xff")),
        "inputs.user_id[1]: must be UTF-8",
    ),
    "a JSON longer than the body": (
        binary(body(ITEM), b"", 10**9),
        "inference-header-content-length",
    ),
    "a length that is none": (
        binary(body(ITEM), b"", "-1"),
        "inference-header-content-length",
    ),
}


@pytest.mark.parametrize("case", BINARY.values(), ids=BINARY)
def test_wrong_bytes_behind_the_json_are_refused(client, case):
    how, reason = case
    response = client.post("/v2/models/tiny/infer", **how)
    assert response.status_code in (400, 422), response.text
    assert reason in response.json()["error"]


def test_compressed_tensors_are_not_supported(client):
    response = client.post(
        "/v2/models/tiny/infer", json=body(ITEM), headers={"content-encoding": "gzip"}
    )
    assert response.status_code == 415
