"""Long histories and lists of one user, ranked for many candidates."""

import contextlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_mtl.config.data import TimestampSpec
from recsys_mtl.errors import RequestError
from recsys_mtl.export.bundle import load_bundle
from recsys_mtl.features.history import EventLog, as_of
from recsys_mtl.rank import parts
from recsys_mtl.rank.newest import newest_events
from recsys_mtl.rank.ranker import Ranker
from recsys_mtl.rank.raw import RequestReader
from recsys_mtl.rank.request import ItemInput, RankRequest, UserInput

START_S = 1_700_000_000
NOW_US = (START_S + 30) * 1_000_000
SPEC = TimestampSpec(column="at", unit="us")
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def rankers(alike, rich):
    """By bundle; each request to the second goes the plain way by ``one_by_one``."""
    return {
        name: Ranker(load_bundle(made.bundle))
        for name, made in (("alike", alike), ("rich", rich))
    }


def one_by_one(user, num_candidates, **more):
    """A request whose candidates differ in a column of the impression."""
    items = [
        ItemInput(id=100 + i % 15, features={"position": i % 4})
        for i in range(num_candidates)
    ]
    return RankRequest(user=user, items=items, **more)


def events_of(name, count, seed=0):
    """A user with what the bundle's history reads, before and after the request."""
    rng = np.random.default_rng(seed)
    seen = {
        "time": (START_S + rng.integers(-50, 60, count)).tolist(),
        "brand": rng.choice(["x", "y", "z"], count).tolist(),
        "click": rng.integers(0, 2, count).tolist(),
    }
    if name == "rich":
        seen["item_id"] = [100 + k % 15 for k in range(count)]
        del seen["brand"]
    return UserInput(id="u1", histories={"seen": seen})


@contextlib.contextmanager
def most_allocated():
    """Gives a function that tells the most bytes that Arrow held at once."""
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    pa.set_memory_pool(pool)
    try:
        yield pool.max_memory
    finally:
        pa.set_memory_pool(before)


@given(
    times=st.lists(st.none() | st.integers(0, 12), max_size=12),
    now=st.integers(0, 14),
    length=st.integers(1, 6),
)
def test_what_is_dropped_is_what_no_window_has(times, now, length):
    def window(lists):
        log = EventLog.from_lists(lists["h.time"])
        found = as_of(log, np.zeros(9, np.int64), np.full(9, now), length)
        events = [
            slice(*ends) for ends in zip(found.start_B, found.stop_B, strict=True)
        ]
        places = [log.rows[event] for event in events]
        names = lists["h.name"].flatten().to_numpy()
        return [
            (log.time_us[e].tolist(), names[p].tolist())
            for e, p in zip(events, places, strict=True)
        ]

    lists = {
        "h.time": pa.array([times], pa.list_(pa.int64())),
        "h.name": pa.array([list(range(len(times)))], pa.list_(pa.int64())),
    }
    cut = newest_events(lists, "h", length, time_us=now, spec=SPEC)
    assert window(cut) == window(lists)
    assert len(cut["h.time"]) == 1
    assert len(cut["h.time"][0]) <= length


@pytest.mark.parametrize("name", ["alike", "rich"])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 40])
def test_answers_are_those_of_the_whole_history(rankers, name, count):
    ranker = rankers[name]
    data = ranker.bundle.recipe.data
    whole = RequestReader(ranker.card.signature, data.keys, data.timestamp)
    for seed in range(4):
        request = one_by_one(events_of(name, count, seed), 20)
        response = ranker.rank(request, now_us=NOW_US)
        wanted = ranker.score(whole.ranking(request, NOW_US).table)
        order = np.argsort(-wanted.score_B, kind="stable")
        assert [item.id for item in response.items] == [
            request.items[i].id for i in order
        ]
        got = [item.score for item in response.items]
        np.testing.assert_allclose(got, wanted.score_B[order], atol=1e-6)


@pytest.mark.parametrize("name", ["alike", "rich"])
@pytest.mark.parametrize("explain", [False, True])
def test_a_long_history_is_not_repeated_for_each_candidate(rankers, name, explain):
    user = events_of(name, 50_000)
    request = one_by_one(user, 2_000, explain=explain, top_k=10)
    with most_allocated() as told:
        response = rankers[name].rank(request, now_us=NOW_US)
    # Repeated, the times alone would take 763 MiB.
    assert told() < 40 * MIB
    assert len(response.items) == 10


LONG = UserInput(id="u1", features={"interests": ["sport"] * 20_000})


def test_what_is_repeated_and_too_large_is_refused_by_field(rankers):
    requests = [
        one_by_one(UserInput(id="u2"), 3),
        one_by_one(LONG, 2_000),
        one_by_one(LONG, 20),
    ]
    with most_allocated() as told:
        first, refused, last = rankers["rich"].respond(requests, now_us=NOW_US)
    assert told() < 40 * MIB
    assert isinstance(refused, RequestError)
    assert refused.field == "user.features.interests"
    assert "fewer than 2,000" in refused.message
    assert len(first.items) == 3
    assert len(last.items) == 20


def test_what_candidates_share_is_no_burden_where_it_is_encoded_once(rankers):
    request = RankRequest(user=LONG, item_ids=[100 + i % 15 for i in range(2_000)])
    with most_allocated() as told:
        response = rankers["rich"].rank(request, now_us=NOW_US)
        gaps = rankers["rich"].gaps(request, now_us=NOW_US)
    assert told() < 80 * MIB
    assert len(response.items) == 2_000
    assert gaps["interests"].rows == 100


def test_an_explanation_that_is_too_large_harms_no_other(rankers, monkeypatch):
    monkeypatch.setattr(parts, "MOST_REPEATED_BYTES", 100_000)
    ids = [100 + i % 15 for i in range(50)]
    requests = [
        RankRequest(user=LONG, item_ids=ids, explain=explain)
        for explain in (True, False)
    ]
    refused, answered = rankers["rich"].respond(requests, now_us=NOW_US)
    assert refused.field == "user.features.interests"
    assert len(answered.items) == 50


def test_places_choose_and_order_the_rows(rankers):
    ranker = rankers["rich"]
    request = one_by_one(events_of("rich", 3), 9)
    read = ranker._reader.ranking(request, NOW_US)
    places = np.array([7, 0, 3])
    assert read.table_of(candidates=places).equals(read.table.take(pa.array(places)))
