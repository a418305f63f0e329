"""Bundles with every kind of feature, made without Ray or training."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from recsys_mtl.config.recipe import Recipe
from recsys_mtl.export.bundle import write_bundle
from recsys_mtl.features.contract import RawContract
from recsys_mtl.features.entity import EntityTable
from recsys_mtl.features.entity_build import build_entities, with_events
from recsys_mtl.features.events import EventBlock
from recsys_mtl.features.fit import FeaturizerFit
from recsys_mtl.features.join import FeatureStore
from recsys_mtl.features.manifest import FeatureManifest, TaskStats, recipe_digest
from recsys_mtl.features.signature import plan_raw
from recsys_mtl.model.build import build_network

__all__ = ["OWN_FEATURES", "SEEN", "SHARED_FEATURES", "Made", "make", "spec_of"]

START_S = 1_700_000_000
CLICKED = {"column": "click", "equals": 1}
SHARED_FEATURES = [
    {"kind": "categorical", "name": "user_id"},
    {"kind": "categorical", "name": "city", "encoder": {"kind": "hash", "buckets": 9}},
    {"kind": "numeric", "name": "age"},
    {"kind": "quantile", "name": "age_band", "column": "age", "num_buckets": 4},
    {"kind": "list", "name": "interests", "max_length": 3},
    {"kind": "categorical", "name": "position"},
    {"kind": "numeric", "name": "place", "column": "position"},
    {"kind": "time_part", "name": "hour", "part": "hour", "utc_offset_hours": 5.5},
    {"kind": "cross", "name": "city_place", "columns": ["city", "position"]},
    {
        "kind": "aggregate",
        "name": "user_ctr",
        "by": "user",
        "rate_of": CLICKED,
        "length": 4,
    },
    {"kind": "categorical", "name": "clicked", "column": "click", "history_only": True},
]
OWN_FEATURES = [
    {"kind": "categorical", "name": "item_id"},
    {"kind": "categorical", "name": "brand"},
    {"kind": "numeric", "name": "price", "transform": "log1p"},
    {"kind": "quantile", "name": "price_band", "column": "price", "num_buckets": 4},
    {"kind": "list", "name": "tags", "separator": "|", "max_length": 2},
    {"kind": "cross", "name": "city_brand", "columns": ["city", "brand"]},
    {"kind": "cross", "name": "place_brand", "columns": ["position", "brand"]},
    {"kind": "cross", "name": "pair", "columns": ["user_id", "item_id"]},
    {"kind": "aggregate", "name": "item_ctr", "by": "item", "rate_of": CLICKED},
    {
        "kind": "aggregate",
        "name": "item_recent",
        "by": "item",
        "rate_of": CLICKED,
        "length": 2,
    },
    {
        "kind": "history",
        "name": "clicks",
        "fields": ["item_id", "brand", "price_band"],
        "where": CLICKED,
        "length": 4,
    },
]
SEEN = {
    "kind": "history",
    "name": "seen",
    "fields": ["item_id", "clicked"],
    "length": 2,
    "keep": 3,
    "gaps": False,
}


@dataclass(frozen=True)
class Made:
    """A bundle's folder and its recipe."""

    bundle: Path
    recipe: Recipe


def spec_of(features: list[dict], **data) -> dict:
    """A recipe of some features."""
    buckets = [f | {"buckets": 7} if f["kind"] == "cross" else f for f in features]
    return {
        "name": "rich",
        "data": {
            "interactions": {"kind": "parquet", "path": "unused"},
            "users": {"source": {"kind": "parquet", "path": "unused"}},
            "keys": {"user": "user_id", "item": "item_id"},
            "timestamp": {"column": "at", "unit": "s"},
            "split": {"kind": "time"},
        }
        | data,
        "features": buckets,
        "tasks": [
            {"kind": "binary", "name": "click", "label": "click"},
            {"kind": "value", "name": "stay", "label": "stay"},
        ],
        "model": {
            "embedding": {"dim": 4, "init_std": 0.5},
            "gating": {"kind": "mmoe", "hidden": [8], "num_experts": 2},
            "tower": {"kind": "mlp", "hidden": [4]},
        },
    }


def make(folder: Path, spec: dict, *, whole_users: bool = False) -> Made:
    """Tables of twelve users and fifteen items, their newest events, and a network."""
    rng = np.random.default_rng(0)
    names = [str(n) if whole_users else f"u{n}" for n in range(12)]
    users = pa.table(
        {
            "user_id": names,
            "city": rng.choice(["rome", "oslo", None], 12).tolist(),
            "age": [None if n % 5 == 0 else float(n) for n in range(12)],
            "interests": [["a", None, "b", "c"], [], None, ["d"]] * 3,
        }
    )
    items = pa.table(
        {
            "item_id": pa.array(np.arange(100, 115)),
            "brand": rng.choice(["x", "y", "z", None], 15).tolist(),
            "price": rng.lognormal(size=15),
            "tags": ["|".join(rng.choice(list("abc"), n % 4)) for n in range(15)],
        }
    )
    log = pa.table(
        {
            "user_id": rng.choice(names[:10], 200).tolist(),
            "item_id": rng.integers(100, 113, 200),
            "at": START_S + np.sort(rng.integers(0, 50, 200)),
            "position": rng.integers(0, 4, 200),
            # Some of the log's own, the others from the table of items.
            "price": [None if n % 3 else float(n) for n in range(200)],
            "click": rng.integers(0, 2, 200),
            "stay": rng.random(200),
        }
    )
    recipe = Recipe.model_validate(spec)
    has_items = recipe.data.items is not None
    plan = plan_raw(
        recipe, log.schema, users.schema, items.schema if has_items else None
    )
    contract = RawContract.of(recipe, plan.signature)
    user_table = build_entities(contract, "user", users, key="user_id")
    item_table = (
        build_entities(contract, "item", items, key="item_id") if has_items else None
    )
    joined = FeatureStore(contract, user_table, item_table).join(log)
    fit = FeaturizerFit(recipe, plan.signature)
    user_events, item_events = (
        EventBlock(contract, joined, by) for by in ("user", "item")
    )
    fit.update(joined)
    featurizer = fit.finish()
    user_table = with_events(user_table, [user_events.newest()])
    if item_table is not None:
        item_table = with_events(item_table, [item_events.newest()])
    if whole_users:
        whole = user_table.rows.column("user_id").cast(pa.int64())
        user_table = EntityTable.build(
            user_table.rows.set_column(0, "user_id", whole), "user_id"
        )
    tables = folder / "tables"
    featurizer.save(tables / "encoders")
    user_table.save(tables / "users.arrow")
    if item_table is not None:
        item_table.save(tables / "items.arrow")
    stats = TaskStats(rows=9, positives=4, mean=0.4, log_mean=0.7, log_std=0.5)
    FeatureManifest(
        recipe=recipe.model_dump(mode="json"),
        recipe_digest=recipe_digest(recipe),
        feature_schema=featurizer.schema,
        signature=plan.signature,
        splits={},
        tasks={task.name: {"train": stats} for task in recipe.tasks},
    ).save(tables)
    torch.manual_seed(0)
    network = build_network(
        recipe.model,
        recipe.features,
        featurizer.schema,
        recipe.tasks,
        {task.name: stats for task in recipe.tasks},
        device=torch.device("cpu"),
    )
    bundle = write_bundle(
        folder / "bundle",
        recipe=recipe,
        tables=tables,
        state=network.state_dict(),
        metrics={},
    )
    return Made(bundle, recipe)
