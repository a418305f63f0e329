"""Feature tables, a recipe and a network with random weights, small enough to copy."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from recsys_mtl.config.recipe import Recipe
from recsys_mtl.export.bundle import write_bundle
from recsys_mtl.features.contract import RawContract
from recsys_mtl.features.entity import EntityTable
from recsys_mtl.features.fit import FeaturizerFit
from recsys_mtl.features.join import FeatureStore
from recsys_mtl.features.manifest import FeatureManifest, TaskStats, recipe_digest
from recsys_mtl.features.signature import plan_raw
from recsys_mtl.model.build import build_network
from recsys_mtl.model.network import Network

STATS = TaskStats(rows=9, positives=4, mean=0.4, log_mean=0.7, log_std=0.5)


@dataclass(frozen=True)
class Made:
    """Everything that a bundle is written from, and rows to score."""

    recipe: Recipe
    tables: Path
    network: Network
    log: pa.Table
    report: Path

    def arguments(self, **other) -> dict:
        return {
            "recipe": self.recipe,
            "tables": self.tables,
            "state": self.network.state_dict(),
            "metrics": {"click": {"rows": 9.0, "auc": 0.75}, "dwell": {"rows": 9.0}},
            "report": self.report,
        } | other


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Made:
    rng = np.random.default_rng(0)
    recipe = Recipe.model_validate(
        {
            "name": "small",
            "data": {
                "interactions": {"kind": "parquet", "path": "unused"},
                "items": {"source": {"kind": "parquet", "path": "unused"}},
                "keys": {"user": "user", "item": "item"},
                "split": {"kind": "hash", "column": "user"},
            },
            "features": [
                {"kind": "categorical", "name": "user"},
                {"kind": "categorical", "name": "item"},
                {"kind": "numeric", "name": "price"},
                {"kind": "list", "name": "tags", "separator": "|"},
            ],
            "tasks": [
                {"kind": "binary", "name": "click", "label": "click"},
                {"kind": "value", "name": "dwell", "label": "dwell"},
            ],
            "model": {
                "embedding": {"dim": 4, "init_std": 1.0},
                "gating": {"kind": "mmoe", "hidden": [8], "num_experts": 2},
                "tower": {"kind": "mlp", "hidden": [4]},
            },
        }
    )
    items = pa.table(
        {
            "item": pa.array(np.arange(20)),
            "price": rng.lognormal(size=20),
            "tags": ["|".join(rng.choice(list("abc"), 2)) for _ in range(20)],
        }
    )
    log = pa.table(
        {
            "user": [f"u{n}" for n in rng.integers(0, 10, 200)],
            "item": rng.integers(0, 25, 200),  # five of them are in no table
            "click": rng.integers(0, 2, 200),
            "dwell": rng.random(200),
        }
    )
    signature = plan_raw(recipe, log.schema, None, items.schema).signature
    tables = tmp_path_factory.mktemp("made") / "tables"
    tables.mkdir()
    table = EntityTable.build(items, "item")
    table.save(tables / "items.arrow")
    store = FeatureStore(RawContract.of(recipe, signature), None, table)
    fit = FeaturizerFit(recipe, signature)
    fit.update(store.assemble(log).raw)
    featurizer = fit.finish()
    featurizer.save(tables / "encoders")
    stats = {task.name: STATS for task in recipe.tasks}
    FeatureManifest(
        recipe=recipe.model_dump(mode="json"),
        recipe_digest=recipe_digest(recipe),
        feature_schema=featurizer.schema,
        signature=signature,
        splits={},
        tasks={name: {"train": of} for name, of in stats.items()},
    ).save(tables)
    torch.manual_seed(0)
    network = build_network(
        recipe.model,
        recipe.features,
        featurizer.schema,
        recipe.tasks,
        stats,
        device=torch.device("cpu"),
    )
    for parameter in network.parameters():  # weights that no start would give
        torch.nn.init.normal_(parameter)
    report = tables.parent / "report.html"
    report.write_text("<p>fine</p>")
    return Made(recipe, tables, network.eval(), log, report)


@pytest.fixture(scope="session")
def bundle(made, tmp_path_factory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("out") / "bundle", **made.arguments())
