"""A label that means nothing cannot be predicted, by whatever way it could get in."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.evaluate import evaluate_network
from pipelines.features import build_feature_tables
from recsys_mtl.config.recipe import Recipe
from recsys_mtl.config.source import SimulatorSource
from recsys_mtl.data.simulator import Simulator
from recsys_mtl.train.checkpoint import load_network
from recsys_mtl.train.loop import train

CLICKED = {"column": "is_click", "equals": 1}


def recipe(path) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "leak",
            "data": {
                "interactions": {"kind": "parquet", "path": str(path)},
                "keys": {"user": "user_id", "item": "item_id"},
                "timestamp": {"column": "time_ms", "unit": "ms"},
                "split": {"kind": "time"},
            },
            # Every feature that reads labels of other rows, and so could read its own.
            "features": [
                {"kind": "categorical", "name": "item_id"},
                {
                    "kind": "categorical",
                    "name": "clicked",
                    "column": "is_click",
                    "history_only": True,
                },
                {
                    "kind": "history",
                    "name": "clicks",
                    "fields": ["item_id"],
                    "where": CLICKED,
                    "length": 10,
                    "pooling": {"kind": "din", "hidden": [8]},
                },
                {
                    "kind": "history",
                    "name": "seen",
                    "fields": ["item_id", "clicked"],
                    "length": 10,
                },
                *(
                    {
                        "kind": "aggregate",
                        "name": f"{by}_rate",
                        "by": by,
                        "rate_of": CLICKED,
                    }
                    for by in ("user", "item")
                ),
            ],
            "tasks": [{"kind": "binary", "name": "click", "label": "is_click"}],
            "model": {
                "embedding": {"dim": 8},
                "gating": {"kind": "mmoe", "hidden": [16], "num_experts": 2},
            },
            "train": {"epochs": 2, "batch_size": 256, "num_threads": 1},
        }
    )


@pytest.fixture(scope="module")
def log() -> pa.Table:
    source = SimulatorSource(kind="simulator", rows=20_000, num_users=200, num_items=80)
    simulator = Simulator(source)
    chunks = [simulator.chunk(i) for i in range(simulator.num_chunks)]
    return pa.concat_tables(chunks)


def click_metrics(log: pa.Table, folder) -> dict[str, float]:
    pq.write_table(log, folder / "log.parquet")
    spec = recipe(folder / "log.parquet")
    build_feature_tables(spec, folder / "tables")
    train(spec, folder / "tables", folder / "run")
    network = load_network(spec, folder / "tables", folder / "run")
    return evaluate_network(network, spec, folder / "tables", "test")["click"]


def test_shuffled_labels_give_an_auc_of_one_half(log, tmp_path):
    order = np.random.default_rng(0).permutation(log.num_rows)
    place = log.schema.get_field_index("is_click")
    shuffled = log.set_column(place, "is_click", log["is_click"].take(pa.array(order)))
    found = click_metrics(shuffled, tmp_path)
    assert found["auc_low"] < 0.5 < found["auc_high"]


def test_the_same_features_find_labels_that_mean_something(log, tmp_path):
    assert click_metrics(log, tmp_path)["auc_low"] > 0.6
