"""Times, levels and row weights from raw rows to metrics."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feature_log import make_log, make_recipe, write_csv

from pipelines.evaluate import evaluate_network, read_predictions
from pipelines.features import build_feature_tables
from recsys_mtl.config.recipe import Recipe
from recsys_mtl.data.reader import FeatureReader
from recsys_mtl.features.life_table import bin_hazards
from recsys_mtl.features.manifest import FeatureManifest
from recsys_mtl.train import load_network, predict, train

SHORT_S = 25.0
TASKS = [
    {
        "kind": "binary",
        "name": "click",
        "label": "click",
        "row_weight": {"column": "age", "clip": 40},
    },
    # Two terms of one label: the short one is censored at its last edge, the long one
    # exists where the short one was survived.
    {
        "kind": "survival",
        "name": "cut_out",
        "time": "watch",
        "event": {"column": "ended", "equals": "yes"},
        "bins": [5, 10, SHORT_S],
    },
    {
        "kind": "survival",
        "name": "wear_out",
        "time": "watch",
        "event": {"column": "ended", "equals": "yes"},
        "bins": 4,
        "sample_space": {"column": "watch", "above": SHORT_S},
        "horizons": [40],
    },
    {
        "kind": "ordinal",
        "name": "rating",
        "label": "stars",
        "levels": ["*", "**", "***"],
    },
    {
        "kind": "value",
        "name": "spend",
        "label": "click",
        "loss": "zero_inflated_log_normal",
    },
]


@pytest.fixture(scope="module")
def log():
    rng = np.random.default_rng(0)
    ended, stars = rng.choice(["yes", "no"], 500), rng.integers(1, 4, 500)
    return [
        row | {"ended": ended[i], "stars": "*" * stars[i]}
        for i, row in enumerate(make_log())
    ]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, log):
    folder = tmp_path_factory.mktemp("raw")
    write_csv(folder / "log.csv", log)
    spec = make_recipe(folder).model_dump() | {"tasks": TASKS, "score": None}
    spec["train"] |= {"epochs": 2, "batch_size": 32, "num_threads": 1}
    spec["train"]["early_stopping"]["metric"] = "cut_out.c_index"
    return Recipe.model_validate(spec)


@pytest.fixture(scope="module")
def tables(tmp_path_factory, recipe):
    folder = tmp_path_factory.mktemp("built") / "tables"
    build_feature_tables(recipe, folder)
    return folder


@pytest.fixture(scope="module")
def network(tmp_path_factory, recipe, tables):
    run = tmp_path_factory.mktemp("run")
    train(recipe, tables, run)
    return load_network(recipe, tables, run)


def test_training_labels_are_known_to_the_tables(tables, log):
    stats = {
        task: by_split["train"]
        for task, by_split in FeatureManifest.load(tables).tasks.items()
    }
    rows = [row for row in log if row["part"] == "train"]
    ages = [min(row["age"], 40) for row in rows if row["age"] != ""]
    assert stats["click"].weight_mean == pytest.approx(np.mean(ages))
    assert stats["click"].missing_weights == len(rows) - len(ages)
    times = np.array([row["watch"] for row in rows if row["click"]], dtype=float)
    ended = np.array([row["ended"] == "yes" for row in rows if row["click"]])
    assert stats["cut_out"].edges == (5.0, 10.0, SHORT_S)
    expected = bin_hazards((5.0, 10.0, SHORT_S), times, 1 * ended, 1 * ~ended)
    assert stats["cut_out"].hazards == pytest.approx(expected)
    late = times > SHORT_S
    assert stats["wear_out"].rows == late.sum()
    assert stats["wear_out"].edges[-1] == times[late & ended].max()
    counts = [sum(row["stars"] == "*" * n for row in rows) for n in (1, 2, 3)]
    assert list(stats["rating"].level_rows) == counts


def test_weights_are_1_on_average_and_only_in_training(recipe, tables):
    names = tuple(task.name for task in recipe.tasks)
    (batch,) = FeatureReader(tables, "train", batch_size=999, tasks=names).epoch(0)
    assert batch.weight_BT[:, 0].mean() == pytest.approx(1.0)
    assert batch.weight_BT[:, 0].std() > 0
    assert (batch.weight_BT[:, 1:] == 1).all()
    (batch,) = FeatureReader(tables, "test", batch_size=999, tasks=names).epoch(0)
    assert batch.weight_BT is None


def test_curves_are_measured_and_read_back_as_they_were(
    recipe, tables, network, tmp_path
):
    path = tmp_path / "predictions.parquet"
    metrics = evaluate_network(network, recipe, tables, "test", predictions=path)
    for task in ("cut_out", "wear_out"):
        assert {"c_index", "c_index_uno", "integrated_brier", "ece"} <= metrics[
            task
        ].keys()
    assert {"kappa", "log_loss", "mae"} <= metrics["rating"].keys()
    assert {"rmse", "mae"} <= metrics["spend"].keys()
    names = tuple(task.name for task in recipe.tasks)
    made = predict(network, FeatureReader(tables, "test", batch_size=50, tasks=names))
    read = read_predictions(path, recipe)
    np.testing.assert_allclose(read.prediction_BT, made.prediction_BT, rtol=1e-5)
    np.testing.assert_array_equal(read.label_BT, made.label_BT)
    assert np.signbit(read.label_BT[:, 1]).any()
    assert list(read.curves) == ["cut_out", "wear_out", "rating"]
    for task, curve in made.curves.items():
        assert read.curves[task].points == curve.points
        np.testing.assert_allclose(
            read.curves[task].above_BP, curve.above_BP, rtol=1e-5
        )
    stored = pq.read_table(path).column("curve.cut_out").type
    assert stored == pa.list_(pa.float32(), 3)
