import numpy as np
import pyarrow as pa
import pytest

from recsys_mtl.errors import DataError
from recsys_mtl.features.counts import FeatureCounts
from recsys_mtl.features.entity_build import build_entities
from recsys_mtl.features.events import EventBlock
from recsys_mtl.features.join import FeatureStore

LATE = 10**9  # seconds, after every row of the log


def naive_events(log, row: dict, length: int, where=lambda row: True) -> list[dict]:
    """A row's history, from the raw tables one row at a time."""
    brand = dict(
        zip(*(log.items[c].to_pylist() for c in ("item", "brand")), strict=True)
    )
    if row["user"] is None or row["at"] is None:
        return []
    earlier = [
        other | {"brand": brand.get(other["item"])}
        for other in log.raw.to_pylist()
        if other["user"] == row["user"]
        and other["at"] is not None
        and other["at"] < row["at"]
        and where(other)
    ]
    return sorted(earlier, key=lambda other: other["at"])[-length:]


def test_offline_histories_are_those_of_a_loop(log):
    clicks, seen = (log.histories[name].to_pylist() for name in ("clicks", "seen"))
    assert sum(len(row["time"]) for row in clicks) > 100
    for n, row in enumerate(log.raw.to_pylist()):
        expected = naive_events(log, row, 4, lambda other: other["click"] == 1)
        for column in ("item", "brand", "stay"):
            assert clicks[n][column] == [event[column] for event in expected]
        assert clicks[n]["time"] == [event["at"] * 1_000_000 for event in expected]
        expected = naive_events(log, row, 3)
        assert seen[n]["item"] == [event["item"] for event in expected]
        assert seen[n]["click"] == [event["click"] for event in expected]


def test_offline_aggregates_are_those_of_a_loop(log):
    joined, raw = log.joined.to_pylist(), log.raw.to_pylist()
    for key, name, length in (("user", "user_ctr", 1_000), ("item", "item_ctr", 6)):
        for n, row in enumerate(raw):
            clicks = [
                (other["at"], other["click"])
                for other in raw
                if None not in (row[key], row["at"], other["at"], other["click"])
                and other[key] == row[key]
                and other["at"] < row["at"]
            ]
            counted = [click for _, click in sorted(clicks, key=lambda c: c[0])][
                -length:
            ]
            assert joined[n][f"{name}.rows"] == len(counted)
            assert joined[n][f"{name}.hits"] == sum(counted)


def late_rows(log, **columns) -> pa.Table:
    users = [*log.users["uid"].to_pylist(), "stranger", None, "u10"]
    table = {
        "user": users,
        "item": [n * 3 for n in range(len(users))],
        "at": [LATE] * len(users),
    }
    return pa.table(table | columns)


def test_the_store_gives_late_rows_what_the_log_gives_them(log):
    """By id alone a request sees what a row after the whole log would see."""
    rows = late_rows(log)
    assembled = log.store.assemble(rows)
    for n, row in enumerate(rows.to_pylist()):
        expected = naive_events(log, row, 4, lambda other: other["click"] == 1)
        got = assembled.histories["clicks"].slice(n, 1).to_pylist()[0]
        for column in ("item", "brand", "stay"):
            assert got[column] == [event[column] for event in expected]
        clicks = [
            o["click"]
            for o in log.raw.to_pylist()
            if o["item"] == row["item"] and None not in (o["at"], o["click"])
        ]
        found = assembled.raw.slice(n, 1).to_pylist()[0]
        assert (found["item_ctr.rows"] or 0) == min(len(clicks), 6)
        events = naive_events(log, row, 1_000, lambda other: other["click"] is not None)
        clicks = [event["click"] for event in events]
        assert (found["user_ctr.rows"] or 0, found["user_ctr.hits"] or 0) == (
            len(clicks),
            sum(clicks),
        )


