import datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_mtl.config.data import TimestampSpec
from recsys_mtl.errors import RequestError
from recsys_mtl.features.time import to_micros
from recsys_mtl.rank.column import whole_column
from recsys_mtl.rank.typed import typed_column, typed_times

KINDS = ["int", "string", "float", "string_list", "int_list", "float_list"]
WANTED = {
    "int": pa.int64(),
    "string": pa.string(),
    "float": pa.float64(),
    "int_list": pa.list_(pa.int64()),
    "string_list": pa.list_(pa.string()),
    "float_list": pa.list_(pa.float64()),
}


def typed(array, kind):
    return typed_column(array, kind, "c", lambda i: f"c[{i}]")


def refused(array, kind):
    with pytest.raises(RequestError) as caught:
        typed(array, kind)
    return caught.value


@pytest.mark.parametrize(
    ("array", "kind", "values"),
    [
        (pa.array([1, None], pa.int8()), "int", [1, None]),
        (pa.array([1, 2], pa.uint64()), "int", [1, 2]),
        (pa.array([3.0, None], pa.float32()), "int", [3, None]),
        (pa.array([True, False]), "int", [1, 0]),
        (pa.array([None, None]), "int", [None, None]),
        (pa.array([1, None], pa.int16()), "float", [1.0, None]),
        (pa.array([2**63 - 1]), "float", [float(2**63)]),
        (pa.array([2**64 - 1, None], pa.uint64()), "float", [float(2**64), None]),
        (pa.array([0.5], pa.float16()), "float", [0.5]),
        (pa.array(["a", None], pa.large_string()), "string", ["a", None]),
        (pa.array(["a", "b" * 20], pa.string_view()), "string", ["a", "b" * 20]),
        (pa.array(["a", None, "a"]).dictionary_encode(), "string", ["a", None, "a"]),
        (pa.array([7, 8]), "string", ["7", "8"]),
        (pa.array([7, None]).dictionary_encode(), "int", [7, None]),
        (
            pa.array([[1, None], None, []], pa.large_list(pa.int8())),
            "int_list",
            [[1, None], None, []],
        ),
        (
            pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int64(), 2)),
            "float_list",
            [[1.0, 2.0], None, [3.0, 4.0]],
        ),
        (pa.array([["a"]], pa.list_(pa.string_view())), "string_list", [["a"]]),
        (pa.array(["a|b", None]), "string_list", ["a|b", None]),
        (pa.array([None, None]), "int_list", [None, None]),
        (pa.array([[3]]), "string_list", [["3"]]),
    ],
    ids=str,
)
def test_columns_of_other_widths_keep_their_values(array, kind, values):
    for given_as in (array, pa.chunked_array([array.slice(0, 1), array.slice(1)])):
        got = typed(given_as, kind)
        assert got.to_pylist() == values
        got.validate(full=True)
        if not (kind == "string_list" and isinstance(values[0], str)):
            assert got.type == WANTED[kind]


@pytest.mark.parametrize(
    ("array", "kind", "field", "reason"),
    [
        (pa.array([1, 2**63], pa.uint64()), "int", "c[1]", "64 bits"),
        (pa.array([1.0, 1.5]), "int", "c[1]", "a whole number, got 1.5"),
        (pa.array([1.0, 2.0**60]), "int", "c[1]", "a whole number"),
        (pa.array([1.0, None, np.nan]), "float", "c[2]", "finite number, got nan"),
        (pa.array([np.inf]), "int", "c[0]", "finite number, got inf"),
        (pa.array([True]), "float", "c", "a number, got bool"),
        (pa.array(["3"]), "int", "c", "a whole number, got string"),
        (pa.array([3.0]), "string", "c", "text, got double"),
        (pa.array([b"x"]), "string", "c", "text, got binary"),
        (pa.array([{"a": 1}]), "int", "c", "got struct"),
        (pa.array([[1]]), "int", "c", "got list"),
        (pa.array([1]), "int_list", "c", "a list"),
        (pa.array([[1], None, [2, 2.5]]), "int_list", "c[2][1]", "got 2.5"),
        (pa.array([[[1]]]), "int_list", "c", "got list"),
        (pa.array([0], pa.timestamp("s")), "int", "c", "got timestamp"),
    ],
    ids=str,
)
def test_what_would_lose_something_is_refused_by_place(array, kind, field, reason):
    fault = refused(array, kind)
    assert fault.field == field
    assert reason in fault.message


