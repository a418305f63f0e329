import datetime
import decimal

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from recsys_mtl.features.cast import ARROW_TYPES, cast_column

NAN, INF = float("nan"), float("inf")
BIG = 2**53 + 1  # no real number has this value

CASES = [
    # to, cells, what becomes of them, unreadable
    ("int", pa.array([1, None], pa.int8()), [1, None], 0),
    (
        "int",
        pa.array([7.0, 7.5, NAN, INF, None, 1e30]),
        [7, None, None, None, None, None],
        3,
    ),
    (
        "int",
        pa.array(["7", " 8 ", "9.0", "+3", "x", "1.5", ""]),
        [7, 8, 9, 3, None, None, None],
        2,
    ),
    ("int", pa.array([str(BIG), "-5"]), [BIG, -5], 0),
    ("int", pa.array([str(2**70)]), [None], 1),
    ("int", pa.array([2**63 + 5, 1], pa.uint64()), [None, 1], 1),
    ("int", pa.array([True, False, None]), [1, 0, None], 0),
    ("string", pa.array([BIG, None]), [str(BIG), None], 0),
    (
        "string",
        pa.array([12.0, 1.5, NAN, INF, -0.0]),
        ["12", "1.5", None, None, "0"],
        1,
    ),
    ("string", pa.array(["a", "", None]), ["a", None, None], 0),
    ("string", pa.array(["a", "b"]).dictionary_encode(), ["a", "b"], 0),
    ("string", pa.array([b"a", b"\xff", None]), ["a", None, None], 1),
    ("string", pa.array([2**64 - 1], pa.uint64()), [str(2**64 - 1)], 0),
    ("string", pa.array([datetime.date(2020, 1, 2)]), ["2020-01-02"], 0),
    ("string", pa.array([["a"], None]), [None, None], 1),
    ("float", pa.array([1, None]), [1.0, None], 0),
    (
        "float",
        pa.array(["1.5", "-2e3", " 4 ", "+.5", "x", "", "nan", "inf"]),
        [1.5, -2000.0, 4.0, 0.5, None, None, None, None],
        2,
    ),
    ("float", pa.array(["1", "1e400"]), [1.0, None], 1),
    ("float", pa.array([1.0, NAN, INF, -INF]), [1.0, None, None, None], 2),
    ("float", pa.array([True, None]), [1.0, None], 0),
    ("float", pa.array([decimal.Decimal("1.25")]), [1.25], 0),
    ("int_list", pa.array([[1, None], [], None]), [[1, None], [], None], 0),
    ("int_list", pa.array([["1", "x"], None]), [[1, None], None], 1),
    ("int_list", pa.array([3, None]), [[3], None], 0),
    ("string_list", pa.array([[1.0, 2.5]]), [["1", "2.5"]], 0),
    ("string_list", pa.array([["a", ""], []]), [["a", None], []], 0),
    ("float_list", pa.array([[1, 2]], pa.large_list(pa.int64())), [[1.0, 2.0]], 0),
    (
        "float_list",
        pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2)),
        [[1.0, 2.0], None],
        0,
    ),
]


@pytest.mark.parametrize(("to", "cells", "expected", "unreadable"), CASES)
def test_every_kind_of_cell_has_one_treatment(to, cells, expected, unreadable):
    array, count = cast_column(cells, to)
    assert array.type == ARROW_TYPES[to]
    assert array.to_pylist() == expected
    assert count == unreadable


@pytest.mark.parametrize(("to", "cells", "expected", "unreadable"), CASES)
def test_casting_twice_changes_nothing_and_counts_nothing(
    to, cells, expected, unreadable
):
    once = cast_column(cells, to).array
    again, count = cast_column(once, to)
    assert again.equals(once)
    assert count == 0


@pytest.mark.parametrize("to", ARROW_TYPES)
def test_columns_of_nulls_and_empty_columns_become_any_type(to):
    for cells in (
        pa.nulls(2),
        pa.array([], pa.string()),
        pa.chunked_array([], pa.int8()),
    ):
        array, count = cast_column(cells, to)
        assert array.type == ARROW_TYPES[to]
        assert array.null_count == len(cells)
        assert count == 0


def test_a_separator_splits_text_and_leaves_lists_alone():
    text = cast_column(pa.array(["a|b", "", None, "c"]), "string_list", "|")
    assert text.array.to_pylist() == [["a", "b"], None, None, ["c"]]
    lists = cast_column(pa.array([["a|b"]]), "string_list", "|")
    assert lists.array.to_pylist() == [["a|b"]]


def test_slices_of_lists_are_cast_as_lists_of_their_own():
    cells = pa.array([["1"], None, ["2", "x"], []]).slice(1)
    array, count = cast_column(cells, "int_list")
    assert (array.to_pylist(), count) == ([None, [2, None], []], 1)


@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.none()))
def test_ids_keep_every_digit_through_text_and_back(ids):
    text = cast_column(pa.array(ids, pa.int64()), "string").array
    assert cast_column(text, "int").array.to_pylist() == ids


@given(st.lists(st.text(alphabet="0123456789+-.eEx ", max_size=8)))
def test_text_is_a_number_where_python_says_so(texts):
    array, unreadable = cast_column(pa.array(texts, pa.string()), "float")
    expected = []
    for text in texts:
        try:
            expected.append(float(text))
        except ValueError:
            expected.append(None)
    expected = [None if x in (INF, -INF) else x for x in expected]
    assert array.to_pylist() == expected
    blank = sum(not text.strip() for text in texts)
    assert unreadable == expected.count(None) - blank


@given(st.lists(st.text(alphabet="0129+-.eEx nNaAiIfF", max_size=7)))
@example(["0x10", "x"])
@example([str(2**63 - 1), "x", str(2**63), str(-(2**63)), str(-(2**63) - 1)])
@example(["0E00000", "x"])
def test_no_cell_depends_on_its_neighbours(texts):
    """Fast ways of reading a whole column must not read more than slow ones."""
    for to in ("int", "float"):
        together = cast_column(pa.array(texts, pa.string()), to)
        apart = [cast_column(pa.array([text]), to) for text in texts]
        assert together.array.to_pylist() == [one.array[0].as_py() for one in apart]
        assert together.unreadable == sum(one.unreadable for one in apart)


def test_whole_numbers_of_text_reach_to_the_last_of_64_bits():
    texts = [
        str(2**63 - 1),
        str(2**63),
        str(-(2**63)),
        str(-(2**63) - 1),
        "00" * 20 + "7",
    ]
    array, unreadable = cast_column(pa.array(texts), "int")
    assert array.to_pylist() == [2**63 - 1, None, -(2**63), None, 7]
    assert unreadable == 2
