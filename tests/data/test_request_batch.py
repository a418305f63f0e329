import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_mtl.config.data import KeysSpec, TimestampSpec
from recsys_mtl.config.feature import (
    AggregateFeature,
    CategoricalFeature,
    CrossFeature,
    HistoryFeature,
    ListFeature,
    NumericFeature,
    QuantileFeature,
    TimePartFeature,
)
from recsys_mtl.data.batch import to_batch
from recsys_mtl.data.request_batch import RequestBatch, SchemaSplit
from recsys_mtl.features.contract import RawContract
from recsys_mtl.features.schema import FeatureSchema, HistoryField, IdField, RawColumn
from recsys_mtl.features.shared_column import shared_columns

CONTRACT = RawContract(
    features=(
        CategoricalFeature(kind="categorical", name="item_id", column="item"),
        CategoricalFeature(kind="categorical", name="who", column="user"),
        CategoricalFeature(kind="categorical", name="brand"),
        CategoricalFeature(
            kind="categorical", name="liked", column="like", history_only=True
        ),
        ListFeature(kind="list", name="tags"),
        ListFeature(kind="list", name="interests"),
        QuantileFeature(kind="quantile", name="price_level", column="price"),
        TimePartFeature(kind="time_part", name="hour", part="hour"),
        CrossFeature(kind="cross", name="city_tab", columns=("city", "tab"), buckets=5),
        CrossFeature(
            kind="cross", name="city_brand", columns=("city", "brand"), buckets=5
        ),
        NumericFeature(kind="numeric", name="price"),
        NumericFeature(kind="numeric", name="age"),
        AggregateFeature(
            kind="aggregate",
            name="ctr",
            by="item",
            rate_of={"column": "click", "equals": 1},
        ),
        AggregateFeature(
            kind="aggregate",
            name="activity",
            by="user",
            rate_of={"column": "click", "equals": 1},
        ),
        HistoryFeature(kind="history", name="clicks", fields=("item_id", "liked")),
    ),
    keys=KeysSpec(user="user", item="item"),
    timestamp=TimestampSpec(column="t", unit="s"),
    # Keys and what the log has are of the context, as `plan_raw` decides.
    signature=(
        RawColumn(name="item", type="int", origin="context"),
        RawColumn(name="user", type="int", origin="context"),
        RawColumn(name="t", type="int", origin="context"),
        RawColumn(name="tab", type="string", origin="context"),
        RawColumn(name="price", type="float", origin="context"),
        RawColumn(name="like", type="int", origin="context", history_only=True),
        RawColumn(name="brand", type="string", origin="item"),
        RawColumn(name="tags", type="string_list", origin="item"),
        RawColumn(name="interests", type="string_list", origin="user"),
        RawColumn(name="city", type="string", origin="user"),
        RawColumn(name="age", type="float", origin="user"),
    ),
)
SCHEMA = FeatureSchema(
    ids=(
        IdField(name="item_id", size=50),
        IdField(name="who", size=20),
        IdField(name="brand", size=9),
        IdField(name="liked", size=4, history_only=True),
        IdField(name="tags", size=12, multi=True),
        IdField(name="interests", size=12, multi=True),
        IdField(name="price_level", size=6),
        IdField(name="hour", size=26),
        IdField(name="city_tab", size=7),
        IdField(name="city_brand", size=7),
    ),
    dense=(
        "price",
        "age",
        "ctr.count",
        "ctr.rate",
        "activity.count",
        "activity.rate",
    ),
    histories=(
        HistoryField(name="clicks", fields=("item_id", "liked"), gaps=True, length=4),
    ),
)
SHARED = (
    "who",
    "interests",
    "price_level",
    "hour",
    "city_tab",
    "price",
    "age",
    "activity.count",
    "activity.rate",
    "clicks.item_id",
    "clicks.liked",
    "clicks.gap",
)
SPLIT = SchemaSplit.by_columns(SCHEMA, shared_columns(SCHEMA, CONTRACT))


def encoded(num_rows, seed):
    """Random encoded rows; events of a history have equally many parts."""
    rng = np.random.default_rng(seed)

    def lists(size, lengths):
        parts = [rng.integers(0, size, n).astype(np.int32) for n in lengths]
        return pa.array(parts, pa.list_(pa.int32()))

    columns = {}
    for field in SCHEMA.ids:
        if field.multi:
            columns[field.name] = lists(field.size, rng.integers(0, 4, num_rows))
        elif not field.history_only:
            ids = rng.integers(0, field.size, num_rows)
            columns[field.name] = pa.array(ids.astype(np.int32))
    for name in SCHEMA.dense:
        columns[name] = pa.array(rng.normal(size=num_rows).astype(np.float32))
    lengths = rng.integers(0, 5, num_rows)
    for column, size in zip(SCHEMA.histories[0].columns, (50, 4, 64), strict=True):
        columns[column] = lists(size, lengths)
    return pa.table(columns)


def test_columns_of_user_time_and_context_are_shared():
    assert SPLIT.shared == SHARED
    assert set(SPLIT.own) == set(SCHEMA.columns) - set(SHARED)
    assert SPLIT.shared_dense == ("price", "age", "activity.count", "activity.rate")
    assert SPLIT.own_dense == ("ctr.count", "ctr.rate")


def test_the_key_of_the_item_is_the_candidates_though_the_log_has_it():
    assert "item_id" in SPLIT.own


def test_what_the_table_of_items_fills_is_the_candidates():
    shared = shared_columns(SCHEMA, CONTRACT, item_columns=("item", "price"))
    assert set(SPLIT.shared) - shared == {"price", "price_level"}


def test_columns_of_a_history_stay_together():
    with pytest.raises(AssertionError, match=r"clicks: one side for all its columns"):
        SchemaSplit.by_columns(SCHEMA, ("clicks.item_id",))


@settings(deadline=None, max_examples=30)
@given(counts=st.lists(st.integers(0, 4), min_size=1, max_size=4), seed=st.integers(0))
def test_joined_equals_whole_rows(counts, seed):
    request_N = np.repeat(np.arange(len(counts)), counts)
    shared, own = encoded(len(counts), seed), encoded(len(request_N), seed + 1)
    batch = RequestBatch.of_tables(
        SPLIT, shared.select(SPLIT.shared), own.select(SPLIT.own), request_N
    )
    assert (batch.num_requests, batch.num_rows) == (len(counts), len(request_N))
    repeated = shared.take(pa.array(request_N))
    whole = pa.table(
        {
            name: (repeated if name in SPLIT.shared else own).column(name)
            for name in SCHEMA.columns
        }
    )
    expected, joined = to_batch(whole, SCHEMA), batch.joined()
    assert joined.dense_BM.equal(expected.dense_BM)
    for one, other in (
        (joined.pooled, expected.pooled),
        (joined.sequence, expected.sequence),
    ):
        assert one.keys() == other.keys()
        assert one.values().equal(other.values())
        assert one.lengths().equal(other.lengths())


@pytest.mark.parametrize(
    ("request_N", "fault"),
    [
        ([1, 0], "ascending"),
        ([0, 2], "a row of"),
        ([-1, 0], "a row of"),
        ([0], "one a"),
    ],
)
def test_a_candidate_goes_with_one_request_in_order(request_N, fault):
    with pytest.raises(AssertionError, match=fault):
        RequestBatch.of_tables(
            SPLIT, encoded(2, 0), encoded(2, 1), np.array(request_N, np.int64)
        )
