"""Requests answered together, and answers that explain themselves."""

import msgspec
import numpy as np
import pytest

from recsys_mtl.errors import RequestError
from recsys_mtl.export.bundle import load_bundle
from recsys_mtl.rank import ranker as ranker_module
from recsys_mtl.rank.answer import best_first
from recsys_mtl.rank.observation import Observation
from recsys_mtl.rank.ranker import Ranker
from recsys_mtl.rank.request import ItemInput, RankRequest, ScoreRequest, UserInput

START_S = 1_700_000_000
NOW_US = (START_S + 30) * 1_000_000
IDS = [101, 102, 99, 103, 101]
BY_ID = RankRequest(user=UserInput(id="u1"), item_ids=IDS, request_id="ids")
GIVEN = RankRequest(
    user=UserInput(id="nobody", features={"city": "oslo", "age": 3}),
    context={"position": 2, "at": START_S + 10},
    items=[
        ItemInput(id=101, features={"price": 2.5}),
        ItemInput(features={"brand": "x"}),
    ],
)
BY_ITEM = RankRequest(
    user=UserInput(id="u2"),
    items=[ItemInput(id=101, features={"position": 1}), ItemInput(id=104)],
)
ROWS = ScoreRequest(rows=[{"user_id": "u1", "item_id": 101}, {"at": START_S + 5}])
COLUMNS = ScoreRequest(columns={"item_id": [101, 102, 103]}, tasks=["stay"])
EMPTY = RankRequest(user=UserInput(id="u1"), item_ids=[])
GOOD = [BY_ID, GIVEN, BY_ITEM, ROWS, COLUMNS, EMPTY]
BAD = [
    RankRequest(user=UserInput(id="u1"), item_ids=[101], tasks=["clik"]),
    RankRequest(item_ids=["no number"]),
    RankRequest(),
    ScoreRequest(columns={"item_id": [1], "price": [1.0, 2.0]}),
    RankRequest(item_ids=[1], user=UserInput(histories={"seen": {"item_id": [1]}})),
]


@pytest.fixture(scope="module")
def ranker(rich):
    return Ranker(load_bundle(rich.bundle))


def plain(ranker, request):
    """The answer by way of raw rows: ids and predictions, best first."""
    parts = ranker._reader.ranking(request, NOW_US)
    scored = ranker.score(parts.table)
    order = best_first(scored, request.top_k)
    return [parts.ids[i] for i in order], scored.prediction_BT[order]


def numbers(response):
    return np.array([[*item.predictions.values()] for item in response.items])


@pytest.mark.parametrize("request_", [BY_ID, GIVEN, BY_ITEM])
def test_a_ranking_is_that_of_its_raw_rows(ranker, request_):
    response = ranker.rank(request_, now_us=NOW_US)
    ids, prediction_BT = plain(ranker, request_)
    assert [item.id for item in response.items] == ids
    np.testing.assert_allclose(numbers(response), prediction_BT, atol=1e-5)


def close(one, other):
    """Equal but for the last digits of numbers."""
    one, other = (msgspec.to_builtins(response) for response in (one, other))
    assert _rounded(one) == _rounded(other)


def _rounded(value):
    if isinstance(value, dict):
        return {name: _rounded(of) for name, of in value.items()}
    if isinstance(value, list):
        return [_rounded(of) for of in value]
    return pytest.approx(value, abs=1e-5) if isinstance(value, float) else value


def test_requests_answered_together_are_answered_as_alone(ranker):
    together = ranker.respond(GOOD, now_us=NOW_US)
    for request, response in zip(GOOD, together, strict=True):
        (alone,) = ranker.respond([request], now_us=NOW_US)
        close(response, alone)


def test_a_refused_request_harms_no_other(ranker):
    mixed = [r for pair in zip(BAD, GOOD[: len(BAD)], strict=True) for r in pair]
    outcomes = ranker.respond([*mixed, GOOD[-1]], now_us=NOW_US)
    faults, answers = outcomes[:-1:2], [*outcomes[1::2], outcomes[-1]]
    assert [type(fault) for fault in faults] == [RequestError] * len(BAD)
    assert [fault.field for fault in faults] == [
        "tasks[0]",
        "item_ids[0]",
        "items",
        "columns.item_id",
        "user.histories.seen.time",
    ]
    for answer, alone in zip(answers, ranker.respond(GOOD, now_us=NOW_US), strict=True):
        close(answer, alone)


