"""A small log with users and items, and a recipe that reads it, for tests."""

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.folder import whole
from pipelines.table_build import TableBuild
from recsys_mtl.config.recipe import Recipe

__all__ = [
    "build_with",
    "make_log",
    "make_recipe",
    "names",
    "read_split",
    "read_tables",
    "write_csv",
]

NUM_USERS, NUM_ITEMS = 12, 15


def make_log(rows=240, seed=0):
    """Rows in no order, with ties of time, holes and repetitions."""
    rng = np.random.default_rng(seed)
    log = []
    for i in range(rows):
        time = int(rng.integers(0, rows // 3))
        click = int(rng.random() < 0.5)
        log.append(
            {
                "row": i,
                "user": "" if rng.random() < 0.03 else f"u{rng.integers(NUM_USERS)}",
                "item": f"i{rng.integers(NUM_ITEMS)}",
                "t": time,
                "click": click,
                "watch": int(rng.integers(0, 60)) if click else "",
                "age": "" if rng.random() < 0.1 else int(rng.integers(10, 70)),
                "part": "train" if time < rows // 6 else ("valid", "test")[i % 2],
            }
        )
    again = [r | {"row": rows + i} for i, r in enumerate(log[:5])]
    return [*log, *again]


def write_csv(path: Path, log):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(log[0]))
        writer.writeheader()
        writer.writerows(log)


def make_recipe(folder: Path, **data) -> Recipe:
    """A recipe on ``log.csv``, ``users.csv`` and ``items.csv`` of a folder."""
    write_csv(
        folder / "users.csv",
        [{"user": f"u{i}", "city": f"c{i % 3}"} for i in range(NUM_USERS - 2)],
    )
    write_csv(
        folder / "items.csv",
        [{"id": f"i{i}", "brand": f"b{i % 4}"} for i in range(NUM_ITEMS)],
    )
    return Recipe.model_validate(
        {
            "name": "small",
            "data": {
                "interactions": {"kind": "csv", "path": str(folder / "log.csv")},
                "users": {"source": {"kind": "csv", "path": str(folder / "users.csv")}},
                "items": {
                    "source": {"kind": "csv", "path": str(folder / "items.csv")},
                    "key": "id",
                },
                "keys": {"user": "user", "item": "item"},
                "timestamp": {"column": "t", "unit": "s"},
                "split": {"kind": "column", "column": "part"},
            }
            | data,
            "features": [
                {"kind": "categorical", "name": "item"},
                {"kind": "categorical", "name": "city"},
                {"kind": "categorical", "name": "brand"},
                {"kind": "numeric", "name": "age"},
                {
                    "kind": "history",
                    "name": "clicks",
                    "fields": ["item", "brand"],
                    "where": {"column": "click", "equals": 1},
                    "length": 4,
                },
                {
                    "kind": "aggregate",
                    "name": "user_ctr",
                    "by": "user",
                    "rate_of": {"column": "click", "equals": 1},
                    "length": 6,
                },
                {
                    "kind": "aggregate",
                    "name": "item_ctr",
                    "by": "item",
                    "rate_of": {"column": "click", "equals": 1},
                },
            ],
            "tasks": [
                {"kind": "binary", "name": "click", "label": "click"},
                {
                    "kind": "value",
                    "name": "watch",
                    "label": "watch",
                    "sample_space": {"column": "click", "equals": 1},
                },
            ],
        }
    )


def read_split(folder: Path, split: str) -> pa.Table:
    """All rows of a split."""
    return pq.read_table(folder / split)


def read_tables(folder: Path) -> list[dict]:
    """All rows of all splits, in an order that depends on their values alone."""
    rows = [
        {"split": split, **row}
        for split in ("train", "valid", "test")
        for row in read_split(folder, split).to_pylist()
    ]
    return sorted(rows, key=repr)


def build_with(recipe, folder, num_buckets):
    """Build feature tables in so many tasks."""
    with whole(folder) as path:
        path.mkdir()
        TableBuild(recipe, "", path, lambda progress: None, num_buckets).run()


def names(folder):
    """What lies in a folder."""
    return [path.name for path in folder.iterdir()]
