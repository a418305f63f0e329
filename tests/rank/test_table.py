"""Requests whose candidates or rows are Arrow tables answer as the same in JSON."""

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from recsys_mtl.errors import RequestError
from recsys_mtl.export.bundle import load_bundle
from recsys_mtl.rank.ranker import Ranker
from recsys_mtl.rank.request import (
    RankedTable,
    RankRequest,
    RankResponse,
    RankTable,
    ScoreRequest,
    ScoreTable,
)
from recsys_mtl.rank.signature import MAX_TEXT_BYTES

NOW = 1_700_000_450_000_000
ITEMS = [101, 105, 117, 102, 130, 777_777]
PRICES = [3.5, None, 1e6, 0.0, 12.25, None]
PLACES = [3, 1, 4, None, 5, 9]
TAGS = ["a|b", None, "", "c", "e", "a"]


@pytest.fixture(scope="module")
def ranker(tiny):
    return Ranker(load_bundle(tiny.bundle))


def rank_table(columns, **changes):
    given = {"user": {"id": "u3"}, "context": {"ts": 1_700_000_400_000, "position": 7}}
    request = msgspec.convert(given | changes, RankRequest)
    return RankTable(**msgspec.structs.asdict(request), table=pa.table(columns))


def rank_json(columns, **changes):
    names = [name for name in columns if name != "item_id"]
    items = [
        {"id": item, "features": {name: columns[name][i] for name in names}}
        for i, item in enumerate(columns["item_id"])
    ]
    given = {"user": {"id": "u3"}, "context": {"ts": 1_700_000_400_000, "position": 7}}
    return msgspec.convert(given | {"items": items} | changes, RankRequest)


def close(left, right):
    left, right = msgspec.to_builtins(left), msgspec.to_builtins(right)
    for one, two in zip(left.pop("items"), right.pop("items"), strict=True):
        assert one["id"] == two["id"]
        assert one["score"] == pytest.approx(two["score"], abs=1e-6)
        assert one["predictions"] == pytest.approx(two["predictions"], abs=1e-6)
    assert left == right


@pytest.mark.parametrize("columns", [["price"], ["price", "position", "tags"], []])
def test_a_table_of_candidates_ranks_as_items_in_json(ranker, columns):
    given = {"item_id": ITEMS, "price": PRICES, "position": PLACES, "tags": TAGS}
    chosen = {name: given[name] for name in ["item_id", *columns]}
    asked = {"top_k": 4, "tasks": ["watch"], "details": True}
    close(
        ranker.rank(rank_table(chosen, **asked), now_us=NOW),
        ranker.rank(rank_json(chosen, **asked), now_us=NOW),
    )


def test_types_of_other_widths_rank_alike(ranker):
    plain = {"item_id": ITEMS, "price": PRICES, "tags": TAGS}
    typed = {
        "item_id": pa.array(ITEMS, pa.int32()),
        "price": pa.array(PRICES, pa.float64()),
        "tags": pa.array(TAGS).dictionary_encode(),
    }
    close(
        ranker.rank(rank_table(typed), now_us=NOW),
        ranker.rank(rank_json(plain), now_us=NOW),
    )


@pytest.mark.parametrize(
    "texts",
    [
        pa.array(["news", "film", "news", None, "food", "nowhere"]),
        pa.array(["", "", "news", None, "film", "film"]),
        pa.array(["news"] * 5 + [None], pa.large_string()),
    ],
)
def test_dictionaries_of_texts_rank_as_the_texts_do(ranker, texts):
    coded = texts.dictionary_encode()
    other = pa.DictionaryArray.from_arrays(
        pc.subtract(len(coded.dictionary), coded.indices).cast(pa.uint8()),
        pa.concat_arrays([pa.nulls(1, texts.type), coded.dictionary[::-1]]),
    )
    plain = ranker.rank(rank_table({"item_id": ITEMS, "category": texts}), now_us=NOW)
    parts = [texts[:2].dictionary_encode(), texts[2:].dictionary_encode()]
    for column in (coded, other, pa.chunked_array(parts)):
        asked = {"item_id": ITEMS, "category": column}
        close(ranker.rank(rank_table(asked), now_us=NOW), plain)


@pytest.mark.parametrize("changes", [{}, {"top_k": 2, "tasks": ["watch"]}])
@pytest.mark.parametrize("details", [False, True])
def test_an_answer_as_a_table_tells_what_items_tell(ranker, changes, details):
    asked = rank_table({"item_id": ITEMS, "price": PRICES}, details=details, **changes)
    plain = ranker.rank(asked, now_us=NOW)
    told = ranker.rank(msgspec.structs.replace(asked, as_table=True), now_us=NOW)
    assert isinstance(told, RankedTable)
    assert told.items == []
    rest = msgspec.structs.asdict(told) | {"items": plain.items}
    table = rest.pop("table")
    assert RankResponse(**rest) == plain
    assert table["id"].to_pylist() == [item.id for item in plain.items]
    assert table["score"].to_pylist() == [item.score for item in plain.items]
    for task in plain.items[0].predictions:
        numbers = [item.predictions[task] for item in plain.items]
        assert table[f"prediction.{task}"].to_pylist() == numbers
    for task, names in plain.items[0].details.items() if details else ():
        for name in names:
            numbers = [item.details[task][name] for item in plain.items]
            assert table[f"detail.{task}.{name}"].to_pylist() == numbers


