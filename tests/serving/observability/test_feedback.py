"""Labels, joined with answers over HTTP."""

import json
import math
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest

from recsys_mtl.errors import RequestError
from recsys_mtl.export.bundle import load_bundle
from recsys_mtl.rank.card import ModelCard, TaskCard
from recsys_mtl.rank.ranker import Ranker
from serving.arrow_answer import RESPONSE_KEY
from serving.media import ARROW
from serving.observability.feedback import (
    Answers,
    Feedback,
    FeedbackEvent,
    FeedbackRequest,
)
from serving.observability.ledger import Ledger

TASKS = [TaskCard("click", "binary"), TaskCard("watch", "value")]
CARD = ModelCard(
    **dict.fromkeys(ModelCard.__struct_fields__)
    | {"name": "m", "version": "1", "tasks": TASKS}
)


def made(max_bytes=10**6, max_events=100, remembered=100):
    ledger, answers = Ledger(), Answers(max_bytes)
    feedback = Feedback(answers, ledger, max_events=max_events, remembered=remembered)
    feedback.serves([CARD])
    return feedback, answers, ledger


def event(number=0, request_id="r", item_id=7, labels=None, **more):
    return FeedbackEvent(
        str(number), request_id, labels or {"click": 1.0}, item_id, **more
    )


def take(feedback, *events):
    return feedback.take(FeedbackRequest(list(events)))


def stream_of(table):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def sums(ledger, task="click"):
    return [
        ledger.counters[f"recsys_feedback_{name}_total"].get(("m", "1", task), 0.0)
        for name in ("labels", "label_sum", "prediction_sum")
    ]


def test_events_are_joined_by_request_and_item(serving, ranker):
    asked = serving()
    answer = asked.rank().json()
    click, watch = ranker.tasks[:2]
    events = [
        {
            "event_id": str(i),
            "request_id": answer["request_id"],
            "item_id": item["id"],
            "labels": {click: float(i == 0), watch: None},
        }
        for i, item in enumerate(answer["items"])
    ]
    told = asked("POST", "/v1/feedback", json={"events": events})
    assert told.json() == {"joined": 3, "given": 0, "unjoined": 0, "duplicate": 0}
    told = asked("POST", "/v1/feedback", json={"events": events[:2]})
    assert told.json() == {"joined": 0, "given": 0, "unjoined": 0, "duplicate": 2}
    where = ("model", ranker.name), ("task", click), ("version", ranker.card.version)
    counts = asked.told()
    assert counts["recsys_feedback_labels_total", *where] == 3
    assert counts["recsys_feedback_label_sum_total", *where] == 1
    predicted = sum(item["predictions"][click] for item in answer["items"])
    got = counts["recsys_feedback_prediction_sum_total", *where]
    assert got == pytest.approx(predicted, rel=1e-6)
    assert counts["recsys_feedback_events_total", ("outcome", "joined")] == 3
    assert counts["recsys_feedback_events_total", ("outcome", "duplicate")] == 2
    # A label that is not there yet says nothing.
    where = ("model", ranker.name), ("task", watch), ("version", ranker.card.version)
    assert ("recsys_feedback_labels_total", *where) not in counts


def test_candidates_that_were_not_returned_can_be_joined_too(serving, ranker):
    asked = serving()
    answer = asked.rank(top_k=1).json()
    (shown,) = answer["items"]
    other = next(i for i in (101, 105, 117) if i != shown["id"])
    events = [
        {
            "event_id": str(item),
            "request_id": answer["request_id"],
            "item_id": item,
            "labels": {ranker.tasks[0]: 0},
        }
        for item in (shown["id"], other, 999)
    ]
    told = asked("POST", "/v1/feedback", json={"events": events}).json()
    assert (told["joined"], told["unjoined"]) == (2, 1)


