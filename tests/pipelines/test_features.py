"""Feature tables against those computed row by row, whatever the order of work."""

import math
from collections import Counter

import pyarrow as pa
import pytest
from feature_log import (
    NUM_ITEMS,
    NUM_USERS,
    build_with,
    make_recipe,
    read_tables,
    write_csv,
)

from pipelines.features import build_feature_tables
from recsys_mtl.features.entity import EntityTable
from recsys_mtl.features.manifest import FeatureManifest
from recsys_mtl.features.schema import MISSING, UNSEEN

INPUTS = ("item", "city", "brand", "age")


def vocabulary(values):
    """Ids by falling frequency, then by value, computed naively."""
    counts = Counter(v for v in values if v is not None)
    ordered = sorted(counts, key=lambda v: (-counts[v], v))
    return {value: 2 + place for place, value in enumerate(ordered)}


def naive(log):
    """Feature tables the slow way: every row looks at every other row."""
    city = {f"u{i}": f"c{i % 3}" for i in range(NUM_USERS - 2)}
    brand = {f"i{i}": f"b{i % 4}" for i in range(NUM_ITEMS)}
    train = [r for r in log if r["part"] == "train"]
    ids = {
        "item": vocabulary(r["item"] for r in train),
        "city": vocabulary(city.get(r["user"]) for r in train),
        "brand": vocabulary(brand[r["item"]] for r in train),
    }
    ages = [r["age"] for r in train if r["age"] != ""]
    mean = sum(ages) / len(ages)
    std = (sum((a - mean) ** 2 for a in ages) / len(ages)) ** 0.5
    prior = sum(r["click"] for r in train) / len(train)
    rows = []
    for row in log:
        mine = [r for r in log if r["user"] == row["user"] != "" and r["t"] < row["t"]]
        mine.sort(key=lambda r: (r["t"], r["row"]))
        clicks = [r for r in mine if r["click"]][-4:]
        newest = mine[-6:]
        same = [r for r in log if r["item"] == row["item"] and r["t"] < row["t"]]

        def rate(events, prior=prior):
            hits = sum(r["click"] for r in events)
            yes, no = hits + 10 * prior, len(events) - hits + 10 * (1 - prior)
            return math.log(yes / no) - math.log(prior / (1 - prior))

        known_city = city.get(row["user"])
        rows.append(
            {
                "split": row["part"],
                "item": ids["item"].get(row["item"], UNSEEN),
                "city": ids["city"][known_city] if known_city else MISSING,
                "brand": ids["brand"].get(brand[row["item"]], UNSEEN),
                "age": 0.0 if row["age"] == "" else (row["age"] - mean) / std,
                "clicks.item": [ids["item"].get(r["item"], UNSEEN) for r in clicks],
                "clicks.brand": [ids["brand"][brand[r["item"]]] for r in clicks],
                "clicks.gap": [
                    2 + math.floor(math.log2(1 + row["t"] - r["t"])) for r in clicks
                ],
                "user_ctr.count": math.log1p(len(newest)) / math.log(11),
                "user_ctr.rate": rate(newest),
                "item_ctr.count": math.log1p(len(same)) / math.log(11),
                "item_ctr.rate": rate(same),
                "label.click": float(row["click"]),
                "label.watch": float(row["watch"]) if row["click"] else None,
                "key.user": row["user"] or None,
                "key.item": row["item"],
                "key.time": row["t"] * 1_000_000,
            }
        )
    return rows


def order(row):
    return (row["split"], row["key.time"], str(row["key.user"]), row["key.item"])


