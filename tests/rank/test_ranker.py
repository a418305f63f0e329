import numpy as np
import pyarrow as pa
import pytest

from recsys_mtl.export.bundle import load_bundle
from recsys_mtl.rank.answer import best_first
from recsys_mtl.rank.ranker import Ranker, Scored
from recsys_mtl.rank.raw import raw_time
from recsys_mtl.rank.request import ItemInput, RankRequest, ScoreRequest, UserInput

NOW = 1_700_000_450_000_000


@pytest.fixture(scope="module")
def ranker(tiny):
    return Ranker(load_bundle(tiny.bundle))


@pytest.mark.parametrize("size", [1, 7, 64])
def test_rows_score_the_same_in_batches_of_any_size(ranker, tiny, size):
    raw = tiny.interactions(100)
    whole = ranker.score(raw)
    parts = [ranker.score(raw.slice(i, size)) for i in range(0, 100, size)]
    for name in ("prediction_BT", "score_B", "known_user_B", "known_item_B"):
        np.testing.assert_allclose(
            np.concatenate([getattr(part, name) for part in parts]),
            getattr(whole, name),
            rtol=1e-6,
            atol=1e-6,
        )


def test_permuting_rows_permutes_scores(ranker, tiny):
    raw = tiny.interactions(50)
    order = np.random.default_rng(0).permutation(50)
    np.testing.assert_allclose(
        ranker.score(raw.take(pa.array(order))).score_B,
        ranker.score(raw).score_B[order],
        rtol=1e-6,
    )


def test_labels_in_the_rows_change_nothing(ranker, tiny):
    labelled = tiny.log.slice(100, 50)
    np.testing.assert_array_equal(
        ranker.score(labelled).score_B, ranker.score(tiny.interactions(50)).score_B
    )


def test_the_score_is_the_weighted_sum_of_the_predictions(ranker, tiny):
    scored = ranker.score(tiny.interactions(20))
    click_B, watch_B = scored.prediction_BT.astype(np.float64).T
    np.testing.assert_allclose(scored.score_B, click_B + 0.01 * watch_B)


def test_no_rows_have_no_scores(ranker, tiny):
    scored = ranker.score(tiny.interactions(0))
    assert scored.prediction_BT.shape == (0, 2)
    assert scored.score_B.shape == (0,)
    assert ranker.answer(ScoreRequest(rows=[]), now_us=NOW).score == []


def test_columns_left_out_are_missing_and_no_fault(ranker):
    scored = ranker.score(pa.table({"position": [1, 2]}))
    assert np.isfinite(scored.prediction_BT).all()
    assert not scored.known_user_B.any()


def test_one_request_has_one_answer(ranker):
    request = RankRequest(user=UserInput(id="u3"), item_ids=[101, 102])
    assert ranker.rank(request, now_us=NOW) == ranker.rank(request, now_us=NOW)


def test_the_caller_says_what_time_it_is(ranker):
    request = RankRequest(user=UserInput(id="u3"), item_ids=[101, 102])
    now, earlier = (ranker.rank(request, now_us=t) for t in (NOW, 0))
    assert now.timestamp == NOW // 1_000
    assert now.items != earlier.items


def test_later_events_of_a_given_history_are_not_seen(ranker):
    def score(**history):
        user = UserInput(id="u3", histories={"clicks": history})
        request = RankRequest(user=user, item_ids=[101], context={"ts": 1_000_000})
        return ranker.rank(request, now_us=NOW).items[0].score

    past = score(time=[500_000], item_id=[105])
    assert score(time=[500_000, 1_000_000], item_id=[105, 110]) == past
    assert score(time=[500_000, 2_000_000], item_id=[105, 110]) == past
    assert score(time=[500_000, 999_999], item_id=[105, 110]) != past


