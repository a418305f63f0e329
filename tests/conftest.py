"""A tiny bundle, made without Ray or training, for tests of what comes after."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import settings

from recsys_mtl.config.recipe import Recipe
from recsys_mtl.export.bundle import write_bundle
from recsys_mtl.features.contract import RawContract
from recsys_mtl.features.entity import EntityTable
from recsys_mtl.features.events import EventBlock
from recsys_mtl.features.fit import FeaturizerFit
from recsys_mtl.features.join import FeatureStore
from recsys_mtl.features.manifest import FeatureManifest, TaskStats, recipe_digest
from recsys_mtl.features.signature import plan_raw
from recsys_mtl.model.build import build_network

# No test has a time limit: the machine may be busy. All else is the default's.
settings.register_profile("untimed", settings.default, deadline=None)
settings.load_profile("untimed")

NUM_USERS, NUM_ITEMS, NUM_ROWS = 30, 40, 600
START_MS = 1_700_000_000_000

RECIPE = {
    "name": "tiny",
    "description": "A few made-up rows with every kind of feature.",
    "data": {
        "interactions": {"kind": "parquet", "path": "unused"},
        "users": {"source": {"kind": "parquet", "path": "unused"}},
        "items": {"source": {"kind": "parquet", "path": "unused"}},
        "keys": {"user": "user_id", "item": "item_id"},
        "timestamp": {"column": "ts", "unit": "ms"},
        "split": {"kind": "time"},
    },
    "features": [
        {"kind": "categorical", "name": "user_id"},
        {"kind": "categorical", "name": "item_id"},
        {"kind": "categorical", "name": "gender"},
        {"kind": "categorical", "name": "category"},
        {"kind": "categorical", "name": "position"},
        {"kind": "numeric", "name": "age"},
        {"kind": "numeric", "name": "price", "transform": "log1p"},
        {"kind": "quantile", "name": "price_band", "column": "price"},
        {"kind": "quantile", "name": "dwell", "num_buckets": 4, "history_only": True},
        {"kind": "list", "name": "tags", "separator": "|"},
        {"kind": "time_part", "name": "hour", "part": "hour"},
        {
            "kind": "cross",
            "name": "taste",
            "columns": ["gender", "category"],
            "buckets": 50,
        },
        {
            "kind": "history",
            "name": "clicks",
            "fields": ["item_id", "category", "dwell"],
            "where": {"column": "click", "equals": 1},
            "length": 5,
            "pooling": {"kind": "din", "hidden": [4]},
        },
        {"kind": "history", "name": "views", "fields": ["item_id"], "length": 3},
    ],
    "tasks": [
        {"kind": "binary", "name": "click", "label": "click"},
        {"kind": "value", "name": "watch", "label": "dwell"},
    ],
    "model": {
        "embedding": {"dim": 4, "init_std": 0.5},
        "gating": {"kind": "mmoe", "hidden": [8], "num_experts": 2},
        "tower": {"kind": "mlp", "hidden": [4]},
    },
    "score": {"kind": "sum", "weights": {"click": 1.0, "watch": 0.01}},
}


@dataclass(frozen=True)
class Tiny:
    """A bundle's folder and the raw rows it was made from."""

    bundle: Path
    recipe: Recipe
    users: pa.Table
    items: pa.Table
    log: pa.Table

    def user_features(self, user: str) -> dict:
        return _row(self.users, "user_id", user)

    def item_features(self, item: int) -> dict:
        return _row(self.items, "item_id", item)

    def user_histories(self, user: str) -> dict:
        """What the log says of the user, read one row at a time."""
        mine = [row for row in self.log.to_pylist() if row["user_id"] == user]
        mine.sort(key=lambda row: row["ts"])
        category = {row["item_id"]: row["category"] for row in self.items.to_pylist()}
        clicks = [row for row in mine if row["click"] == 1]
        return {
            "clicks": {
                "time": [row["ts"] for row in clicks],
                "item_id": [row["item_id"] for row in clicks],
                "category": [category[row["item_id"]] for row in clicks],
                "dwell": [row["dwell"] for row in clicks],
            },
            "views": {
                "time": [row["ts"] for row in mine],
                "item_id": [row["item_id"] for row in mine],
            },
        }

    def interactions(self, count: int) -> pa.Table:
        """Some impressions as a caller knows them: without labels."""
        return self.log.slice(100, count).drop_columns(["click", "dwell"])


KINDS = {
    "name": "kinds",
    "tasks": [
        {
            "kind": "survival",
            "name": "leave",
            "time": "dwell",
            "event": "click",
            "horizons": [2.0],
        },
        {"kind": "ordinal", "name": "rating", "label": "click", "levels": 3},
        {"kind": "binary", "name": "click", "label": "click"},
    ],
    "score": {"kind": "sum", "weights": {"click": 1.0, "leave": 0.01}},
}