columns = st.one_of(
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)).map(
        lambda c: pa.array(c, pa.int64())
    ),
    st.lists(st.none() | st.floats(allow_nan=False)).map(
        lambda c: pa.array(c, pa.float64())
    ),
    st.lists(st.none() | st.text(max_size=3)).map(lambda c: pa.array(c, pa.string())),
    st.lists(st.none() | st.lists(st.none() | st.integers(0, 9), max_size=3)).map(
        lambda c: pa.array(c, pa.list_(pa.int64()))
    ),
    st.lists(st.none() | st.lists(st.none() | st.text(max_size=2), max_size=3)).map(
        lambda c: pa.array(c, pa.list_(pa.string()))
    ),
)


@given(columns, st.sampled_from(KINDS))
def test_a_typed_column_reads_as_the_same_cells_in_json(array, kind):
    def outcome(read):
        try:
            return read().to_pylist()
        except RequestError:
            return "refused"

    by_cell = outcome(lambda: whole_column(array.to_pylist(), kind, str))
    # A column has a type even where it has no values; cells have each their own, so
    # that no cells are wrong for nothing.
    values = array.flatten() if pa.types.is_list(array.type) else array
    if values.null_count < len(values):
        assert outcome(lambda: typed(array, kind)) == by_cell


MOMENT = datetime.datetime(2023, 11, 14, 22, 20, 50, 250_000)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns", "iso8601"])
@pytest.mark.parametrize("arrow", ["s", "ms", "us", "ns"])
def test_timestamps_are_written_in_the_unit_of_the_column(unit, arrow):
    spec = TimestampSpec(column="t", unit=unit)
    times = pa.array([MOMENT, None], pa.timestamp("us")).cast(
        pa.timestamp(arrow, "UTC"), safe=False
    )
    written = typed_times(times, spec, "t", lambda i: f"t[{i}]")
    whole = "s" in (unit, arrow)
    micros = int(MOMENT.replace(tzinfo=datetime.UTC).timestamp() * 1e6)
    expected = micros // 1_000_000 * 1_000_000 if whole else micros
    assert to_micros(written, spec).to_pylist() == [expected, None]


def test_dates_and_lists_of_times_are_written_too():
    spec = TimestampSpec(column="t", unit="ms")
    days = pa.array([0, 1], pa.date32())
    assert typed_times(days, spec, "t", str).to_pylist() == [0, 86_400_000]
    lists = pa.array([[1, 2], None, [3]], pa.list_(pa.timestamp("s")))
    written = typed_times(lists, spec, "t", str)
    assert written.to_pylist() == [[1_000, 2_000], None, [3_000]]
    numbers = pa.array([1, 2])
    assert typed_times(numbers, spec, "t", str) is numbers


@pytest.mark.parametrize(
    ("array", "unit", "field"),
    [
        (pa.array([0, 2**60], pa.timestamp("s")), "us", "t[1]"),
        (pa.array([-(2**62)], pa.timestamp("ms")), "s", "t[0]"),
        (pa.array([2**36], pa.timestamp("s")), "ns", "t[0]"),
        (pa.array([[0], [0, 2**60]], pa.list_(pa.timestamp("s"))), "us", "t[1][1]"),
        (pa.array([2**31 - 1], pa.date32()), "ms", "t[0]"),
    ],
    ids=str,
)
def test_times_out_of_the_calendar_never_wrap(array, unit, field):
    spec = TimestampSpec(column="t", unit=unit)
    with pytest.raises(RequestError) as caught:
        typed_times(array, spec, "t", lambda i: f"t[{i}]")
    assert caught.value.field == field