def test_a_table_without_keys_is_of_items_without_an_id(ranker):
    ranked = ranker.rank(rank_table({"price": PRICES}), now_us=NOW)
    assert [item.id for item in ranked.items] == [None] * len(PRICES)


def test_a_table_without_rows_ranks_nothing(ranker):
    table = {"item_id": pa.array([], pa.int64())}
    assert ranker.rank(rank_table(table), now_us=NOW).items == []


def test_a_table_of_rows_scores_as_columns_in_json(ranker, tiny):
    raw = tiny.interactions(40)
    times = [[1_700_000_000_000 + i] * (i % 3) for i in range(40)]
    raw = raw.append_column("clicks.time", pa.array(times, pa.list_(pa.int64())))
    items = [[101 + i] * (i % 3) for i in range(40)]
    raw = raw.append_column("clicks.item_id", pa.array(items, pa.list_(pa.int64())))
    by_table = ranker.answer(ScoreTable(table=raw), now_us=NOW)
    by_cell = ranker.answer(ScoreRequest(columns=raw.to_pydict()), now_us=NOW)
    np.testing.assert_allclose(by_table.score, by_cell.score, atol=1e-6)
    assert by_table.unknown == by_cell.unknown


def test_times_may_be_timestamps(ranker, tiny):
    raw = tiny.interactions(40)
    stamps = raw["ts"].cast(pa.timestamp("ms", "UTC"))
    stamped = raw.set_column(raw.column_names.index("ts"), "ts", stamps)
    np.testing.assert_array_equal(
        ranker.answer(ScoreTable(table=stamped), now_us=NOW).score,
        ranker.answer(ScoreTable(table=raw), now_us=NOW).score,
    )


def refused(call, *request):
    with pytest.raises(RequestError) as caught:
        call(*request, now_us=NOW)
    return caught.value


@pytest.mark.parametrize(
    ("columns", "field", "reason"),
    [
        ({"prize": [1.0]}, "columns.prize", "did you mean 'price'"),
        ({"age": [1]}, "columns.age", "user.features"),
        ({"user_id": ["u1"]}, "columns.user_id", "key"),
        ({"ts": [1]}, "columns.ts", "context"),
        ({"price": [1.0, np.nan]}, "columns.price[1]", "finite"),
        ({"price": ["x"]}, "columns.price", "a number, got string"),
        ({"item_id": [1.5]}, "columns.item_id[0]", "a whole number"),
        ({"position": [{"a": 1}]}, "columns.position", "got struct"),
        ({"category": ["x" * (MAX_TEXT_BYTES + 1)]}, "columns.category[0]", "at most"),
    ],
    ids=str,
)
def test_a_wrong_column_of_candidates_is_refused(ranker, columns, field, reason):
    table = {
        name: pa.array(cells, from_pandas=False) for name, cells in columns.items()
    }
    fault = refused(ranker.rank, rank_table(table))
    assert fault.field == field
    assert reason in fault.message


@pytest.mark.parametrize(
    ("columns", "field"),
    [
        ({"prize": [1.0]}, "columns.prize"),
        ({"clicks.item_id": [[1]]}, "columns.clicks.item_id[0]"),
        (
            {"clicks.time": [[1], [2, 3]], "clicks.item_id": [[1], [2]]},
            "columns.clicks.item_id[1]",
        ),
        ({"clicks.time": [[1, None]]}, "columns.clicks.time[0][1]"),
        ({"ts": [2**62]}, "columns.ts[0]"),
    ],
    ids=str,
)
def test_a_wrong_column_of_rows_is_refused(ranker, columns, field):
    assert refused(ranker.answer, ScoreTable(table=pa.table(columns))).field == field


def test_candidates_are_given_once(ranker):
    both = rank_table({"item_id": [101]}, item_ids=[102])
    assert refused(ranker.rank, both).field == "items"
    rows = ScoreTable(table=pa.table({"item_id": [101]}), rows=[])
    assert refused(ranker.answer, rows).field == "rows"


def test_long_text_in_json_is_refused_by_place(ranker):
    long = "x" * (MAX_TEXT_BYTES + 1)
    rows = ScoreRequest(rows=[{"category": "a"}, {"category": long}])
    assert refused(ranker.answer, rows).field == "rows[1].category"
    split = ScoreRequest(columns={"tags": [["a", long]]})
    assert refused(ranker.answer, split).field == "columns.tags[0]"
