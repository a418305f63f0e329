"""A schema with everything in it, batches over it, and small networks."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from recsys_mtl.config.feature import (
    AttentionPooling,
    CategoricalFeature,
    HistoryFeature,
    ListFeature,
    MeanPooling,
)
from recsys_mtl.config.gating import MMoESpec
from recsys_mtl.config.model import EmbeddingSpec, ModelSpec
from recsys_mtl.config.task import BinaryTask, ValueTask
from recsys_mtl.config.tower import MLPTowerSpec
from recsys_mtl.data.batch import to_batch
from recsys_mtl.features.manifest import TaskStats
from recsys_mtl.features.schema import FeatureSchema, HistoryField, IdField
from recsys_mtl.model.build import build_network

SIZES = {"user": 40, "type": 7, "tags": 12, "item": 30, "values": 9, "dwell": 8}
SCHEMA = FeatureSchema(
    ids=(
        IdField(name="user", size=SIZES["user"]),
        IdField(name="type", size=SIZES["type"]),
        IdField(name="tags", size=SIZES["tags"], multi=True),
        IdField(name="item", size=SIZES["item"]),
        IdField(name="values", size=SIZES["values"]),
        IdField(name="dwell", size=SIZES["dwell"], history_only=True),
    ),
    dense=("age", "price"),
    histories=(
        HistoryField(
            name="clicks", fields=("dwell", "item", "values"), gaps=True, length=5
        ),
        HistoryField(name="orders", fields=("item",), gaps=False, length=3),
    ),
)
FEATURES = (
    *(
        CategoricalFeature(kind="categorical", name=name)
        for name in ("user", "type", "item", "values", "dwell")
    ),
    ListFeature(kind="list", name="tags"),
    HistoryFeature(
        kind="history",
        name="clicks",
        fields=("dwell", "item", "values"),
        length=5,
        pooling=AttentionPooling(kind="din", hidden=(6, 5)),
    ),
    HistoryFeature(
        kind="history",
        name="orders",
        fields=("item",),
        length=3,
        gaps=False,
        pooling=MeanPooling(),
    ),
)
TASKS = (
    BinaryTask(kind="binary", name="click", label="click"),
    ValueTask(kind="value", name="watch", label="watch_s"),
    ValueTask(kind="value", name="amount", label="amount", loss="squared"),
)
STATS = {
    "click": TaskStats(rows=100, positives=20, mean=0.2, log_mean=0.1, log_std=0.3),
    "watch": TaskStats(rows=90, positives=90, mean=30.0, log_mean=3.0, log_std=0.9),
    "leave": TaskStats(
        rows=70,
        positives=50,
        mean=2.0,
        log_mean=1.0,
        log_std=0.5,
        edges=(1.0, 2.5, 6.0),
        hazards=(0.2, 0.5, 0.9),
    ),
    "spend": TaskStats(
        rows=90,
        positives=9,
        mean=4.0,
        log_mean=0.3,
        log_std=0.9,
        positive_log_mean=3.0,
        positive_log_std=0.5,
    ),
    "rating": TaskStats(
        rows=10, positives=8, mean=1.2, log_mean=0.7, log_std=0.4, level_rows=(2, 5, 3)
    ),
    "amount": TaskStats(rows=80, positives=40, mean=12.0, log_mean=2.0, log_std=0.8),
    "order": TaskStats(rows=100, positives=5, mean=0.05, log_mean=0.03, log_std=0.2),
}


def make_table(num_rows, seed=0, *, history_length=None):
    """Draw encoded rows; histories are of random length unless one is given."""
    rng = np.random.default_rng(seed)

    def ids(size, n):
        return rng.integers(0, size, n).astype(np.int32)

    columns = {
        field.name: (
            pa.array(
                [ids(field.size, rng.integers(0, 4)) for _ in range(num_rows)],
                pa.list_(pa.int32()),
            )
            if field.multi
            else pa.array(ids(field.size, num_rows))
        )
        for field in SCHEMA.ids
        if not field.history_only
    }
    for name in SCHEMA.dense:
        columns[name] = pa.array(rng.normal(size=num_rows).astype(np.float32))
    for history in SCHEMA.histories:
        lengths = rng.integers(0, history.length + 1, num_rows)
        if history_length is not None:
            lengths[:] = history_length
        for column in history.columns:
            size = SIZES.get(column.split(".")[1], 64)
            columns[column] = pa.array(
                [ids(size, n) for n in lengths], pa.list_(pa.int32())
            )
    columns["label.click"] = pa.array(rng.integers(0, 2, num_rows).astype(np.float32))
    for name in ("watch", "amount"):
        columns[f"label.{name}"] = pa.array(
            rng.exponential(20, num_rows).astype(np.float32)
        )
    return pa.table(columns)


def make_batch(num_rows, seed=0, **options):
    """Lay ``make_table`` out as tensors."""
    tasks = tuple(task.name for task in TASKS)
    return to_batch(make_table(num_rows, seed, **options), SCHEMA, tasks)


@pytest.fixture
def schema():
    return SCHEMA


@pytest.fixture
def tasks():
    return TASKS


@pytest.fixture
def encoded():
    """Function (num_rows, seed) -> encoded table."""
    return make_table


@pytest.fixture
def batches():
    """Function (num_rows, seed, history_length) -> Batch."""
    return make_batch


@pytest.fixture
def network_of():
    """Function that builds a small network, each stage as asked.

    ``pooling`` is that of the history ``clicks``.
    """

    def build(
        *,
        dim=4,
        init_std=1.0,
        numeric="raw",
        tasks=TASKS,
        pooling=None,
        device="cpu",
        **stages,
    ):
        torch.manual_seed(0)
        embedding = EmbeddingSpec(dim=dim, init_std=init_std, numeric=numeric)
        spec = ModelSpec(embedding=embedding, **stages)
        features = FEATURES
        if pooling is not None:
            features = tuple(
                f.model_copy(update={"pooling": pooling}) if f.name == "clicks" else f
                for f in FEATURES
            )
        return build_network(
            spec, features, SCHEMA, tasks, STATS, device=torch.device(device)
        )

    return build


@pytest.fixture
def network(network_of):
    return network_of(
        gating=MMoESpec(hidden=(12, 8), num_experts=3),
        tower=MLPTowerSpec(hidden=(6,)),
    )
