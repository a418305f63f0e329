"""Rows of score requests whose users have long histories and texts stored."""

import asyncio
import time
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
from entity_app import AT, BOTH, SLOW, app_with

from recsys_mtl.errors import RequestError
from recsys_mtl.rank.request import ScoreRequest, ScoreTable
from serving.model_set import ModelSet

NOW_US = AT["ts"] * 1_000
MIB = 1024 * 1024
# Of the bundle's two histories, the longest window has five events.
LENGTH = 5


def history_of(count, seed=0):
    """Events before and after ``AT``, in no order."""
    rng = np.random.default_rng(seed)
    return {
        "clicks.time": (AT["ts"] + rng.integers(-90, 40, count)).tolist(),
        "clicks.item_id": (100 + rng.integers(0, 40, count)).tolist(),
        "views.time": (AT["ts"] + rng.integers(-9, 9, count)).tolist(),
        "views.item_id": (100 + rng.integers(0, 40, count)).tolist(),
    }


def rows_of(user, times):
    return [
        {"user_id": user, "item_id": 101 + i % 20} | ({} if at is None else {"ts": at})
        for i, at in enumerate(times)
    ]


def forms_of(rows):
    """The same rows in each form that a request may have."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    return [
        ScoreRequest(rows=rows),
        ScoreRequest(columns=columns),
        ScoreTable(table=pa.table(columns)),
    ]


@pytest.fixture
def filled(ranker, tmp_path):
    """Fills a request from a store to which users were put."""
    (model,) = ModelSet.of({"tiny": ranker}).models
    options = {"kind": "lmdb", "path": str(tmp_path / "e")} | SLOW

    with app_with(ranker, **options) as (_, lookup):

        def fill(users, request):
            schema = lookup.schema(model)
            lookup.store.put_many(
                "users", list(users.items()), now_us=0, checked=schema.version
            )
            made, _, degraded = asyncio.run(lookup.fill(request, model, time_s=60))
            assert not degraded
            return made

        yield fill


def cells_of(request, name):
    if isinstance(request, ScoreTable):
        return request.table.column(name).to_pylist()
    if request.rows is not None:
        return [row.get(name) for row in request.rows]
    return request.columns[name]


@pytest.mark.parametrize("form", [0, 1, 2])
@pytest.mark.parametrize("count", [0, 3, LENGTH, 40])
def test_scores_are_those_of_the_whole_history(ranker, filled, form, count):
    times = [AT["ts"] + shift for shift in (0, -20, 60, 0, -200, -20)]
    rows = [
        *rows_of("long", times),
        *rows_of("u3", times),
        {"user_id": "long", "item_id": 107, "ts": None},
    ]
    stored = history_of(count)
    whole = [row | stored if row["user_id"] == "long" else row for row in rows]
    made = filled({"long": stored}, forms_of(rows)[form])
    got = ranker.answer(made, now_us=NOW_US)
    wanted = ranker.answer(ScoreRequest(rows=whole), now_us=NOW_US)
    assert got.score == pytest.approx(wanted.score, rel=1e-6)
    lengths = [len(events or ()) for events in cells_of(made, "clicks.item_id")]
    assert max(lengths) == min(count, LENGTH)


def test_rows_without_a_time_see_what_was_before_now(ranker, filled):
    ms = int(time.time() * 1_000)
    stored = {
        "clicks.time": [ms - 1_000 + 100_000 * (k % 2) for k in range(20)],
        "clicks.item_id": [101 + k for k in range(20)],
    }
    made = filled({"long": stored}, ScoreRequest(rows=rows_of("long", [None] * 3)))
    assert cells_of(made, "clicks.item_id") == [[111, 113, 115, 117, 119]] * 3


def test_a_time_that_cannot_be_read_is_refused_by_the_ranker(ranker, filled):
    rows = rows_of("long", [AT["ts"], "soon"])
    made = filled({"long": history_of(40)}, ScoreRequest(rows=rows))
    with pytest.raises(RequestError, match=r"rows\[1\].ts"):
        ranker.answer(made, now_us=NOW_US)


def test_a_history_of_which_columns_tell_more_than_others_counts_as_missing(filled):
    stored = history_of(40)
    stored["clicks.item_id"] = stored["clicks.item_id"][:-1]
    made = filled({"long": stored}, ScoreRequest(rows=rows_of("long", [AT["ts"]])))
    (row,) = made.rows
    assert "clicks.time" not in row
    assert "clicks.item_id" not in row
    assert len(row["views.item_id"]) == 3


@pytest.mark.parametrize("form", [0, 1, 2])
def test_memory_and_time_do_not_grow_with_what_is_stored(ranker, filled, form):
    times = [AT["ts"]] * 1_000 + [AT["ts"] - k for k in range(1_000)]
    spent = []
    for count in (100, 50_000):
        request = forms_of(rows_of("long", times))[form]
        users = {"long": history_of(count)}
        filled(users, request)
        tracemalloc.start()
        began = time.process_time()
        made = filled(users, request)
        table = ranker._reader.rows(made, NOW_US).table
        spent.append((time.process_time() - began, tracemalloc.get_traced_memory()[1]))
        tracemalloc.stop()
        assert table.num_rows == 2_000
        # Repeated as stored, it would take 3 GiB.
        assert table.nbytes < 2 * MIB
    (few_s, few_bytes), (many_s, many_bytes) = spent
    # The history itself is read, once.
    assert many_bytes < few_bytes + 40 * MIB
    assert many_s < 10 * few_s + 5


def test_texts_that_would_take_too_much_in_every_row_are_refused(ranker, tmp_path):
    options = {"kind": "lmdb", "path": str(tmp_path / "e")} | BOTH | SLOW
    with app_with(ranker, **options) as (client, _):
        for key, cells in (
            ("users/long", {"gender": "x" * 60_000}),
            ("items/101", {"category": "y" * 65_000}),
        ):
            put = client.put(f"/v1/entities/{key}", json={"features": cells})
            assert put.status_code == 200, put.text
        rows = [{"user_id": "long", "item_id": 101} | AT] * 2_000
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        for body, field in (
            ({"rows": rows}, "rows"),
            ({"columns": columns}, "columns"),
        ):
            for _ in range(2):  # nothing is kept of what was refused
                refused = client.post("/v1/score", json=body)
                assert refused.status_code == 422
                assert refused.json()["error"]["field"] == field
                message = refused.json()["error"]["message"]
                assert "fewer than 2,000 rows" in message
                assert "'category'" in message
        few = client.post("/v1/score", json={"rows": rows[:500]})
        assert few.status_code == 200
        assert few.json()["stored"]["users"] == 1


def test_more_than_a_lookup_may_find_is_refused(ranker, tmp_path):
    with app_with(ranker, kind="lmdb", path=str(tmp_path / "e"), **SLOW) as (
        client,
        lookup,
    ):
        users = [f"long{k}" for k in range(300)]
        for user in users:
            lookup.store.put_many("users", [(user, {"gender": "x" * 65_536})], now_us=0)
        rows = [{"user_id": user, "item_id": 101} for user in users]
        refused = client.post("/v1/score", json={"rows": rows})
        assert refused.status_code == 422
        assert refused.json()["error"]["field"] == "users"
        # Nothing is wrong with the store: it is asked again.
        for _ in range(6):
            client.post("/v1/score", json={"rows": rows})
        few = client.post("/v1/score", json={"rows": rows[:100]}).json()
        assert few["stored"]["users"] == 100
