import math
import os
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from feature_log import (
    NUM_ITEMS,
    NUM_USERS,
    make_log,
    make_recipe,
    read_split,
    read_tables,
    write_csv,
)

from pipelines.features import build_feature_tables
from pipelines.folder import whole
from pipelines.table_build import TableBuild
from recsys_mtl.config.recipe import Recipe
from recsys_mtl.errors import ArtifactError, DataError
from recsys_mtl.features.entity import EntityTable
from recsys_mtl.features.featurizer import Featurizer
from recsys_mtl.features.manifest import FeatureManifest
from recsys_mtl.features.schema import MISSING, UNSEEN

INPUTS = ("item", "city", "brand", "age")


@pytest.fixture(scope="module")
def log():
    return make_log()


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, log):
    folder = tmp_path_factory.mktemp("raw")
    write_csv(folder / "log.csv", log)
    return make_recipe(folder)


@pytest.fixture(scope="module")
def tables(tmp_path_factory, recipe):
    folder = tmp_path_factory.mktemp("built") / "tables"
    build_feature_tables(recipe, folder)
    return folder


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


def names(folder):
    return [path.name for path in folder.iterdir()]


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


def build_with(recipe, folder, num_buckets):
    with whole(folder) as path:
        path.mkdir()
        TableBuild(recipe, "", path, lambda progress: None, num_buckets).run()


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


def test_a_value_that_training_lacks_is_unseen(log, tmp_path):
    planted = [r | {"item": "new"} if r["part"] == "test" else r for r in log]
    write_csv(tmp_path / "log.csv", planted)
    build_feature_tables(make_recipe(tmp_path), tmp_path / "tables")
    assert set(read_split(tmp_path / "tables", "test")["item"].to_pylist()) == {UNSEEN}
    encoder = Featurizer.load(tmp_path / "tables" / "encoders").encoders.ids["item"]
    assert "new" not in encoder.values.to_pylist()


def test_bad_lines_and_rows_without_time_are_counted(log, tmp_path):
    write_csv(tmp_path / "log.csv", [*log, log[0] | {"t": "NaN"}, log[1] | {"t": "x"}])
    with (tmp_path / "log.csv").open("a") as file:
        file.write("not,enough\n")
    split = {"kind": "time", "valid": 0.2, "test": 0.2}
    recipe = make_recipe(tmp_path, split=split)
    manifest = build_feature_tables(recipe, tmp_path / "tables")
    assert manifest.input.rows == len(log) + 2
    assert manifest.input.untimed == 2
    assert manifest.dropped == {"no readable timestamp": 2}
    assert manifest.input.bad_lines == 1
    assert manifest.input.first_bad_lines[0].endswith("2 values for 8 columns")
    assert sum(files.rows for files in manifest.splits.values()) == len(log)
    times = {s: read_split(tmp_path / "tables", s)["key.time"] for s in manifest.splits}
    assert max(times["train"].to_pylist()) < min(times["valid"].to_pylist())
    assert max(times["valid"].to_pylist()) < min(times["test"].to_pylist())


def test_rows_without_time_stay_where_time_does_not_split(log, tmp_path):
    write_csv(tmp_path / "log.csv", [log[0] | {"t": "NaN"}, *log[1:]])
    recipe = make_recipe(tmp_path)
    manifest = build_feature_tables(recipe, tmp_path / "tables")
    assert sum(files.rows for files in manifest.splits.values()) == len(log)
    assert manifest.input.untimed == 1
    (row,) = (r for r in read_tables(tmp_path / "tables") if r["key.time"] is None)
    assert row["clicks.item"] == []


