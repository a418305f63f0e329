import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_mtl.config.data import ColumnSplit, FileSplit, HashSplit, TimeSplit
from recsys_mtl.data.split import DROPPED, SPLITS, TimeCuts, TimeSample, assign_split
from recsys_mtl.errors import DataError

TRAIN, VALID, TEST = range(3)
TIME = TimeSplit(kind="time", valid=0.1, test=0.2)


def sample_of(times, rows=None, capacity=1_000_000):
    sample = TimeSample(capacity)
    times = np.asarray(times, dtype=np.int64)
    sample.update(times, np.arange(len(times)) if rows is None else rows)
    return sample


def codes(split, table, **options):
    options.setdefault("file_name", "log.csv")
    return assign_split(split, table, **options).code_B.tolist()


def test_a_time_split_keeps_the_declared_fractions_of_distinct_times():
    times = np.random.default_rng(0).permutation(1000)
    code_B = sample_of(times).cuts(TIME).assign(times)
    assert [int((code_B == c).sum()) for c in range(3)] == [700, 100, 200]


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=60))
def test_no_row_is_earlier_than_a_row_of_an_earlier_split(times):
    times = np.array(times)
    code_B = sample_of(times).cuts(TIME).assign(times)
    for earlier in (TRAIN, VALID):
        if (code_B == earlier).any() and (code_B > earlier).any():
            assert times[code_B == earlier].max() < times[code_B > earlier].min()


def test_rows_at_the_cut_instant_go_to_the_later_split():
    cuts = TimeCuts(valid_from=10, test_from=20)
    got = cuts.assign(np.array([9, 10, 19, 20, 21])).tolist()
    assert got == [TRAIN, VALID, VALID, TEST, TEST]


def test_cuts_do_not_depend_on_how_rows_are_dealt_to_tasks():
    times = np.random.default_rng(1).integers(0, 10**12, 5000)
    whole = sample_of(times, capacity=500)
    parts = TimeSample(500)
    for rows in np.array_split(np.random.default_rng(2).permutation(5000), 7):
        part = TimeSample(500)
        part.update(times[rows], rows)
        parts.merge(part)
    assert len(parts.time_us) == 500
    assert parts.cuts(TIME) == whole.cuts(TIME)


def test_cuts_of_a_sample_are_close_to_those_of_all_rows():
    times = np.arange(200_000)
    cuts = sample_of(times, capacity=20_000).cuts(TIME)
    assert abs(cuts.valid_from - 140_000) < 3_000
    assert abs(cuts.test_from - 160_000) < 3_000


def test_a_table_without_any_time_is_refused():
    with pytest.raises(DataError, match="no row has a readable timestamp"):
        TimeSample().cuts(TIME)


def test_rows_without_time_are_dropped_and_counted_under_a_time_split():
    table = pa.table({"x": [1, 2, 3]})
    assigned = assign_split(
        TIME,
        table,
        file_name="log.csv",
        time_us=pa.array([1, None, 30]),
        cuts=TimeCuts(10, 20),
    )
    assert assigned.code_B.tolist() == [TRAIN, DROPPED, TEST]
    assert assigned.dropped == {"no readable timestamp": 1}


def test_a_hash_split_keeps_a_key_together_and_close_to_the_fractions():
    users = [f"u{i}" for i in range(20_000)]
    split = HashSplit(kind="hash", column="user", valid=0.1, test=0.2)
    first = codes(split, pa.table({"user": users}))
    assert codes(split, pa.table({"user": users[::-1]})) == first[::-1]
    shares = np.bincount(first) / len(first)
    assert np.abs(shares - [0.7, 0.1, 0.2]).max() < 0.01


def test_another_seed_is_another_hash_split():
    table = pa.table({"user": [f"u{i}" for i in range(100)]})
    one, two = (HashSplit(kind="hash", column="user", seed=s) for s in (0, 1))
    assert codes(one, table) != codes(two, table)


def test_rows_without_the_key_are_dropped_and_counted_under_a_hash_split():
    split = HashSplit(kind="hash", column="user")
    for missing in (None, float("nan")):
        table = pa.table({"user": pa.array([1.0, missing])})
        assigned = assign_split(split, table, file_name="log.csv")
        assert assigned.code_B[1] == DROPPED
        assert assigned.dropped == {"no value in 'user'": 1}


@pytest.mark.parametrize("values", [["0", "1", "2", "9", None], [0, 1, 2, 9, None]])
def test_a_column_split_compares_as_text_and_drops_other_values(values):
    split = ColumnSplit(kind="column", column="part", train="0", valid="1", test="2")
    assigned = assign_split(split, pa.table({"part": values}), file_name="log.csv")
    assert assigned.code_B.tolist() == [TRAIN, VALID, TEST, DROPPED, DROPPED]
    assert assigned.dropped == {
        "no value in 'part'": 1,
        "'part' is none of '0', '1', '2'": 1,
    }


def test_a_file_split_goes_by_the_name_of_the_file():
    split = FileSplit(kind="file", train="train*", valid="val*", test="test*")
    table = pa.table({"x": [1, 2]})
    for name, code in (("train_1.csv", TRAIN), ("valid.csv", VALID), ("test", TEST)):
        assert codes(split, table, file_name=name) == [code, code]
    assigned = assign_split(split, table, file_name="notes.csv")
    assert assigned.code_B.tolist() == [DROPPED, DROPPED]
    assert assigned.dropped == {"file 'notes.csv' matches no split": 2}


def test_a_file_that_matches_two_splits_is_refused():
    split = FileSplit(kind="file", train="*", valid="val*", test="test*")
    with pytest.raises(DataError, match=r"train \('\*'\) and test \('test\*'\)"):
        codes(split, pa.table({"x": [1]}), file_name="test.csv")


@pytest.mark.parametrize(
    "split",
    [
        TIME,
        HashSplit(kind="hash", column="x"),
        ColumnSplit(kind="column", column="x"),
        FileSplit(kind="file", train="log*", valid="v", test="t"),
    ],
)
def test_no_rows_are_assigned_to_nothing(split):
    table = pa.table({"x": pa.array([], pa.string())})
    time_us = pa.array([], pa.int64())
    assert codes(split, table, time_us=time_us, cuts=TimeCuts(1, 2)) == []


def test_codes_are_positions_in_the_order_of_splits():
    assert SPLITS == ("train", "valid", "test")
