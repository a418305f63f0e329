"""The simulated feed: what it promises, checked on the rows themselves."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy.special import logit
from scipy.stats import pearsonr

from recsys_mtl.config.source import SimulatorSource
from recsys_mtl.data.simulator import CHUNK_ROWS, LONG_VIEW_S, Simulator
from recsys_mtl.data.world import CATEGORIES

AFTER_A_CLICK = ("long_view", "like", "follow", "order")
LABEL = {"click": "is_click"}


def simulator(**dials):
    return Simulator(SimulatorSource(kind="simulator", **dials))


def log_of(made):
    return pa.concat_tables(made.chunk(i) for i in range(made.num_chunks))


def arrays(table):
    return {name: table[name].to_numpy() for name in table.column_names}


@pytest.fixture(scope="module")
def made():
    return simulator(rows=150_000, num_users=1500, num_items=600, seed=5)


@pytest.fixture(scope="module")
def log(made):
    return arrays(log_of(made))


def test_same_seed_makes_the_same_bytes_in_any_order_of_chunks():
    forward = simulator(rows=140_000, num_users=900, seed=3)
    backward = simulator(rows=140_000, num_users=900, seed=3)
    assert forward.num_chunks == 3
    there = [forward.chunk(i) for i in range(3)]
    back = [backward.chunk(i) for i in reversed(range(3))][::-1]
    assert all(a.equals(b) for a, b in zip(there, back, strict=True))
    assert forward.users().equals(backward.users())
    assert not there[0].equals(simulator(rows=140_000, num_users=900, seed=4).chunk(0))


@pytest.mark.parametrize(
    ("rows", "num_users"),
    [(1, 1), (7, 20), (1000, 3), (70_001, 999), (70_000, 2)],
)
def test_there_are_exactly_as_many_rows_and_users_as_asked_for(rows, num_users):
    made = simulator(rows=rows, num_users=num_users, num_items=5)
    chunks = [made.chunk(i) for i in range(made.num_chunks)]
    assert sum(chunk.num_rows for chunk in chunks) == rows
    assert [c.num_rows for c in chunks] == [
        made.chunk_rows(i) for i in range(made.num_chunks)
    ]
    users = made.users()["user_id"].to_pylist()
    assert users == list(range(num_users))
    assert made.items().num_rows == 5


def test_a_chunk_holds_all_rows_of_its_users_in_order_of_time(made):
    seen = set()
    for i in range(made.num_chunks):
        chunk = made.chunk(i)
        users = set(chunk["user_id"].to_pylist())
        assert users <= set(made.users_chunk(i)["user_id"].to_pylist())
        assert not users & seen
        seen |= users
        assert (np.diff(chunk["time_ms"].to_numpy()) >= 0).all()


def test_no_two_rows_of_a_user_have_the_same_time(log):
    pairs = np.stack([log["user_id"], log["time_ms"]])
    assert np.unique(pairs, axis=1).shape[1] == len(log["user_id"])


@pytest.mark.parametrize("rows", [1, 1000, 400_000, 10**7, 10**8, 10**9])
@pytest.mark.parametrize("num_users", [20_000, 10**6])
def test_chunks_stay_small_however_long_the_log(rows, num_users):
    made = simulator(rows=rows, num_users=num_users)
    some = {0, made.num_chunks // 2, made.num_chunks - 1}
    assert all(made.chunk_rows(i) <= CHUNK_ROWS for i in some)
    assert made.num_chunks * CHUNK_ROWS >= rows


def test_a_chunk_of_a_huge_log_is_no_bigger_than_one_of_a_small():
    chunk = simulator(rows=10**8, num_users=10**6, num_items=50).chunk(1525)
    assert 60_000 < chunk.num_rows <= CHUNK_ROWS


def test_a_chunk_that_is_not_there_is_refused(made):
    with pytest.raises(IndexError, match=r"chunk 99 .* has 3"):
        made.chunk(99)


@pytest.mark.parametrize("task", ["click", *AFTER_A_CLICK])
def test_true_probabilities_are_calibrated_overall_and_in_deciles(log, task):
    rows = (
        np.ones(len(log["user_id"]), bool) if task == "click" else log["is_click"] > 0
    )
    true = log[f"true.{task}"][rows].astype(np.float64)
    label = log[LABEL.get(task, task)][rows]
    assert ((true > 0) & (true < 1)).all()
    order = np.argsort(true)
    for part in [order, *np.array_split(order, 10)]:
        sigma = np.sqrt((true[part] * (1 - true[part])).sum())
        assert abs(label[part].sum() - true[part].sum()) < 4 * sigma


def test_the_expected_watch_time_is_the_mean_watch_time(log):
    clicked = log["is_click"] > 0
    true = log["true.watch_s"][clicked].astype(np.float64)
    seen = log["watch_s"][clicked].astype(np.float64)
    order = np.argsort(true)
    for part in [order, *np.array_split(order, 10)]:
        error = (seen - true)[part]
        assert abs(error.mean()) < 4 * error.std() / np.sqrt(len(part))


def test_everything_but_a_click_needs_a_click(log):
    missed = log["is_click"] == 0
    for column in (*AFTER_A_CLICK, "watch_s"):
        assert (log[column][missed] == 0).all()
    assert (log["watch_s"][~missed] > 0).all()


def test_a_long_view_is_a_long_watch_or_the_whole_video(made, log):
    duration = made.items()["duration_s"].to_numpy()[log["item_id"]]
    enough = np.minimum(duration, LONG_VIEW_S)
    long = log["long_view"] == 1
    # Durations in the table are rounded to a tenth of a second.
    assert (log["watch_s"][long] >= enough[long] - 0.06).all()
    clicked = log["is_click"] == 1
    assert (log["watch_s"][clicked & ~long] < enough[clicked & ~long] + 0.06).all()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_base_rates_are_those_of_a_feed(seed):
    log = arrays(log_of(simulator(rows=60_000, num_users=600, seed=seed)))
    clicked = log["is_click"] == 1
    assert 0.22 < clicked.mean() < 0.40
    bounds = {
        "long_view": (0.35, 0.6),
        "like": (0.04, 0.16),
        "follow": (0.008, 0.05),
        "order": (0.03, 0.13),
    }
    for task, (low, high) in bounds.items():
        assert low < log[task][clicked].mean() < high, task


def test_the_conflict_dial_turns_orders_and_likes_against_clicks():
    def agreement(conflict, task):
        log = simulator(rows=20_000, num_users=200, conflict=conflict).chunk(0)
        return pearsonr(
            logit(log["true.click"].to_numpy().astype(float)),
            logit(log[f"true.{task}"].to_numpy().astype(float)),
        )[0]

    for task in ("like", "order"):
        found = [agreement(c, task) for c in (0.0, 0.25, 0.5, 0.75, 1.0)]
        assert found == sorted(found, reverse=True)
        assert found[0] > 0.6
        assert found[-1] < -0.6


def test_worse_positions_are_clicked_less_by_just_what_the_dial_says():
    # Same seed, same impressions; only until the first click histories agree.
    plain, biased = (
        arrays(simulator(rows=20_000, num_users=10_000, position_bias=b).chunk(0))
        for b in (0.0, 1.0)
    )
    first = np.unique(plain["user_id"], return_index=True)[1]
    loss = logit(plain["true.click"][first].astype(float))
    loss -= logit(biased["true.click"][first].astype(float))
    np.testing.assert_allclose(loss, plain["position"][first] / 9, atol=1e-4)


def test_drift_moves_tastes_more_from_day_to_day():
    def movement(drift):
        still, moved = (
            arrays(simulator(rows=20_000, num_users=10_000, drift=d).chunk(0))
            for d in (0.0, drift)
        )
        # First rows of users: no history stands between the taste and the click.
        first = np.unique(still["user_id"], return_index=True)[1]
        moved_by = np.abs(still["true.click"][first] - moved["true.click"][first])
        return [moved_by[still["day"][first] == day].mean() for day in (0, 6, 12)]

    assert movement(0.0) == [0, 0, 0]
    little, much = movement(0.3), movement(1.0)
    assert little == sorted(little)
    assert all(m > s for m, s in zip(much, little, strict=True))


def heat(log, category):
    """Clicks in the row's category before it, newer ones counting more."""
    result = np.empty(len(log["user_id"]))
    heats = {}
    for r in np.lexsort((log["time_ms"], log["user_id"])):
        mine = heats.setdefault(log["user_id"][r], np.zeros(len(CATEGORIES)))
        result[r] = mine[category[r]]
        if log["is_click"][r]:
            mine *= 0.9
            mine[category[r]] += 1
    return result