STATS = {
    task: TaskStats(
        rows=1,
        positives=1,
        mean=0.5,
        log_mean=1,
        log_std=1,
        level_rows=(5, 3, 2),
        edges=(1.0, 3.0, 9.0),
        hazards=(0.2, 0.5, 0.9),
    )
    for task in ("click", "watch", "leave", "rating")
}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Tiny:
    return _make(tmp_path_factory.mktemp("tiny"), RECIPE)


@pytest.fixture(scope="session")
def tiny_kinds(tmp_path_factory) -> Tiny:
    """The same with tasks that have details."""
    return _make(tmp_path_factory.mktemp("kinds"), RECIPE | KINDS)


@pytest.fixture(scope="session")
def tiny_texts(tmp_path_factory) -> Tiny:
    """The same with text for the ids of items: i100, i101, ..."""
    return _make(tmp_path_factory.mktemp("texts"), RECIPE, text_items=True)


def _make(folder: Path, spec: dict, *, text_items: bool = False) -> Tiny:
    rng = np.random.default_rng(0)
    users = pa.table(
        {
            "user_id": [f"u{n}" for n in range(NUM_USERS)],
            "gender": rng.choice(["f", "m", None], NUM_USERS).tolist(),
            "age": pa.array(rng.integers(15, 80, NUM_USERS)),
        }
    )
    items = pa.table(
        {
            "item_id": pa.array(np.arange(100, 100 + NUM_ITEMS)),
            "category": rng.choice(["news", "film", "food"], NUM_ITEMS).tolist(),
            "price": rng.lognormal(3, 1, NUM_ITEMS),
            "tags": ["|".join(rng.choice(list("abcde"), 2)) for _ in range(NUM_ITEMS)],
        }
    )
    log = pa.table(
        {
            "user_id": [f"u{n}" for n in rng.integers(0, NUM_USERS, NUM_ROWS)],
            "item_id": rng.integers(100, 100 + NUM_ITEMS, NUM_ROWS),
            "ts": START_MS + np.sort(rng.integers(0, 500_000, NUM_ROWS)),
            "position": rng.integers(0, 10, NUM_ROWS),
            "click": rng.integers(0, 2, NUM_ROWS),
            "dwell": rng.lognormal(1, 1, NUM_ROWS),
        }
    )
    if text_items:
        items, log = map(_with_text_items, (items, log))
    recipe = Recipe.model_validate(spec)
    folder = _bundle(folder, recipe, users, items, log)
    return Tiny(folder, recipe, users, items, log)


def _with_text_items(table: pa.Table) -> pa.Table:
    place = table.column_names.index("item_id")
    names = [f"i{n}" for n in table["item_id"].to_pylist()]
    return table.set_column(place, "item_id", pa.array(names))


def _bundle(folder: Path, recipe: Recipe, users, items, log) -> Path:
    """Feature tables without rows, and a network without training."""
    plan = plan_raw(recipe, log.schema, users.schema, items.schema)
    contract = RawContract.of(recipe, plan.signature)
    store = FeatureStore(
        contract,
        EntityTable.build(users, "user_id"),
        EntityTable.build(items, "item_id"),
    )
    joined = store.join(log)
    fit = FeaturizerFit(recipe, plan.signature)
    fit.update(joined)
    featurizer = fit.finish()
    newest = EntityTable.build(EventBlock(contract, joined, "user").newest(), "user_id")
    for name, column in zip(
        newest.columns, newest.lookup(users["user_id"])[0].columns, strict=True
    ):
        users = users.append_column(name, column)
    tables = folder / "tables"
    featurizer.save(tables / "encoders")
    EntityTable.build(users, "user_id").save(tables / "users.arrow")
    EntityTable.build(items, "item_id").save(tables / "items.arrow")
    stats = {task.name: {"train": STATS[task.name]} for task in recipe.tasks}
    FeatureManifest(
        recipe=recipe.model_dump(mode="json"),
        recipe_digest=recipe_digest(recipe),
        feature_schema=featurizer.schema,
        signature=plan.signature,
        splits={},
        tasks=stats,
    ).save(tables)
    torch.manual_seed(0)
    network = build_network(
        recipe.model,
        recipe.features,
        featurizer.schema,
        recipe.tasks,
        {task: of["train"] for task, of in stats.items()},
        device=torch.device("cpu"),
    )
    return write_bundle(
        folder / "bundle",
        recipe=recipe,
        tables=tables,
        state=network.state_dict(),
        metrics={"click": {"auc": 0.5}},
    )


def _row(table: pa.Table, key: str, value) -> dict:
    (row,) = (row for row in table.to_pylist() if row[key] == value)
    del row[key]
    return row
