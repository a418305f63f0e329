"""Ranking over a real socket, against the ranker in this process."""

import concurrent.futures

import numpy as np
import pyarrow as pa
import pytest
from asking import AT, ITEMS, TOLERANCE, USER, ask, assert_same_items, by_id


def test_ids_alone_score_as_in_process(client, ranker):
    rows = {"user_id": [USER] * len(ITEMS), "item_id": ITEMS, "ts": [AT] * len(ITEMS)}
    scored = ranker.score(pa.table(rows))
    answer = ask(client)
    for i, item in enumerate(ITEMS):
        got = by_id(answer)[item]
        assert got["score"] == pytest.approx(scored.score_B[i], abs=TOLERANCE)
        predictions = dict(zip(ranker.tasks, scored.prediction_BT[i], strict=True))
        assert got["predictions"] == pytest.approx(predictions, abs=TOLERANCE)


def test_features_given_score_as_features_looked_up(client, tiny):
    given = ask(
        client,
        user={
            "id": USER,
            "features": tiny.user_features(USER),
            "histories": tiny.user_histories(USER),
        },
        items=[{"id": i, "features": tiny.item_features(i)} for i in ITEMS],
        item_ids=None,
    )
    assert_same_items(given, ask(client))


def test_a_given_feature_wins_over_the_looked_up_one(client):
    plain = ask(client)
    changed = ask(
        client,
        items=[{"id": i, "features": {"price": 1e6}} for i in ITEMS],
        item_ids=None,
    )
    assert all(
        by_id(plain)[i]["score"] != pytest.approx(by_id(changed)[i]["score"], abs=1e-5)
        for i in ITEMS
    )


def test_a_feature_of_one_item_leaves_the_others_alone(client):
    one = {"id": ITEMS[0], "features": {"price": 1e6}}
    rest = [{"id": i} for i in ITEMS[1:]]
    changed, plain = by_id(ask(client, items=[one, *rest], item_ids=None)), ask(client)
    for item in ITEMS[1:]:
        assert changed[item]["score"] == pytest.approx(
            by_id(plain)[item]["score"], abs=TOLERANCE
        )


def test_items_come_best_first(client):
    scores = [item["score"] for item in ask(client)["items"]]
    assert scores == sorted(scores, reverse=True)


def test_equal_scores_stay_in_the_order_given(client):
    items = [{"id": 101, "features": {}} for _ in range(4)]
    answer = ask(client, items=[*items, {"id": 102}], item_ids=None)
    assert [item["id"] for item in answer["items"]].count(101) == 4
    strangers = [f"{n}" for n in (9001, 9002, 9003)]
    answer = ask(client, item_ids=[int(n) for n in strangers])
    assert [item["id"] for item in answer["items"]] == [9001, 9002, 9003]


def test_permuting_items_permutes_scores(client):
    assert_same_items(ask(client), ask(client, item_ids=ITEMS[::-1]))


def test_an_item_scores_alone_as_among_others(client):
    together = by_id(ask(client))
    for item in ITEMS:
        (alone,) = ask(client, item_ids=[item])["items"]
        assert alone["score"] == pytest.approx(together[item]["score"], abs=TOLERANCE)


def test_top_k_is_the_head_of_the_whole_answer(client):
    assert ask(client, top_k=2)["items"] == ask(client)["items"][:2]
    assert ask(client, top_k=99)["items"] == ask(client)["items"]


def test_tasks_choose_what_is_told_and_not_the_score(client):
    (full, short) = ask(client), ask(client, tasks=["watch"])
    assert [i["id"] for i in full["items"]] == [i["id"] for i in short["items"]]
    assert all(list(item["predictions"]) == ["watch"] for item in short["items"])


def test_nothing_to_rank_is_no_fault(client):
    assert ask(client, item_ids=[])["items"] == []


def test_unknown_users_and_items_are_scored_and_told(client):
    answer = ask(client, user={"id": "nobody"}, item_ids=[101, 777_777])
    assert answer["unknown"] == {"user": True, "items": [777_777]}
    assert all(np.isfinite(item["score"]) for item in answer["items"])
    assert ask(client)["unknown"] == {"user": False, "items": []}


def test_an_unknown_user_scores_as_one_without_an_id(client):
    assert_same_items(
        ask(client, user={"id": "nobody"}), ask(client, user={"id": "someone else"})
    )


def test_the_time_of_the_request_counts_and_is_told(client):
    answer = ask(client)
    assert (answer["timestamp"], answer["timestamp_from"]) == (AT, "request")
    # Before its first event, a user has no history.
    early = ask(client, context={"ts": 0})
    assert by_id(early)[101]["score"] != pytest.approx(by_id(answer)[101]["score"])


def test_the_server_tells_the_time_it_took(client):
    answer = ask(client, context={})
    assert answer["timestamp_from"] == "server"
    assert_same_items(answer, ask(client, context={"ts": answer["timestamp"]}))


def test_request_ids_come_back_and_are_made_where_left_out(client):
    assert ask(client, request_id="r-7")["request_id"] == "r-7"
    assert ask(client)["request_id"] != ask(client)["request_id"]


def test_parallel_requests_get_their_own_answers(client):
    chunks = [ITEMS[i : i + 2] for i in range(4)]
    alone = [ask(client, item_ids=chunk, request_id="x") for chunk in chunks]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        together = list(
            pool.map(
                lambda chunk: ask(client, item_ids=chunk, request_id="x"), chunks * 8
            )
        )
    for got, expected in zip(together, alone * 8, strict=True):
        assert_same_items(got, expected)  # batches of other sizes sum in another order