def test_no_requests_have_no_answers(ranker):
    assert ranker.respond([], now_us=NOW_US) == []


def test_only_those_who_ask_get_details(tiny_kinds):
    kinds = Ranker(load_bundle(tiny_kinds.bundle))
    asks = [
        RankRequest(user=UserInput(id="u1"), item_ids=[101, 105], details=details)
        for details in (True, False)
    ]
    told, untold = kinds.respond(asks, now_us=NOW_US)
    assert [list(item.details) for item in told.items] == [["leave", "rating"]] * 2
    assert all(item.details is msgspec.UNSET for item in untold.items)


def test_a_bundle_without_encoded_entities_answers_alike(rich, ranker, monkeypatch):
    old = load_bundle(rich.bundle)
    object.__setattr__(old, "encoded", None)
    lazy = Ranker(old)
    assert lazy._encoder is not None
    monkeypatch.setattr(ranker_module, "_MOST_ROWS", 3)
    never = Ranker(old)
    for other in (lazy, never):
        answers = other.respond(GOOD, now_us=NOW_US)
        for mine, theirs in zip(
            answers, ranker.respond(GOOD, now_us=NOW_US), strict=True
        ):
            close(mine, theirs)
    assert never._encoder is None


def test_stages_and_predictions_are_told_to_whoever_watches(ranker):
    watched = Observation()
    ranker.respond([*GOOD, BAD[0]], now_us=NOW_US, observation=watched)
    assert set(watched.seconds()) == {"read", "encode", "forward", "fuse"}
    assert all(seconds > 0 for seconds in watched.seconds().values())
    counts = {place: len(of) for place, of in watched.prediction_BT.items()}
    assert counts == {0: 5, 1: 2, 2: 2, 3: 2, 4: 3, 5: 0}


def test_an_answer_explains_what_was_missing_or_unknown(ranker):
    request = RankRequest(
        user=UserInput(id="u99", features={"age": 3, "interests": ["a", "?"]}),
        items=[
            ItemInput(id=999, features={"price": 1.0}),
            ItemInput(id=101, features={"brand": "never seen", "tags": ""}),
        ],
        context={"at": START_S + 49},
        explain=True,
    )
    response = ranker.rank(request, now_us=NOW_US)
    told = response.explain
    assert told.shared.missing == [
        "city",
        "position",
        "place",
        "city_place",
        "user_ctr",
        "clicks",
        "seen",
    ]
    assert told.shared.unknown == ["user_id", "interests"]
    gaps = {
        item.id: (gap.missing, gap.unknown)
        for item, gap in zip(response.items, told.items, strict=True)
    }
    assert gaps[999] == (
        ["brand", "tags", "city_brand", "place_brand", "item_ctr", "item_recent"],
        ["item_id"],
    )
    missing, unknown = gaps[101]
    assert unknown == ["brand"]
    assert "brand" not in missing
    assert [network.keys() for network in told.network] == [{"click", "stay"}] * 2
    assert set(told.stage_ms) == {"read", "encode", "forward", "fuse"}
    assert told.answered_together == 1


def test_a_gap_of_one_candidate_in_the_context_is_told_of_that_one(ranker):
    request = RankRequest(
        user=UserInput(id="u1"),
        items=[ItemInput(id=101, features={"position": 1}), ItemInput(id=102)],
        explain=True,
    )
    response = ranker.rank(request, now_us=NOW_US)
    assert "position" not in response.explain.shared.missing
    gaps = zip(response.items, response.explain.items, strict=True)
    assert {item.id: "position" in gap.missing for item, gap in gaps} == {
        101: False,
        102: True,
    }


def test_an_explanation_is_of_the_returned_candidates_and_changes_nothing(ranker):
    asks = [
        msgspec.structs.replace(BY_ID, top_k=2, explain=explain)
        for explain in (True, False)
    ]
    told, untold = ranker.respond(asks, now_us=NOW_US)
    assert len(told.explain.items) == len(told.explain.network) == 2
    assert untold.explain is msgspec.UNSET
    close(told.items, untold.items)
    assert told.explain.answered_together == 2