def test_a_request_by_id_is_encoded_as_the_log_was(log):
    """For rows than which the store has no newer events."""
    times = np.array([t or 0 for t in log.raw["at"].to_pylist()])
    last = int(times.max())
    rows = [n for n, row in enumerate(log.raw.to_pylist()) if row["at"] == last]
    assert len(rows) >= 3
    take = pa.array(rows)
    offline = log.featurizer.encode(
        log.joined.take(take),
        {name: table.take(take) for name, table in log.histories.items()},
    )
    assembled = log.store.assemble(log.raw.take(take).select(["user", "item", "at"]))
    online = log.featurizer.encode(assembled.raw, assembled.histories)
    # Of this history the 5 newest rows are kept, among which those of this instant.
    late = {"seen.item", "seen.clicked", "seen.gap"}
    for name in set(offline.column_names) - late:
        assert online[name].to_pylist() == offline[name].to_pylist(), name


def test_aggregates_of_a_request_about_the_past_are_those_of_the_log(log):
    assert any(a.length < a.keep for a in log.recipe.features if a.kind == "aggregate")
    assembled = log.store.assemble(log.raw.select(["user", "item", "at"]))
    for name in ("user_ctr.rows", "user_ctr.hits", "item_ctr.rows", "item_ctr.hits"):
        online, offline = (
            table[name].fill_null(0).to_pylist()
            for table in (assembled.raw, log.joined)
        )
        assert online == offline, name


def test_given_histories_win_over_stored_ones_row_by_row(log):
    rows = late_rows(log).slice(0, 3)
    given = rows.append_column(
        "clicks.time", pa.array([[5, 7, 6], None, []], pa.list_(pa.int64()))
    ).append_column("clicks.item", pa.array([["1", "2", None], None, []]))
    stored = log.store.assemble(rows).histories["clicks"].to_pylist()
    clicks = log.store.assemble(given).histories["clicks"].to_pylist()
    assert clicks[0]["time"] == [5_000_000, 6_000_000, 7_000_000]
    assert clicks[0]["item"] == [1, None, 2]
    assert clicks[0]["brand"] == [None, None, None]
    assert clicks[1] == stored[1]
    assert stored[1]["time"]
    assert clicks[2]["time"] == []


def test_given_histories_are_cut_at_the_impression(log):
    rows = pa.table(
        {
            "user": ["u1"] * 2,
            "at": [6, 100],
            "seen.time": [[5, 6, 7]] * 2,
            "seen.item": [[1, 2, 3]] * 2,
        }
    )
    seen = log.store.assemble(rows).histories["seen"]
    assert seen["item"].to_pylist() == [[1], [1, 2, 3]]