def test_tables_equal_those_computed_row_by_row(tables, log):
    got = sorted(read_tables(tables), key=lambda r: (*order(r), r["label.click"]))
    want = sorted(naive(log), key=lambda r: (*order(r), r["label.click"]))
    assert len(got) == len(want)
    for mine, theirs in zip(got, want, strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in theirs.items():
            if isinstance(value, float):
                assert mine[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name
            else:
                assert mine[name] == value, name


def test_the_manifest_counts_every_row_and_label(tables, log):
    manifest = FeatureManifest.load(tables)
    for split, files in manifest.splits.items():
        mine = [r for r in log if r["part"] == split]
        assert files.rows == sum(files.part_rows) == len(mine)
        assert len(files.parts) == len(list((tables / split).iterdir()))
        stats = manifest.tasks["click"][split]
        assert stats.rows == len(mine)
        assert stats.positives == sum(r["click"] for r in mine)
        assert stats.mean == pytest.approx(stats.positives / stats.rows)
        watched = [r["watch"] for r in mine if r["click"]]
        stats = manifest.tasks["watch"][split]
        assert stats.rows == len(watched)
        assert stats.mean == pytest.approx(sum(watched) / len(watched))
        logs = [math.log1p(w) for w in watched]
        centre = sum(logs) / len(logs)
        spread = (sum((x - centre) ** 2 for x in logs) / len(logs)) ** 0.5
        assert stats.log_mean == pytest.approx(centre)
        assert stats.log_std == pytest.approx(spread)
        counts = manifest.counts[split]
        assert counts["age"]["missing"] == sum(r["age"] == "" for r in mine)
        assert counts["key.user"]["missing"] == sum(r["user"] == "" for r in mine)


def test_rows_that_repeat_user_item_and_time_are_kept_and_counted(tables, log):
    seen = Counter((r["user"], r["item"], r["t"]) for r in log if r["user"])
    repeated = sum(count - 1 for count in seen.values())
    assert repeated > 0
    assert FeatureManifest.load(tables).input.duplicates == repeated


def test_requests_by_id_find_the_newest_events_of_each_user(tables, log):
    users = EntityTable.load(tables / "users.arrow")
    rows, found_B = users.lookup(pa.array(["u3"]))
    assert found_B.all()
    mine = sorted(
        (r for r in log if r["user"] == "u3" and r["click"]),
        key=lambda r: (r["t"], r["row"]),
    )
    assert rows["clicks.item"][0].as_py() == [r["item"] for r in mine]
    assert rows["clicks.time"][0].as_py() == [r["t"] * 1_000_000 for r in mine]
    assert rows["city"][0].as_py() == "c0"
    items = EntityTable.load(tables / "items.arrow")
    rows, _ = items.lookup(pa.array(["i5"]))
    assert len(rows["item_ctr.hit"][0]) == sum(r["item"] == "i5" for r in log)


def inputs(folder, until):
    """Encoded inputs of rows up to an instant, in an order of keys alone."""
    columns = FeatureManifest.load(folder).schema.columns
    return [
        [row[name] for name in (*columns, "key.user", "key.time")]
        for row in read_tables(folder)
        if row["key.time"] <= until * 1_000_000
    ]


def test_a_changed_future_leaves_earlier_rows_as_they_were(tables, log, tmp_path):
    now = 60
    planted = [
        r if r["t"] <= now else r | {"item": "i0", "click": 1 - r["click"], "watch": 7}
        for r in log
    ]
    assert planted != log
    write_csv(tmp_path / "log.csv", planted)
    build_feature_tables(make_recipe(tmp_path), tmp_path / "tables")
    assert inputs(tmp_path / "tables", until=now) == inputs(tables, until=now)
    # The test has teeth: later rows do see the change.
    assert inputs(tmp_path / "tables", until=99) != inputs(tables, until=99)


def test_outcomes_of_the_very_instant_are_not_seen(tables, log, tmp_path):
    now = 60
    assert sum(r["t"] == now for r in log) > 1
    planted = [
        r if r["t"] < now else r | {"click": 1 - r["click"], "watch": 7} for r in log
    ]
    write_csv(tmp_path / "log.csv", planted)
    build_feature_tables(make_recipe(tmp_path), tmp_path / "tables")
    got = sorted(map(repr, inputs(tmp_path / "tables", until=now)))
    assert got == sorted(map(repr, inputs(tables, until=now)))


def test_tables_do_not_depend_on_the_number_of_tasks(tables, recipe, tmp_path):
    build_with(recipe, tmp_path / "tables", 7)
    assert read_tables(tmp_path / "tables") == read_tables(tables)
    for name in ("users.arrow", "items.arrow"):
        mine, theirs = (
            EntityTable.load(f / name) for f in (tmp_path / "tables", tables)
        )
        assert mine.rows.equals(theirs.rows)
    mine, theirs = (FeatureManifest.load(f) for f in (tmp_path / "tables", tables))
    assert mine.counts == theirs.counts
    assert mine.schema == theirs.schema


def test_tables_do_not_depend_on_how_the_log_is_cut_into_files(tables, log, tmp_path):
    recipe = make_recipe(tmp_path)
    paths = []
    for start in range(0, len(log), 50):
        paths.append(str(tmp_path / f"log{start:03d}.csv"))
        write_csv(tmp_path / paths[-1], log[start : start + 50])
    source = recipe.data.interactions.model_copy(update={"path": tuple(paths)})
    data = recipe.data.model_copy(update={"interactions": source})
    build_feature_tables(recipe.model_copy(update={"data": data}), tmp_path / "tables")
    assert read_tables(tmp_path / "tables") == read_tables(tables)