@pytest.mark.parametrize("sent_as", ["json", "arrow"])
def test_an_id_is_the_same_as_a_number_and_as_text(serving, tiny_texts, sent_as):
    """The model has texts: answers in Arrow do, too, whatever the request had."""
    ranker = Ranker(load_bundle(tiny_texts.bundle))
    asked, headers, ids = serving(ranker), {"accept": ARROW}, [101, 105, 117]
    body = json.dumps({"item_ids": ids}).encode()
    if sent_as == "arrow":
        body, headers["content-type"] = stream_of(pa.table({"item_id": ids})), ARROW
    answer = asked("POST", "/v1/rank", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    table = pa.ipc.open_stream(answer.content).read_all()
    request_id = json.loads(table.schema.metadata[RESPONSE_KEY])["request_id"]
    assert sorted(table["id"].to_pylist()) == ["101", "105", "117"]
    where = ("model", ranker.name), ("task", "click"), ("version", ranker.card.version)
    counted = "recsys_feedback_prediction_sum_total", *where
    total = 0.0
    for row in table.to_pylist():
        for item in (row["id"], int(row["id"])):
            event = {
                "event_id": repr(item),
                "request_id": request_id,
                "item_id": item,
                "labels": {"click": 1},
            }
            told = asked("POST", "/v1/feedback", json={"events": [event]}).json()
            assert told["joined"] == 1, item
            total += row["prediction.click"]
            assert asked.told()[counted] == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize(
    ("given", "told", "joins"),
    [
        (7, "7", True),
        ("7", 7, True),
        (-(2**63), str(-(2**63)), True),
        (str(2**64 - 1), 2**64 - 1, True),
        ("007", 7, False),
        ("7.0", 7, False),
        ("\u0667", 7, False),  # a digit, but not how numbers are written
        ("1_0", 10, False),
        ("None", None, False),
        (None, "None", False),
        (None, None, True),
        (1, "True", False),
        ("9" * 10_000, "9" * 10_000, True),
        ("8" * 10_000, "9" * 10_000, False),
    ],
)
def test_only_what_writes_the_same_id_joins(given, told, joins):
    feedback, answers, _ = made()
    answers.remember("r", CARD, ["x", given], np.array([[0.5, 1]] * 2, np.float32))
    assert take(feedback, event(item_id=told)).joined == int(joins)


def test_another_replica_takes_the_predictions_that_come_along(serving, ranker):
    answered, other = serving(), serving()
    answer = answered.rank().json()
    item = answer["items"][0]
    event = {
        "event_id": "e",
        "request_id": answer["request_id"],
        "item_id": item["id"],
        "labels": {ranker.tasks[0]: 1},
    }
    alone = other("POST", "/v1/feedback", json={"events": [event]})
    assert alone.json()["unjoined"] == 1
    event |= {name: answer[name] for name in ("model", "version")}
    event["predictions"] = item["predictions"]
    # Not a duplicate: the event was not counted the first time.
    given = other("POST", "/v1/feedback", json={"events": [event]})
    assert given.json() == {"joined": 0, "given": 1, "unjoined": 0, "duplicate": 0}
    where = (
        ("model", ranker.name),
        ("task", ranker.tasks[0]),
        ("version", ranker.card.version),
    )
    got = other.told()["recsys_feedback_prediction_sum_total", *where]
    assert got == item["predictions"][ranker.tasks[0]]


def test_versions_that_were_never_served_make_no_series():
    feedback, _, ledger = made()
    more = {"model": "m", "predictions": {"click": 0.5}}
    told = take(feedback, event(0, version="1", **more), event(1, version="x", **more))
    assert (told.given, told.unjoined) == (1, 1)
    assert list(ledger.counters["recsys_feedback_labels_total"]) == [
        ("m", "1", "click")
    ]


REFUSALS = {
    "a misspelt task": (
        event(labels={"clik": 1.0}),
        "events[0].labels.clik",
        "did you mean 'click'?",
    ),
    "a misspelt prediction": (
        event(predictions={"wach": 1.0}, model="m", version="1"),
        "events[0].predictions.wach",
        "did you mean 'watch'?",
    ),
    "NaN": (
        event(labels={"watch": math.nan}),
        "events[0].labels.watch",
        "finite number, got nan",
    ),
    "infinity": (
        event(predictions={"watch": math.inf}, model="m", version="1"),
        "events[0].predictions.watch",
        "finite number, got inf",
    ),
    "no probability": (
        event(labels={"click": 2.0}),
        "events[0].labels.click",
        "from 0 to 1",
    ),
    "predictions of nobody": (
        event(predictions={"click": 0.5}, model="m"),
        "events[0].version",
        "along with predictions",
    ),
}


@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS)
def test_a_wrong_event_is_refused_by_place_and_none_counts(case):
    wrong, field, reason = case
    feedback, answers, ledger = made()
    answers.remember("r2", CARD, [7], np.array([[0.5, 1.0]], np.float32))
    with pytest.raises(RequestError) as refused:
        take(feedback, wrong, event(1, "r2"))
    assert refused.value.field == field
    assert reason in refused.value.message
    assert sums(ledger) == [0, 0, 0]
    # What was refused may come again, corrected.
    assert take(feedback, event(1, "r2")).joined == 1


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b'{"events": [{"event_id": 1}]}', 422, "events[0].event_id"),
        (b'{"events": [], "more": 1}', 422, None),
        (b'{"events": NaN}', 422, "events"),
        (b'{"events"', 400, None),
    ],
)
def test_a_body_that_holds_no_events_is_refused(serving, body, status, field):
    answer = serving()("POST", "/v1/feedback", content=body)
    assert (answer.status_code, answer.json()["error"]["field"]) == (status, field)