def test_a_context_column_may_differ_from_item_to_item(ranker):
    def ranked(context, *features):
        items = [ItemInput(id=101, features=f) for f in features]
        request = RankRequest(user=UserInput(id="u3"), context=context, items=items)
        return [item.score for item in ranker.rank(request, now_us=NOW).items]

    (one,) = ranked({"position": 1}, {})
    (two,) = ranked({"position": 2}, {})
    assert one != two
    mixed = ranked({"position": 1}, {}, {"position": 2}, {"position": None})
    np.testing.assert_allclose(sorted(mixed), sorted([one, two, one]), atol=1e-6)


def test_what_is_known_after_the_impression_cannot_be_asked_with(ranker):
    assert "dwell" not in {column.name for column in ranker.card.signature}
    assert "clicks.dwell" in {column.name for column in ranker.card.signature}


@pytest.mark.parametrize(
    ("unit", "raw"),
    [
        ("s", 1_700_000_450),
        ("ms", 1_700_000_450_000),
        ("us", 1_700_000_450_000_000),
        ("ns", 1_700_000_450_000_000_000),
        ("iso8601", "2023-11-14T22:20:50+00:00"),
    ],
)
def test_a_time_is_written_as_it_is_read(unit, raw):
    from recsys_mtl.config.data import TimestampSpec
    from recsys_mtl.features.time import to_micros

    spec = TimestampSpec(column="t", unit=unit)
    assert raw_time(NOW, spec) == raw
    assert to_micros(pa.array([raw]), spec).to_pylist() == [NOW]


def test_equal_scores_stay_in_the_order_given():
    score_B = np.random.default_rng(0).integers(0, 3, 200).astype(np.float64)
    known_B = np.ones(200, bool)
    none_BT = np.zeros((200, 2), np.float32)
    scored = Scored(none_BT, score_B, known_B, known_B, {}, none_BT)
    expected = sorted(range(200), key=lambda i: -score_B[i])
    assert best_first(scored, None).tolist() == expected
    assert best_first(scored, 7).tolist() == expected[:7]


@pytest.fixture(scope="module")
def kinds(tiny_kinds):
    return Ranker(load_bundle(tiny_kinds.bundle))


def test_details_are_told_to_those_who_ask(kinds, tiny_kinds):
    raw = tiny_kinds.interactions(20)
    assert kinds.score(raw).details == {}
    scored = kinds.score(raw, details=True)
    assert list(scored.details) == ["leave", "rating"]
    leave, rating = scored.details.values()
    assert list(leave) == ["median", "survival@2", "hazard@2"]
    assert ((leave["survival@2"] > 0) & (leave["survival@2"] < 1)).all()
    levels_B = sum(level * rating[f"prob@{level}"] for level in range(3))
    np.testing.assert_allclose(levels_B, scored.prediction_BT[:, 1], rtol=1e-5)
    cards = {card.name: card.details for card in kinds.card.tasks}
    assert cards == {"leave": [*leave], "rating": [*rating], "click": []}


def test_answers_have_the_details_of_the_tasks_asked_for(kinds, tiny_kinds):
    rows = tiny_kinds.interactions(5).to_pylist()
    request = ScoreRequest(rows=rows, tasks=["leave", "click"], details=True)
    answer = kinds.answer(request, now_us=NOW)
    expected = kinds.score(tiny_kinds.interactions(5), details=True).details["leave"]
    assert list(answer.details) == ["leave"]
    for name, detail_B in answer.details["leave"].items():
        np.testing.assert_allclose(detail_B, expected[name], rtol=1e-6)
    ranking = RankRequest(user=UserInput(id="u1"), item_ids=[101, 105], details=True)
    ranked = kinds.rank(ranking, now_us=NOW)
    assert [list(item.details) for item in ranked.items] == [["leave", "rating"]] * 2


def test_no_rows_have_details_without_numbers(kinds, tiny_kinds):
    empty = kinds.score(tiny_kinds.interactions(0), details=True).details
    names = kinds.score(tiny_kinds.interactions(1), details=True).details
    assert [*empty["leave"]] == [*names["leave"]]
    assert all(len(detail_B) == 0 for detail_B in empty["leave"].values())
