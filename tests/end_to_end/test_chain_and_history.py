"""Raw rows to ranked items with a chain of tasks and events that read one another."""

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from simulated import simulated

from pipelines.features import build_feature_tables
from recsys_mtl.config.recipe import Recipe
from recsys_mtl.data.reader import FeatureReader
from recsys_mtl.export.bundle import load_bundle, write_bundle
from recsys_mtl.rank.ranker import Ranker
from recsys_mtl.rank.request import RankRequest, UserInput
from recsys_mtl.train import load_network, predict, train

RECIPE = {
    "name": "chained",
    "data": simulated(rows=900, users=25, items=40, valid=0.2, test=0.2),
    "features": [
        {"kind": "categorical", "name": "user_id"},
        {"kind": "categorical", "name": "item_id"},
        {"kind": "categorical", "name": "category"},
        {
            "kind": "history",
            "name": "clicks",
            "fields": ["item_id", "category"],
            "where": {"column": "is_click", "equals": 1},
            "length": 6,
            "pooling": {
                "kind": "bert4rec",
                "num_layers": 1,
                "pool": "target",
                "masked_loss": {"weight": 0.1, "share": 0.3},
            },
        },
    ],
    "tasks": [
        {"kind": "binary", "name": "click", "label": "is_click"},
        {"kind": "binary", "name": "order", "label": "order"},
    ],
    "model": {
        "embedding": {"dim": 4, "init_std": 0.3},
        "gating": {"kind": "mmoe", "hidden": [8], "num_experts": 2},
        "chain": {"kind": "esmm", "steps": ["click", "order"]},
        "tower": {"kind": "mlp", "hidden": [4]},
    },
    "train": {"epochs": 2, "batch_size": 64, "num_threads": 1},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Feature tables, the trained network, and its bundle."""
    folder = tmp_path_factory.mktemp("chained")
    recipe = Recipe.model_validate(RECIPE)
    tables = folder / "tables"
    build_feature_tables(recipe, tables, num_cpus=2)
    result = train(recipe, tables, folder / "run")
    network = load_network(recipe, tables, folder / "run")
    bundle = write_bundle(
        folder / "bundle",
        recipe=recipe,
        tables=tables,
        state=network.state_dict(),
        metrics=result.best.metrics,
    )
    return tables, network, Ranker(load_bundle(bundle))


def test_orders_count_on_all_impressions_and_are_no_likelier_than_clicks(made):
    tables, network, _ = made
    reader = FeatureReader(tables, "test", batch_size=64, tasks=("click", "order"))
    prediction_BT, label_BT, _ = predict(network, reader)
    assert not np.isnan(label_BT).any()
    assert (label_BT[:, 1] <= label_BT[:, 0]).all()
    assert (prediction_BT[:, 1] <= prediction_BT[:, 0]).all()
    assert (prediction_BT > 0).all()


def test_a_row_asked_for_by_its_keys_scores_as_in_evaluation(made):
    tables, network, ranker = made
    reader = FeatureReader(tables, "test", batch_size=64, tasks=("click", "order"))
    expected_BT = predict(network, reader).prediction_BT
    rows = pq.read_table(tables / "test")
    raw = rows.select(["key.user", "key.item"]).rename_columns(["user_id", "item_id"])
    time_ms = pc.divide(rows["key.time"], 1_000)
    scored = ranker.score(raw.append_column("time_ms", time_ms))
    assert pc.list_value_length(rows["clicks.item_id"]).to_numpy().max() == 6
    np.testing.assert_allclose(scored.prediction_BT, expected_BT, rtol=0, atol=1e-5)


def test_candidates_are_ranked_with_both_probabilities(made):
    tables, _, ranker = made
    last = pq.read_table(tables / "test").slice(0, 1).to_pylist()[0]
    answer = ranker.rank(
        RankRequest(user=UserInput(id=last["key.user"]), item_ids=[1, 2, 3, 4]),
        now_us=last["key.time"],
    )
    assert len(answer.items) == 4
    for item in answer.items:
        assert 0 < item.predictions["order"] <= item.predictions["click"] < 1


def test_the_history_was_trained_on_masked_events_too(made):
    _, network, _ = made
    guess = network.embedding.histories[0].pooling.guess
    before = torch.zeros_like(guess.dense.bias)  # where it starts
    assert not guess.dense.bias.equal(before)
