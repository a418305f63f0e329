"""The folder of feature tables: whole, reused, and never somebody else's."""

import os

import pytest
from feature_log import (
    make_recipe,
    names,
    write_csv,
)

from pipelines.features import build_feature_tables
from recsys_mtl.errors import ArtifactError, DataError
from recsys_mtl.features.manifest import FeatureManifest


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
