import json

import pytest

from pipelines.ledger import Ledger
from recsys_mtl.errors import ArtifactError, DataError


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


def do(ledger, stage, key, path):
    ledger.record(stage, key, lambda: path.write_text(stage))


def test_a_stage_that_was_recorded_is_done_for_the_next_start(folder):
    output = folder / "tables"
    do(Ledger(folder), "features", "k", output)
    again = Ledger(folder)
    assert again.is_done("features", "k", output)
    assert not again.is_done("train", "k", folder / "checkpoint")
    assert list(again.seconds) == ["features"]


def test_a_stage_whose_output_is_gone_is_not_done(folder):
    output = folder / "tables"
    do(Ledger(folder), "features", "k", output)
    output.unlink()
    assert not Ledger(folder).is_done("features", "k", output)


def test_a_stage_of_another_recipe_is_refused_and_named(folder):
    output = folder / "tables"
    do(Ledger(folder), "features", "k", output)
    with pytest.raises(ArtifactError, match=r"tables .*stage 'features'.*--overwrite"):
        Ledger(folder).is_done("features", "other", output)


def test_a_stage_that_fails_is_not_recorded(folder):
    def fail():
        raise DataError("no rows")

    ledger = Ledger(folder)
    with pytest.raises(DataError):
        ledger.record("features", "k", fail)
    assert Ledger(folder).seconds == {}


def test_stages_stay_in_the_order_in_which_they_were_last_done(folder):
    ledger = Ledger(folder)
    for stage in ("features", "train", "features"):
        do(ledger, stage, "k", folder / stage)
    assert list(Ledger(folder).seconds) == ["train", "features"]


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ArtifactError, match="not empty and holds no run"):
        Ledger(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_broken_ledger_is_refused(folder):
    folder.mkdir()
    (folder / "stages.json").write_text(json.dumps({"stages": {"train": 3}}))
    with pytest.raises(ArtifactError, match="--overwrite"):
        Ledger(folder)
