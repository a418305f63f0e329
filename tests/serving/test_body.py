import math
import tracemalloc
from http import HTTPStatus

import msgspec
import pytest

from recsys_mtl.rank.request import RankRequest
from serving.body import decode
from serving.fault import HttpFault

DECODER = msgspec.json.Decoder(RankRequest)


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"", HTTPStatus.BAD_REQUEST, None),
        (b"{", HTTPStatus.BAD_REQUEST, None),
        (b'{"user": {}} x', HTTPStatus.BAD_REQUEST, None),
        (b'{"request_id": "\xff"}', HTTPStatus.BAD_REQUEST, None),
        (b'{"request_id": "\\ud800"}', HTTPStatus.BAD_REQUEST, None),
        (b'{"context": {"x": ' + b"[" * 100_000, HTTPStatus.BAD_REQUEST, None),
        (b'{"context": {"x": ' + b'{"a":' * 100_000, HTTPStatus.BAD_REQUEST, None),
        (b"[]", HTTPStatus.UNPROCESSABLE_ENTITY, None),
        (b'{"item_idz": []}', HTTPStatus.UNPROCESSABLE_ENTITY, None),
        (b'{"user": {"id": 1.5}}', HTTPStatus.UNPROCESSABLE_ENTITY, "user.id"),
        (b'{"items": [{}, 3]}', HTTPStatus.UNPROCESSABLE_ENTITY, "items[1]"),
        (b'{"top_k": 0}', HTTPStatus.UNPROCESSABLE_ENTITY, "top_k"),
        (b'{"context": {"x": NaN}}', HTTPStatus.UNPROCESSABLE_ENTITY, "context.x"),
        (
            b'{"items": [{}, {"features": {"x": [1, -Infinity]}}]}',
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "items[1].features.x[1]",
        ),
        (b'{"context": {"x": 1e999}}', HTTPStatus.UNPROCESSABLE_ENTITY, "context.x"),
        (
            b'{"context": {"\\ud800": NaN}}',
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "context.?",
        ),
    ],
    ids=lambda case: str(case)[:40],
)
def test_a_bad_body_is_refused_by_place(body, status, field):
    with pytest.raises(HttpFault) as caught:
        decode(body, DECODER)
    assert (caught.value.status, caught.value.field) == (status, field)


def test_an_unknown_field_is_named():
    with pytest.raises(HttpFault, match="item_idz"):
        decode(b'{"item_idz": []}', DECODER)


def test_a_good_body_becomes_a_request():
    body = b'{"user": {"id": 7, "features": {"age": 1e-400}}, "item_ids": ["a"]}'
    request = decode(body, DECODER)
    assert request.user.id == 7
    assert math.isclose(request.user.features["age"], 0.0)
    assert request.item_ids == ["a"]


def test_a_long_name_is_not_copied_for_each_number_below_it():
    name = "a" * 100_000
    body = b'{"context": {"%s": [%s]}}' % (name.encode(), b",".join([b"0"] * 20_000))
    tracemalloc.start()
    with pytest.raises(HttpFault):
        decode(body[:-1] + b', "item_idz": []}', DECODER)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * len(body)


def test_the_first_number_that_is_none_is_named():
    body = b'{"context": {"a": [null, {"": [2.5]}], "b": [[1], {"": NaN}, -Infinity]}}'
    with pytest.raises(HttpFault, match="got nan") as caught:
        decode(body, DECODER)
    assert caught.value.field == "context.b[1]."
