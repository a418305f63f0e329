"""Calibrated probabilities: the same in the evaluation, in bulk and in the ranker."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feature_log import make_log, make_recipe, write_csv

from pipelines.evaluate import evaluate_bundle, read_uncalibrated
from pipelines.run import run_recipe
from pipelines.score import score_table
from recsys_mtl.config.recipe import Recipe
from recsys_mtl.config.score import ProductScore
from recsys_mtl.errors import DataError
from recsys_mtl.export.bundle import load_bundle
from recsys_mtl.features.manifest import FeatureManifest
from recsys_mtl.rank.ranker import Ranker


def make_calibrated(folder, calibration, **task) -> Recipe:
    (folder / "raw").mkdir(exist_ok=True)
    write_csv(folder / "raw" / "log.csv", make_log())
    spec = make_recipe(folder / "raw").model_dump(mode="json")
    spec["tasks"][0] |= {"calibration": {"kind": calibration}} | task
    spec["train"] |= {"epochs": 2, "batch_size": 32, "num_threads": 1}
    return Recipe.model_validate(spec)


def with_calibration(folder, kind) -> Recipe:
    """The recipe of the run with another calibration; its files stay untouched."""
    tables = FeatureManifest.load(folder / "run" / "tables")
    tables.recipe["tasks"][0]["calibration"] = {"kind": kind}
    return Recipe.model_validate(tables.recipe)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("calibrated")


@pytest.fixture(scope="module")
def summary(folder):
    return run_recipe(make_calibrated(folder, "platt"), folder / "run")


@pytest.fixture(scope="module")
def bundle(folder, summary):
    return load_bundle(folder / "run" / "bundle")


def test_the_bundle_says_how_its_predictions_came_about(bundle):
    card = Ranker(bundle).card
    assert card.scoring.calibration == {"click": "platt"}
    assert card.scoring.kind == "sum"
    assert card.scoring.weights == {"click": 1.0}


def test_evaluating_the_bundle_again_gives_the_calibrated_numbers(
    folder, summary, tmp_path
):
    path = tmp_path / "p.parquet"
    again = evaluate_bundle(
        folder / "run" / "bundle", folder / "run" / "tables", predictions=path
    )
    assert again == summary.metrics
    raw = read_uncalibrated(path)
    assert list(raw) == ["click"]
    told_B = pq.read_table(path).column("prediction.click").to_numpy()
    assert (told_B != raw["click"]).any()
    order_B = np.argsort(raw["click"], kind="stable")
    assert (np.diff(told_B[order_B]) >= 0).all()


def test_ranker_and_bulk_give_what_the_evaluation_measured(folder, bundle, tmp_path):
    evaluated = pq.read_table(folder / "run" / "predictions.parquet")
    rows = pa.table(
        {
            "user": evaluated.column("key.user"),
            "item": evaluated.column("key.item"),
            "t": pa.array(evaluated.column("key.time").to_numpy() // 1_000_000),
            "age": pa.nulls(evaluated.num_rows, pa.float64()),
        }
    )
    ranker = Ranker(bundle)
    told_B = ranker.score(rows).prediction_BT[:, ranker.tasks.index("click")]
    raw = bundle.info.model_copy(update={"calibration": type(bundle.calibration)()})
    plain = Ranker(type(bundle)(**{**vars(bundle), "info": raw}))
    raw_BT = plain.score(rows).prediction_BT
    calibrated_BT = bundle.calibration.apply(raw_BT, ranker.tasks)
    np.testing.assert_array_equal(told_B, calibrated_BT[:, 0])
    assert (told_B != raw_BT[:, 0]).all()
    pq.write_table(rows, tmp_path / "rows.parquet")
    score_table(
        folder / "run" / "bundle",
        tmp_path / "rows.parquet",
        tmp_path / "scores.parquet",
        num_cpus=1,
    )
    bulk = pq.read_table(tmp_path / "scores.parquet")
    np.testing.assert_allclose(bulk.column("click").to_numpy(), told_B, rtol=1e-6)
    np.testing.assert_allclose(
        bulk.column("score").to_numpy(), told_B.astype(np.float64), rtol=1e-6
    )


def test_another_score_stands_in_for_the_declared_one(bundle):
    score = ProductScore(kind="product", weights={"click": 1.0, "watch": 2.0})
    declared, other = Ranker(bundle), Ranker(bundle, score=score)
    assert other.card.scoring.weights == score.weights
    assert other.card.scoring.version != declared.card.scoring.version
    request = declared.example()
    for ranker in (declared, other):
        response = ranker.rank(request, now_us=0)
        assert response.scoring == ranker.card.scoring
    item = response.items[0]
    expected = item.predictions["click"] * item.predictions["watch"] ** 2
    assert item.score == pytest.approx(expected, rel=1e-5)


def test_a_change_of_calibration_trains_nothing_anew(folder, summary):
    again = run_recipe(with_calibration(folder, "isotonic"), folder / "run")
    assert set(again.skipped) == {"features", "train"}
    assert load_bundle(folder / "run" / "bundle").calibration.names == {
        "click": "isotonic"
    }
    none = run_recipe(with_calibration(folder, "none"), folder / "run")
    assert set(none.skipped) == {"features", "train"}
    assert not (folder / "run" / "calibration.json").exists()
    assert not load_bundle(folder / "run" / "bundle").calibration.tasks
    assert "Before calibration" not in (folder / "run" / "report.html").read_text()


def test_the_report_shows_both_sides(tmp_path):
    sampling = {"rate": 0.5, "splits": "train"}
    recipe = make_calibrated(tmp_path, "temperature", negative_sampling=sampling)
    run_recipe(recipe, tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Before calibration, test" in page
    row = re.search(r'<th scope="row">click</th><td>temperature, .*?</tr>', page, re.S)
    assert "0.5 of negatives in train" in row[0]
    cells = re.findall(r"<td[^>]*>([\d.]+)</td>", row[0])
    assert len(cells) == 8
    assert cells[0] != cells[1]  # expected calibration error
    assert cells[6] == cells[7]  # AUC


def test_what_cannot_be_calibrated_is_refused_before_the_training(tmp_path):
    recipe = make_calibrated(
        tmp_path, "platt", sample_space={"column": "part", "equals": "train"}
    )
    with pytest.raises(DataError, match="got 0 positives in 0 labelled rows"):
        run_recipe(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoint").exists()
