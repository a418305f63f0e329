"""Small feature tables with a planted model, and a recipe that fits them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys_mtl.config.recipe import Recipe
from recsys_mtl.features.manifest import FeatureManifest, TaskStats
from recsys_mtl.features.schema import FeatureSchema, HistoryField, IdField

NUM_IDS = 30

SCHEMA = FeatureSchema(
    ids=(
        IdField(name="user", size=NUM_IDS),
        IdField(name="item", size=NUM_IDS),
        IdField(name="tags", size=NUM_IDS, multi=True),
    ),
    dense=("age", "price"),
    histories=(HistoryField(name="seen", fields=("item",), gaps=True, length=4),),
)


def encoded_table(rows: int, seed: int) -> pa.Table:
    """Rows in the encoded form; clicks follow the item and the age."""
    rng = np.random.default_rng(seed)
    item = rng.integers(0, NUM_IDS, rows)
    age = rng.normal(size=rows)
    logit = 2.0 * np.sin(item) + age
    click = (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    stay = np.where(click > 0, np.exp(0.5 * age + rng.normal(size=rows)), np.nan)
    lists = [rng.integers(0, NUM_IDS, n) for n in rng.integers(0, 4, rows)]
    events = [rng.integers(2, NUM_IDS, n) for n in rng.integers(0, 5, rows)]
    ids = pa.list_(pa.int32())
    return pa.table(
        {
            "user": pa.array(rng.integers(0, NUM_IDS, rows), pa.int32()),
            "item": pa.array(item, pa.int32()),
            "tags": pa.array(lists, ids),
            "age": pa.array(age, pa.float32()),
            "price": pa.array(rng.random(rows), pa.float32()),
            "seen.item": pa.array(events, ids),
            "seen.gap": pa.array([e % 7 for e in events], ids),
            "label.click": pa.array(click, pa.float32()),
            "label.stay": pa.array(stay, pa.float32(), from_pandas=True),
            "key.user": pa.array([f"u{i}" for i in rng.integers(0, 9, rows)]),
        }
    )


def write_tables(
    folder: Path, *, rows: int = 600, parts: int = 2, group_rows: int = 64
) -> Path:
    """Write ``rows`` training rows, and half as many to validate and to test."""
    for seed, (split, size) in enumerate(
        [("train", rows), ("valid", rows // 2), ("test", rows // 2)]
    ):
        (folder / split).mkdir(parents=True)
        table = encoded_table(size, seed)
        for part, first in enumerate(range(0, size, -(-size // parts))):
            pq.write_table(
                table.slice(first, -(-size // parts)),
                folder / split / f"part-{part:04d}.parquet",
                row_group_size=group_rows,
            )
    stats = TaskStats(
        rows=rows, positives=rows // 2, mean=0.5, log_mean=0.7, log_std=0.5
    )
    FeatureManifest(
        recipe={},
        recipe_digest="",
        feature_schema=SCHEMA,
        signature=(),
        splits={},
        tasks={"click": {"train": stats}, "stay": {"train": stats}},
    ).save(folder)
    return folder


def recipe(*, dropout: float = 0.1, **train: object) -> Recipe:
    """Name the features of ``SCHEMA``; ``train`` overrides the training section."""
    defaults = {
        "epochs": 2,
        "batch_size": 50,
        "num_threads": 1,
        "shuffle_rows": 200,
        "early_stopping": {"metric": "click.auc", "patience": 5},
        "optimizer": {"learning_rate": 0.01},
        "embedding_optimizer": {"kind": "rowwise_adagrad", "learning_rate": 0.1},
    }
    return Recipe.model_validate(
        {
            "name": "tiny",
            "data": {
                "interactions": {"kind": "parquet", "path": "none"},
                "keys": {"user": "user", "item": "item"},
                "timestamp": {"column": "time", "unit": "s"},
                "split": {"kind": "time"},
            },
            "features": [
                {"kind": "categorical", "name": "user"},
                {"kind": "categorical", "name": "item"},
                {"kind": "list", "name": "tags"},
                {"kind": "numeric", "name": "age"},
                {"kind": "numeric", "name": "price"},
                {
                    "kind": "history",
                    "name": "seen",
                    "fields": ["item"],
                    "length": 4,
                    "pooling": {"kind": "din", "hidden": [4], "dropout": dropout},
                },
            ],
            "tasks": [
                {"kind": "binary", "name": "click", "label": "click"},
                {"kind": "value", "name": "stay", "label": "stay"},
            ],
            "model": {
                "embedding": {"dim": 8},
                "bottom": {"kind": "flat", "dropout": dropout},
                "gating": {"kind": "mmoe", "hidden": [16], "num_experts": 2},
                "tower": {"kind": "mlp", "hidden": [8]},
            },
            "train": defaults | train,
        }
    )
