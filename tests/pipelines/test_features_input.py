"""What feature tables are made from: odd values, odd files, other sources."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from feature_log import (
    build_with,
    make_recipe,
    read_split,
    read_tables,
    write_csv,
)
from simulated import simulated

from pipelines.features import build_feature_tables
from recsys_mtl.config.recipe import Recipe
from recsys_mtl.errors import DataError
from recsys_mtl.features.entity import EntityTable
from recsys_mtl.features.featurizer import Featurizer
from recsys_mtl.features.schema import UNSEEN


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
            "data": simulated(rows=3000, users=40, items=50),
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