def test_a_wrong_label_is_named_with_file_and_row_and_leaves_nothing(log, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    planted = [r | {"click": 2} if r["row"] == 57 else r for r in log]
    write_csv(raw / "log.csv", planted)
    recipe = make_recipe(raw)
    with pytest.raises(DataError, match=r"'click'.* got '2' in row 57 of .*log\.csv"):
        build_feature_tables(recipe, tmp_path / "tables")
    assert names(tmp_path) == ["raw"]


def test_an_interrupted_build_leaves_what_was_there(recipe, tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "manifest.json").write_text("{}")

    def interrupt(progress):
        if progress.stage.endswith("encode"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_feature_tables(
            recipe, tmp_path / "tables", overwrite=True, on_progress=interrupt
        )
    assert names(tmp_path) == ["tables"]
    assert names(tmp_path / "tables") == ["manifest.json"]


def test_tables_of_the_same_input_are_reused_and_said_so(tables, recipe):
    before = (tables / "manifest.json").stat().st_mtime_ns
    told = []
    again = build_feature_tables(recipe, tables, on_progress=told.append)
    assert again == FeatureManifest.load(tables)
    assert (tables / "manifest.json").stat().st_mtime_ns == before
    assert [p.note for p in told] == ["up to date, reused"]


def test_tables_of_another_recipe_are_replaced_only_when_asked(log, tmp_path):
    write_csv(tmp_path / "log.csv", log)
    folder = tmp_path / "tables"
    recipe = make_recipe(tmp_path)
    folder.mkdir()  # an empty folder is no obstacle
    build_feature_tables(recipe, folder)
    os.utime(tmp_path / "log.csv", (1, 1))
    with pytest.raises(ArtifactError, match=r"other input; choose .* --overwrite"):
        build_feature_tables(recipe, folder)
    build_feature_tables(recipe, folder, overwrite=True)
    assert build_feature_tables(recipe, folder).input.rows == len(log)
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def test_a_folder_of_something_else_is_never_replaced(recipe, tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ArtifactError, match="holds no feature tables"):
        build_feature_tables(recipe, tmp_path, overwrite=True)
    assert names(tmp_path) == ["thesis.tex"]


def test_a_missing_column_is_named_with_the_nearest(log, tmp_path):
    write_csv(tmp_path / "log.csv", log)
    recipe = make_recipe(tmp_path, split={"kind": "column", "column": "prt"})
    with pytest.raises(DataError, match=r"'prt'.*did you mean 'part'\?"):
        build_feature_tables(recipe, tmp_path / "tables")


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_a_split_without_rows_is_refused_with_the_reasons(log, tmp_path, split):
    write_csv(tmp_path / "log.csv", log)
    names = {"train": "train", "valid": "valid", "test": "test"} | {split: "none"}
    recipe = make_recipe(tmp_path, split={"kind": "column", "column": "part"} | names)
    with pytest.raises(
        DataError, match=rf"split '{split}' has no rows: 245 rows were read \('part' is"
    ):
        build_feature_tables(recipe, tmp_path / "tables")


def test_a_log_without_keys_and_time_is_encoded_as_well(log, tmp_path):
    write_csv(tmp_path / "log.csv", log)
    recipe = Recipe.model_validate(
        {
            "name": "keyless",
            "data": {
                "interactions": {"kind": "csv", "path": str(tmp_path / "log.csv")},
                "split": {"kind": "hash", "column": "row"},
            },
            "features": [{"kind": "categorical", "name": "item"}],
            "tasks": [{"kind": "binary", "name": "click", "label": "click"}],
        }
    )
    manifest = build_feature_tables(recipe, tmp_path / "tables")
    assert sum(files.rows for files in manifest.splits.values()) == len(log)
    assert not (tmp_path / "tables" / "users.arrow").exists()


def test_the_simulator_is_a_source_like_any_other(tmp_path):
    recipe = Recipe.model_validate(
        {
            "name": "simulated",
            "data": {
                "interactions": {
                    "kind": "simulator",
                    "rows": 3000,
                    "num_users": 40,
                    "num_items": 50,
                },
                "users": {"source": {"kind": "simulator"}},
                "items": {"source": {"kind": "simulator"}},
                "keys": {"user": "user_id", "item": "item_id"},
                "timestamp": {"column": "time_ms", "unit": "ms"},
                "split": {"kind": "time"},
            },
            "features": [
                {"kind": "categorical", "name": "item_id"},
                {"kind": "list", "name": "tags"},
                {"kind": "history", "name": "seen", "fields": ["item_id"]},
            ],
            "tasks": [{"kind": "binary", "name": "click", "label": "is_click"}],
        }
    )
    manifest = build_feature_tables(recipe, tmp_path / "tables")
    rows = [files.rows for files in manifest.splits.values()]
    assert rows == pytest.approx([2100, 300, 600], abs=2)
    assert sum(rows) == 3000
    assert len(EntityTable.load(tmp_path / "tables" / "users.arrow").rows) == 40


def typed_recipe(folder):
    return Recipe.model_validate(
        {
            "name": "typed",
            "data": {
                "interactions": {"kind": "parquet", "path": str(folder)},
                "keys": {"user": "user"},
                "timestamp": {"column": "t", "unit": "s"},
                "split": {"kind": "file", "train": "a*", "valid": "b*", "test": "c*"},
            },
            "features": [
                {"kind": "categorical", "name": "user"},
                {"kind": "history", "name": "past", "fields": ["user"]},
            ],
            "tasks": [{"kind": "binary", "name": "click", "label": "click"}],
        }
    )


def write_typed(path, users, time):
    columns = {"user": users, "t": [time] * len(users), "click": [0] * len(users)}
    pq.write_table(pa.table(columns), path)


def test_files_may_hold_a_key_as_whole_numbers_of_any_kind(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    write_typed(raw / "a.parquet", pa.array([7, 8], pa.int32()), time=1)
    write_typed(raw / "b.parquet", pa.array([7, 8], pa.int64()), time=2)
    write_typed(raw / "c.parquet", pa.array([7.0, None], pa.float64()), time=3)
    build_with(typed_recipe(raw), tmp_path / "tables", num_buckets=3)
    test = read_split(tmp_path / "tables", "test").to_pylist()
    past = {row["key.user"]: len(row["past.user"]) for row in test}
    assert past == {7: 2, None: 0}


def test_files_that_disagree_on_a_type_are_refused(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    write_typed(raw / "a.parquet", pa.array([7, 8]), time=1)
    write_typed(raw / "b.parquet", pa.array(["7", "8"]), time=2)
    with pytest.raises(DataError, match="disagree on a type"):
        build_feature_tables(typed_recipe(raw), tmp_path / "tables")


@pytest.mark.skipif(
    "RECSYS_MTL_DATA" not in os.environ,
    reason="RECSYS_MTL_DATA does not name a folder with the public data sets",
)
def test_kuairand_comes_out_with_its_published_figures(tmp_path):
    text = Path("pipelines/recipes/kuairand.yaml").read_text()
    recipe = Recipe.model_validate(yaml.safe_load(text))
    manifest = build_feature_tables(recipe, tmp_path / "tables")
    assert [files.rows for files in manifest.splits.values()] == [29279, 4183, 8366]
    assert manifest.input.duplicates == 124
    clicks = sum(stats.positives for stats in manifest.tasks["click"].values())
    assert clicks / 41828 == pytest.approx(0.657, abs=5e-4)
