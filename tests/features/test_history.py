import math
from itertools import pairwise

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from recsys_mtl.features.history import EventLog, as_of, gap_ids
from recsys_mtl.features.schema import NUM_GAPS
from recsys_mtl.features.time import NEVER

# Few users and few instants, so that ties and empty users are common.
ROWS = st.lists(
    st.tuples(st.integers(-1, 4), st.integers(0, 6) | st.none(), st.booleans()),
    max_size=40,
)


def arrays(rows: list[tuple]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    user = np.array([user for user, _, _ in rows], np.int64)
    time = np.array([NEVER if t is None else t for _, t, _ in rows], np.int64)
    event = np.array([event for _, _, event in rows], bool)
    return user, time, event


def naive(rows: list[tuple], row: int, length: int) -> list[int]:
    """Rows that are events, of the same user and strictly earlier; oldest first."""
    user, time, _ = rows[row]
    if user < 0 or time is None:
        return []
    earlier = [
        n
        for n, (other, at, event) in enumerate(rows)
        if event and other == user and at is not None and at < time
    ]
    return sorted(earlier, key=lambda n: rows[n][1])[-length:]


@given(ROWS, st.integers(1, 5))
def test_windows_are_those_of_a_loop_over_all_rows(rows, length):
    user, time, event = arrays(rows)
    log = EventLog.from_rows(user, time, event_B=event, num_users=5)
    windows = as_of(log, user, time, length)
    offsets, seen = windows.offsets, log.rows[windows.events].tolist()
    got = [seen[a:b] for a, b in pairwise(offsets)]
    assert got == [naive(rows, row, length) for row in range(len(rows))]


@given(ROWS, st.integers(1, 5))
def test_lists_of_events_give_the_windows_that_rows_give(rows, length):
    user, time, event = arrays(rows)
    lists = [
        [t for u, t, is_event in rows if u == owner and is_event] for owner in range(5)
    ]
    from_lists = EventLog.from_lists(pa.array(lists, pa.list_(pa.int64())))
    from_rows = EventLog.from_rows(user, time, event_B=event, num_users=5)
    a, b = (as_of(log, user, time, length) for log in (from_lists, from_rows))
    np.testing.assert_array_equal(
        from_lists.time_us[a.events], from_rows.time_us[b.events]
    )
    np.testing.assert_array_equal(a.lengths_B, b.lengths_B)


@given(ROWS, st.randoms())
def test_later_rows_change_no_window(rows, random):
    """Whatever is planted at or after a row's own time, the row does not see it."""
    user, time, event = arrays(rows)
    log = EventLog.from_rows(user, time, event_B=event, num_users=5)
    planted = [(random.randint(0, 4), random.randint(3, 9), True) for _ in range(10)]
    both = arrays([*rows, *planted])
    with_future = EventLog.from_rows(both[0], both[1], event_B=both[2], num_users=5)
    early = (time <= 3) & (time != NEVER)
    seen, seen_with_future = (
        log_.rows[as_of(log_, user[early], time[early], 4).events]
        for log_ in (log, with_future)
    )
    np.testing.assert_array_equal(seen, seen_with_future)


def test_rows_of_one_instant_do_not_see_each_other_but_are_seen_in_order():
    user = np.zeros(5, np.int64)
    time = np.array([7, 5, 5, 5, 6])
    log = EventLog.from_rows(user, time, event_B=np.ones(5, bool), num_users=1)
    windows = as_of(log, user, time, 10)
    assert windows.lengths_B.tolist() == [4, 0, 0, 0, 3]
    assert log.rows[windows.events].tolist() == [1, 2, 3, 4, 1, 2, 3]


def test_nobody_and_never_see_nothing():
    log = EventLog.from_lists(pa.array([[1, 2, 3]]))
    windows = as_of(log, np.array([-1, 0, 0]), np.array([9, NEVER, 9]), 2)
    assert windows.lengths_B.tolist() == [0, 0, 2]


def test_a_log_without_users_or_events_gives_empty_windows():
    for lists in ([], [[], None]):
        log = EventLog.from_lists(pa.array(lists, pa.list_(pa.int64())))
        windows = as_of(log, np.array([-1, -1]), np.array([1, 2]), 3)
        assert windows.lengths_B.tolist() == [0, 0]
        assert len(windows.events) == 0


def test_events_without_a_time_are_left_out_of_lists():
    log = EventLog.from_lists(pa.array([[3, None, 1], None, [None]]))
    assert log.time_us.tolist() == [1, 3]
    assert log.rows.tolist() == [2, 0]


def test_the_newest_events_of_every_user_are_kept():
    log = EventLog.from_lists(pa.array([[1, 2, 3], [], [9]]))
    windows = log.newest(2)
    assert windows.lengths_B.tolist() == [2, 0, 1]
    assert log.time_us[windows.events].tolist() == [2, 3, 9]


@given(st.lists(st.integers(0, 2**62)))
def test_gaps_are_whole_logarithms_of_seconds(ages):
    expected = [
        min(2 + (1 + age // 1_000_000).bit_length() - 1, NUM_GAPS - 1) for age in ages
    ]
    assert gap_ids(np.array(ages, np.int64)).tolist() == expected


def test_gaps_grow_with_age_and_stay_inside_their_table():
    ids = gap_ids(np.array([0, 60, 3_600, 86_400 * 365]) * 1_000_000)
    assert ids.tolist() == [2, 2 + 5, 2 + 11, 2 + int(math.log2(86_400 * 365 + 1))]
    assert gap_ids(np.array([2**63 - 1]))[0] < NUM_GAPS


@given(
    lists=st.lists(
        st.lists(st.one_of(st.none(), st.integers(0, 9)), max_size=6), max_size=4
    ),
    seed=st.integers(0, 99),
    length=st.integers(1, 4),
)
def test_many_rows_are_cut_like_each_alone(lists, seed, length):
    log = EventLog.from_lists(pa.array(lists, pa.list_(pa.int64())))
    rng = np.random.default_rng(seed)
    user_B = rng.integers(-1, max(len(lists), 1) - (not lists), 40)
    time_B = rng.integers(-1, 11, 40)
    many = as_of(log, user_B, time_B, length)
    for i in range(40):
        one = as_of(log, user_B[i : i + 1], time_B[i : i + 1], length)
        assert (one.lengths_B == many.lengths_B[i : i + 1]).all()
        if one.lengths_B[0]:
            assert one.start_B[0] == many.start_B[i]
            assert one.events.tolist() == list(range(many.start_B[i], many.stop_B[i]))
