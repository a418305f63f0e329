"""A log with every kind of feature, small enough to read."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import settings

from recsys_mtl.config.recipe import Recipe
from recsys_mtl.features.contract import RawContract
from recsys_mtl.features.entity_build import build_entities, with_events
from recsys_mtl.features.events import EventBlock
from recsys_mtl.features.featurizer import Featurizer
from recsys_mtl.features.fit import FeaturizerFit
from recsys_mtl.features.join import FeatureStore
from recsys_mtl.features.signature import RawPlan, plan_raw

# A busy machine is no fault of the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

FEATURES = [
    {"kind": "categorical", "name": "user"},
    {
        "kind": "categorical",
        "name": "item",
        "encoder": {"kind": "vocabulary", "min_count": 2},
    },
    {"kind": "categorical", "name": "city", "encoder": {"kind": "hash", "buckets": 50}},
    {"kind": "categorical", "name": "brand"},
    {"kind": "numeric", "name": "age"},
    {"kind": "numeric", "name": "price_log", "column": "price", "transform": "log1p"},
    {"kind": "quantile", "name": "price", "num_buckets": 8},
    {"kind": "quantile", "name": "stay", "num_buckets": 4, "history_only": True},
    {"kind": "categorical", "name": "clicked", "column": "click", "history_only": True},
    {"kind": "list", "name": "tags", "max_length": 3},
    {"kind": "time_part", "name": "hour", "part": "hour"},
    {
        "kind": "cross",
        "name": "city_brand",
        "columns": ["city", "brand"],
        "buckets": 40,
    },
    {
        "kind": "history",
        "name": "clicks",
        "fields": ["item", "brand", "stay"],
        "where": {"column": "click", "equals": 1},
        "length": 4,
    },
    {
        "kind": "history",
        "name": "seen",
        "fields": ["item", "clicked"],
        "length": 3,
        "keep": 5,
    },
    {
        "kind": "history",
        "name": "alike",
        "fields": ["clicked", "brand"],
        "length": 20,
        "match": ["brand"],
    },
    {
        "kind": "aggregate",
        "name": "user_ctr",
        "by": "user",
        "rate_of": {"column": "click", "equals": 1},
    },
    {
        "kind": "aggregate",
        "name": "item_ctr",
        "by": "item",
        "rate_of": {"column": "click", "equals": 1},
        "length": 6,
    },
]


def recipe_of(features: list[dict], tasks: list[dict] | None = None, **data) -> Recipe:
    """A recipe that reads the columns of ``Log``."""
    defaults = {
        "interactions": {"kind": "parquet", "path": "unused"},
        "users": {"source": {"kind": "parquet", "path": "unused"}, "key": "uid"},
        "items": {"source": {"kind": "parquet", "path": "unused"}},
        "keys": {"user": "user", "item": "item"},
        "timestamp": {"column": "at", "unit": "s"},
        "split": {"kind": "time"},
    }
    chosen = {k: v for k, v in (defaults | data).items() if v is not None}
    return Recipe.model_validate(
        {
            "name": "log",
            "data": chosen,
            "features": features,
            "tasks": tasks or [{"kind": "binary", "name": "click", "label": "click"}],
        }
    )


class Log:
    """Raw tables, and everything that the library makes of them."""

    def __init__(self, rows: int = 300, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.recipe = recipe_of(FEATURES)
        self.raw = pa.table(
            {
                "user": pa.array(
                    [None if u == 12 else f"u{u}" for u in rng.integers(0, 13, rows)]
                ),
                "item": pa.array(rng.integers(0, 40, rows)),
                # Few instants, so that many rows share one.
                "at": pa.array(
                    [
                        None if t == 60 else int(t) * 1800
                        for t in rng.integers(0, 61, rows)
                    ]
                ),
                "click": pa.array(rng.choice([0, 1, None], rows, p=[0.5, 0.4, 0.1])),
                "stay": pa.array(rng.exponential(20, rows)),
            }
        )
        self.users = pa.table(
            {
                "uid": [f"u{n}" for n in range(10)],
                "city": [None, *rng.choice(["rome", "oslo", ""], 9)],
                "age": [float("nan"), *rng.integers(10, 80, 9).astype(float)],
            }
        )
        self.items = pa.table(
            {
                "item": pa.array(range(35), pa.int32()),
                "brand": rng.integers(0, 5, 35),
                "price": rng.lognormal(2, 1, 35),
                "tags": [
                    None
                    if n == 0
                    else [None, *map(str, rng.integers(0, 9, n % 5))][n % 2 :]
                    for n in range(35)
                ],
            }
        )
        self.plan: RawPlan = plan_raw(
            self.recipe, self.raw.schema, self.users.schema, self.items.schema
        )
        self.contract = RawContract.of(self.recipe, self.plan.signature)
        users = build_entities(self.contract, "user", self.users, key="uid")
        items = build_entities(self.contract, "item", self.items, key="item")
        joined = FeatureStore(self.contract, users, items).join(self.raw)
        by_user = EventBlock(self.contract, joined, "user")
        by_item = EventBlock(self.contract, joined, "item")
        for table in (by_user.aggregates(), by_item.aggregates()):
            for name in table.column_names:
                place = joined.column_names.index(name)
                joined = joined.set_column(place, name, table.column(name))
        self.joined = joined
        self.histories = by_user.histories()
        fit = FeaturizerFit(self.recipe, self.plan.signature)
        fit.update(joined)
        self.featurizer: Featurizer = fit.finish()
        self.store = FeatureStore(
            self.contract,
            with_events(users, [by_user.newest()]),
            with_events(items, [by_item.newest()]),
        )


@pytest.fixture(scope="session")
def log() -> Log:
    return Log()


@pytest.fixture(scope="session")
def make_log() -> Callable[..., Log]:
    return Log


@pytest.fixture(scope="session")
def make_recipe() -> Callable[..., Recipe]:
    return recipe_of