def test_raw_features_given_in_full_encode_like_those_looked_up(log):
    rows = late_rows(log)
    looked_up = log.store.assemble(rows)
    bare = FeatureStore(log.contract)
    given = {
        name: looked_up.raw[name]
        for name in looked_up.raw.column_names
        if not name.startswith("key.")
    }
    for name, table in looked_up.histories.items():
        for column in table.column_names:
            cells = table[column].to_pylist()
            if column == "time":  # in the unit of the timestamp
                cells = [[t // 1_000_000 for t in times] for times in cells]
            given[f"{name}.{column}"] = pa.array(cells)
    in_full = bare.assemble(pa.table(given))
    encode = log.featurizer.encode
    assert encode(in_full.raw, in_full.histories).equals(
        encode(looked_up.raw, looked_up.histories)
    )


def test_given_cells_win_and_null_cells_are_looked_up(log):
    rows = pa.table(
        {
            "user": ["u1", "u1", "stranger"],
            "item": [1, 1, 1],
            "age": pa.array(["5", None, None]),
            "tags": pa.array([["x"], None, None]),
        }
    )
    raw = log.store.assemble(rows).raw
    stored_age = log.users["age"].to_pylist()[1]
    stored_tags = log.items["tags"].to_pylist()[1]
    assert raw["age"].to_pylist() == [5.0, stored_age, None]
    assert raw["tags"].to_pylist() == [["x"], stored_tags, stored_tags]


def test_unknown_users_and_items_are_told_and_get_nulls(log):
    assembled = log.store.assemble(late_rows(log, item=[99] * 13))
    # u10 has rows in the log, though not in the table of users.
    assert assembled.known_user_B.tolist() == [True] * 10 + [False, False, True]
    assert not assembled.known_item_B.any()
    assert assembled.raw["brand"].null_count == 13
    assert FeatureStore(log.contract).assemble(
        late_rows(log)
    ).known_user_B.tolist() == [True] * 11 + [False, True]


def test_keys_may_be_numbers_where_the_table_has_text(log, make_recipe):
    rows = pa.table({"user": ["u1"], "item": ["3"], "at": ["100"]})
    as_number = rows.set_column(1, "item", pa.array([3.0]))
    for table in (rows, as_number):
        assert log.store.assemble(table).known_item_B.tolist() == [True]


def test_a_column_of_the_log_wins_and_the_items_fill_what_it_lacks(log):
    signature = tuple(
        c.model_copy(update={"origin": "context"}) if c.name == "brand" else c
        for c in log.plan.signature
    )
    contract = log.contract.model_copy(update={"signature": signature})
    items = build_entities(contract, "item", log.items, key="item")
    store = FeatureStore(contract, items=items)
    known = log.items.slice(0, 1)
    stored = known["brand"][0].as_py()
    other = str(stored) + "1"
    rows = pa.table(
        {"item": pa.concat_arrays(known["item"].chunks * 2), "brand": [other, None]}
    )
    filled = store.join(rows)["brand"].to_pylist()
    assert [str(value) for value in filled] == [other, str(stored)]


def test_joining_shuffled_rows_is_shuffling_joined_rows(log):
    order = pa.array(np.random.default_rng(0).permutation(log.raw.num_rows))
    joined = log.store.join(log.raw)
    assert (
        log.store.join(log.raw.take(order)).to_pylist()
        == joined.take(order).to_pylist()
    )


def test_keys_and_times_that_are_missing_or_unreadable_are_counted(log):
    rows = pa.table({"user": ["u1", None], "item": ["x", "1"], "at": ["soon", "5"]})
    counts = FeatureCounts()
    log.store.assemble(rows, counts)
    by = counts.as_dict()
    assert by["key.user"] == {"missing": 1, "unseen": 0, "unreadable": 0}
    assert by["key.item"] == {"missing": 1, "unseen": 0, "unreadable": 1}
    assert by["key.time"] == {"missing": 1, "unseen": 0, "unreadable": 1}


def test_uneven_histories_and_histories_without_times_are_refused(log):
    rows = pa.table({"user": ["a", "b"], "seen.item": [[1], [1, 2]]})
    with pytest.raises(DataError, match=r"'seen\.item' without 'seen\.time'"):
        log.store.assemble(rows)
    uneven = rows.append_column("seen.time", pa.array([[1], [1]]))
    with pytest.raises(DataError, match=r"'seen\.time', got 2 and 1 in row 1"):
        log.store.assemble(uneven)


def test_the_future_planted_into_the_log_is_not_seen(log, make_log):
    """Rows after the middle are replaced; what earlier rows know stays the same."""
    middle = 30 * 1800
    other = make_log(seed=1)
    keep = np.array([t is not None and t < middle for t in log.raw["at"].to_pylist()])
    planted = np.array(
        [t is not None and t >= middle for t in other.raw["at"].to_pylist()]
    )
    mixed = make_log()
    mixed.raw = pa.concat_tables(
        [log.raw.filter(pa.array(keep)), other.raw.filter(pa.array(planted))]
    )
    joined = log.store.join(mixed.raw)
    for by in ("user", "item"):
        block = EventBlock(log.contract, joined, by)
        got = block.aggregates(0, int(keep.sum())).to_pylist()
        names = block.aggregates().column_names
        assert got == log.joined.select(names).filter(pa.array(keep)).to_pylist()
    histories = EventBlock(log.contract, joined, "user").histories(0, int(keep.sum()))
    for name, table in histories.items():
        assert (
            table.to_pylist() == log.histories[name].filter(pa.array(keep)).to_pylist()
        )


def test_slices_of_a_block_are_slices_of_its_histories(log):
    block = EventBlock(log.contract, log.joined, "user")
    for start, stop in ((0, 10), (150, 151), (290, None)):
        for name, table in block.histories(start, stop).items():
            assert table.to_pylist() == log.histories[name].to_pylist()[start:stop]