def test_earlier_clicks_warm_a_category_and_too_many_tire():
    made = simulator(rows=40_000, num_users=400, drift=0.0, seed=1)
    log = arrays(log_of(made))
    names = np.array(made.items()["category"].to_pylist())[log["item_id"]]
    category = np.searchsorted(np.sort(CATEGORIES), names)
    # A user's impressions of one item differ by context and history alone.
    pair = log["user_id"] * made.items().num_rows + log["item_id"]
    true = logit(log["true.click"].astype(float)) + 0.5 * log["position"] / 9

    def explained(warmth):
        _, group = np.unique(pair, return_inverse=True)
        size = np.bincount(group)[group]

        def within(x):
            return (x - (np.bincount(group, x) / np.bincount(group))[group])[size > 1]

        return pearsonr(within(true), within(warmth))[0]

    n = heat(log, category) / 2
    assert explained(n * np.exp(1 - n)) > 0.4
    shuffled = dict(log, is_click=np.random.default_rng(0).permutation(log["is_click"]))
    m = heat(shuffled, category) / 2
    assert explained(m * np.exp(1 - m)) < 0.7 * explained(n * np.exp(1 - n))


def test_items_are_popular_in_the_manner_of_zipf(log):
    counts = np.sort(np.bincount(log["item_id"], minlength=600))[::-1]
    assert counts[:60].sum() > 0.25 * counts.sum()
    assert counts[-300:].sum() < 0.35 * counts.sum()


def test_no_item_is_shown_before_its_upload(made, log):
    upload = made.items()["upload_day"].to_numpy()[log["item_id"]]
    assert (upload < log["day"]).all()
    assert (made.items()["upload_day"].to_numpy() >= 0).any()


def test_about_one_value_in_a_hundred_is_missing_in_users(made):
    users = made.users()
    for name in ("age_group", "gender", "city_tier", "favourite", "activity"):
        assert 0 < users[name].null_count < 0.03 * users.num_rows
    assert users["user_id"].null_count == 0
    assert pc.min(pc.list_value_length(made.items()["tags"])).as_py() == 0


def test_active_users_have_more_rows(made, log):
    activity = made.users()["activity"].to_pandas().fillna(1.0).to_numpy()
    counts = np.bincount(log["user_id"], minlength=1500)
    assert np.corrcoef(activity, counts)[0, 1] > 0.95


def test_clicks_can_be_told_apart_but_not_perfectly(log):
    true, click = log["true.click"], log["is_click"]
    order = np.argsort(true)
    rank = np.empty(len(true))
    rank[order] = np.arange(1, len(true) + 1)
    ones = click.sum()
    auc = (rank[click == 1].sum() - ones * (ones + 1) / 2) / ones / (len(true) - ones)
    assert 0.77 < auc < 0.87
