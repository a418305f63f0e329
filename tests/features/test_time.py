import datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_mtl.config.data import TimestampSpec
from recsys_mtl.features.time import NEVER, filled_time, to_micros, whole_micros


def micros(cells: pa.Array, unit: str) -> list:
    return to_micros(cells, TimestampSpec(column="t", unit=unit)).to_pylist()


@pytest.mark.parametrize(
    ("unit", "cells", "expected"),
    [
        ("s", pa.array([0, -1, None]), [0, -1_000_000, None]),
        ("s", pa.array([1.25, float("nan")]), [1_250_000, None]),
        ("s", pa.array(["12.345", "x", ""]), [12_345_000, None, None]),
        ("ms", pa.array(["1650000000123"]), [1_650_000_000_123_000]),
        ("us", pa.array([5], pa.int32()), [5]),
        ("ns", pa.array([1_650_000_000_123_456_789]), [1_650_000_000_123_456]),
        # Beyond the years 1 to 9999: null, and no overflow on the way.
        ("s", pa.array([10**18, -(10**18), 2**63 - 1]), [None] * 3),
        ("s", pa.array([1e300]), [None]),
        ("us", pa.array([2**63 - 1, -(2**63)]), [None, None]),
        # A column that is a time brings its own unit.
        ("s", pa.array([1_500], pa.timestamp("ms")), [1_500_000]),
        ("ms", pa.array([datetime.date(1970, 1, 2)]), [86_400_000_000]),
    ],
)
def test_units_are_read_without_loss(unit, cells, expected):
    assert micros(cells, unit) == expected


def test_iso_text_is_utc_unless_it_says_otherwise():
    text = [
        "1970-01-02",
        "1970-01-01T00:01",
        "1970-01-01 00:00:01.5",
        "1970-01-01T00:00:01.123456789Z",
        "1970-01-01T01:00:00+01:00",
        "1970-02-31",
        "yesterday",
        None,
    ]
    assert micros(pa.array(text), "iso8601") == [
        86_400_000_000,
        60_000_000,
        1_500_000,
        1_123_456,
        0,
        None,
        None,
        None,
    ]


def test_a_missing_time_is_earlier_than_all():
    filled = filled_time(pa.array([3, None]))
    assert filled.tolist() == [3, NEVER]


@given(
    time=st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**41)),
    unit=st.sampled_from(["s", "ms", "us", "ns"]),
)
def test_one_number_is_read_like_a_column_of_them(time, unit):
    (expected,) = to_micros(
        pa.array([time]), TimestampSpec(column="t", unit=unit)
    ).to_pylist()
    assert whole_micros(time, unit) == expected