def test_events_are_bounded():
    feedback, _, _ = made(max_events=2)
    with pytest.raises(RequestError, match="at most 2 entries, got 3"):
        take(feedback, *[event(i) for i in range(3)])


def test_the_oldest_answers_are_forgotten_and_memory_is_bounded():
    row = np.zeros((100, 2), np.float32)
    feedback, answers, _ = made(max_bytes=100_000)
    for number in range(1_000):
        answers.remember(str(number), CARD, list(range(100)), row)
        assert answers.bytes <= 100_000
    assert 5 < len(answers) < 20
    assert take(feedback, event(0, "0")).unjoined == 1
    assert take(feedback, event(0, "999")).joined == 1
    answers.remember("large", CARD, list(range(100_000)), np.zeros((100_000, 2)))
    assert answers.find("large", 0) is None
    assert answers.find("999", 0) is not None


def test_an_answer_that_comes_again_is_counted_once_in_memory():
    _, answers, _ = made()
    for _ in range(3):
        answers.remember("r", CARD, [1], np.zeros((1, 2), np.float32))
        size = answers.bytes
    assert (len(answers), answers.bytes) == (1, size)


@pytest.mark.parametrize("letter", ["x", "\N{GRINNING FACE}"])
@pytest.mark.parametrize(
    ("letters", "count"),
    [(65_509, 5), (12, 500), (12, 10)],
    ids=["long", "usual", "few"],
)
def test_the_memory_that_is_counted_is_what_is_held(letter, letters, count):
    answers = Answers(2_000_000)
    tracemalloc.start()
    try:
        for number in range(300):
            ids = [f"{number:06d}{i:03d}{letter * letters}" for i in range(count)]
            # Part of a batch of many more rows.
            rows = np.zeros((4_096, 7), np.float32)
            name = f"{number}{letter * 250}"
            answers.remember(name, CARD, ids, rows[:count])
        del ids, rows, name
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(answers) > 0
    assert held < 1.05 * answers.bytes < 1.05 * 2_000_000
    assert held > 0.4 * answers.bytes


def test_long_ids_of_requests_take_no_more_than_the_window(serving, tiny_texts):
    asked = serving(
        Ranker(load_bundle(tiny_texts.bundle)), feedback_window_bytes=300_000
    )
    for number in range(5):
        long = f"{number}{'x' * 65_000}"
        assert asked.rank(item_ids=["i101", long]).status_code == 200
    told = asked.told()
    assert told["recsys_feedback_window_answers",] == 4
    assert 4 * 65_000 < told["recsys_feedback_window_bytes",] <= 300_000


def test_duplicates_are_found_as_long_as_they_are_remembered():
    feedback, answers, ledger = made(remembered=2)
    answers.remember("r", CARD, [7], np.array([[0.25, 1.0]], np.float32))
    for number in (0, 1, 2):
        assert take(feedback, event(number)).joined == 1
    assert take(feedback, event(2), event(1)).duplicate == 2
    assert take(feedback, event(0)).joined == 1
    assert sums(ledger) == [4, 4, 1]


def test_the_calibration_is_that_of_the_labels_over_many_events():
    rng = np.random.default_rng(0)
    feedback, answers, ledger = made(max_bytes=10**8, max_events=10_000)
    prediction = rng.beta(1.0, 9.0, (50, 200, 2)).astype(np.float32)
    label = rng.random((50, 200)) < prediction[:, :, 0] / 1.2
    for r in range(50):
        answers.remember(str(r), CARD, list(range(200)), prediction[r])
        events = [
            event(f"{r}-{i}", str(r), i, {"click": float(label[r, i])})
            for i in range(200)
        ]
        assert take(feedback, *events).joined == 200
    count, labels, predictions = sums(ledger)
    assert (count, labels) == (10_000, label.sum())
    assert predictions == pytest.approx(prediction[:, :, 0].sum(), rel=1e-6)
    assert predictions / labels == pytest.approx(1.2, rel=0.1)
