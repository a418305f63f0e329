"""Requests laid out as raw tables."""

import pyarrow as pa
import pytest

from recsys_mtl.config.data import KeysSpec, TimestampSpec
from recsys_mtl.rank.card import InputColumn
from recsys_mtl.rank.raw import RequestReader
from recsys_mtl.rank.request import ScoreRequest

NOW_US = 1_700_000_000_123_456


@pytest.mark.parametrize(
    ("kind", "unit", "taken"),
    [
        ("int", "ms", 1_700_000_000_123),
        ("string", "ms", "1700000000123"),
        ("string", "iso8601", "2023-11-14T22:13:20.123456+00:00"),
    ],
)
def test_rows_without_a_time_get_one_as_the_column_has_it(kind, unit, taken):
    column = InputColumn("at", kind, "context", "timestamp", unit)
    reader = RequestReader([column], KeysSpec(), TimestampSpec(column="at", unit=unit))
    raw = reader.rows(ScoreRequest(rows=[{}, {}]), NOW_US)
    assert raw.timestamp == taken
    assert raw.timed_by_request is False
    assert raw.table["at"].to_pylist() == [taken, taken]
    none = reader.rows(ScoreRequest(rows=[]), NOW_US)
    assert (none.timestamp, none.table.num_rows) == (taken, 0)


def test_rows_with_times_keep_them():
    column = InputColumn("at", "int", "context", "timestamp", "s")
    reader = RequestReader([column], KeysSpec(), TimestampSpec(column="at", unit="s"))
    raw = reader.rows(ScoreRequest(rows=[{"at": 5}, {}]), NOW_US)
    assert (raw.timestamp, raw.timed_by_request) == (None, True)
    assert raw.table["at"].equals(pa.chunked_array([[5, None]]))
