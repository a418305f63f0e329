import itertools
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from recsys_mtl.errors import ArtifactError
from recsys_mtl.features.contract import RawContract
from recsys_mtl.features.featurizer import Featurizer
from recsys_mtl.features.history import as_of
from recsys_mtl.features.snapshot import EncodedEntities, encode_entities

OF_ITEMS = ["item", "brand", "price_log", "price", "tags", "city_brand"]
OF_USERS = ["user", "city", "age"]


@pytest.fixture(scope="module")
def items(log):
    return encode_entities(log.featurizer, log.store.items, "item", OF_ITEMS)


@pytest.fixture(scope="module")
def users(log):
    return encode_entities(log.featurizer, log.store.users, "user", OF_USERS)


def test_a_row_is_what_the_featurizer_makes_of_the_stored_cells(log, items):
    stored = log.store.items.rows
    raw = pa.table({"item": stored.column("item")})
    assembled = log.store.assemble(raw)
    plain = log.featurizer.encode(assembled.raw, assembled.histories)
    for place, name in enumerate(items.id_columns):
        assert items.ids_EF[:-1, place].tolist() == plain.column(name).to_pylist()
    for place, name in enumerate(items.dense_columns):
        expected = plain.column(name).to_numpy()
        np.testing.assert_array_equal(items.dense_EM[:-1, place], expected)
    tags, ends = items.lists["tags"], items.lists["tags"].offsets
    lists = [tags.values[a:b].tolist() for a, b in itertools.pairwise(ends)]
    assert lists == [*plain.column("tags").to_pylist(), []]


def test_the_last_row_is_of_whoever_is_unknown(log, users):
    empty = log.store.assemble(pa.table({"": pa.nulls(1)}))
    plain = log.featurizer.encode(empty.raw, empty.histories)
    assert users.ids_EF[-1].tolist() == [
        plain.column(name)[0].as_py() for name in users.id_columns
    ]
    assert len(users.ids_EF) == log.store.users.rows.num_rows + 1


def test_stored_events_are_those_of_the_plain_join(log, users):
    keys = log.store.users.rows.column("user")
    times = pa.array([30] * len(keys))
    assembled = log.store.assemble(pa.table({"user": keys, "at": times}))
    plain = log.featurizer.encode(assembled.raw, assembled.histories)
    everyone = np.arange(len(keys))
    time_B = np.full(len(keys), 30_000_000)
    for history in log.contract.histories:
        if history.match:  # not of users alone
            assert history.name not in users.events
            continue
        events = users.events[history.name]
        windows = as_of(events.log, everyone, time_B, history.length)
        for column, ids in events.ids.items():
            cut = zip(windows.start_B, windows.stop_B, strict=True)
            found = [ids[a:b].tolist() for a, b in cut]
            assert found == plain.column(column).to_pylist()


def test_a_log_that_several_features_share_is_written_once(items):
    events = items.events["item_ctr"]
    shared = replace(items, events={"item_ctr": events, "again": events})
    arrays, about = shared.arrays()
    assert [name for name in arrays if name.startswith("log/")] == [
        "log/again/offsets",
        "log/again/time",
    ]
    back = EncodedEntities.of_arrays(arrays, about)
    assert back.events["item_ctr"].log is back.events["again"].log
    assert back.events["again"].hits_before is not None


def test_keys_of_another_type_are_left_to_the_request(log):
    rows = log.store.items.rows
    text = rows.set_column(0, "item", rows.column("item").cast(pa.string()))
    table = type(log.store.items).build(text, "item")
    encoded = encode_entities(log.featurizer, table, "item", ["item", "brand"])
    assert not encoded.keyed
    place = encoded.id_columns.index("item")
    assert (encoded.ids_EF[:, place] == 0).all()


def test_without_a_table_only_the_unknown_have_a_row(log):
    encoded = encode_entities(log.featurizer, None, "item", OF_ITEMS)
    assert encoded.ids_EF.shape == (1, len(encoded.id_columns))
    assert encoded.events == {}


def test_missing_arrays_are_named(items):
    arrays, about = items.arrays()
    del arrays["dense"]
    with pytest.raises(ArtifactError, match="dense"):
        EncodedEntities.of_arrays(arrays, about)


@pytest.mark.parametrize(
    "names", [["price"], ["clicks"], ["alike", "hour"], ["city_brand", "item_ctr"]]
)
def test_a_featurizer_of_some_features_encodes_them_alike(log, names):
    part: Featurizer = log.featurizer.only(names)
    whole = log.featurizer.encode(log.joined, log.histories)
    assert part.encode(log.joined, log.histories).equals(
        whole.select(part.schema.columns)
    )
    assert {c.split(".")[0] for c in part.schema.columns} == set(names)


def test_a_contract_of_some_features_asks_for_no_more(log):
    contract: RawContract = log.contract.only(["price", "clicks"])
    scored = {c.name for c in contract.signature if not c.history_only}
    of_events = {c for c in scored if c.startswith("clicks.")}
    assert scored - of_events == {"user", "item", "at", "price"}
    assert contract.type_of("brand") == log.contract.type_of("brand")
