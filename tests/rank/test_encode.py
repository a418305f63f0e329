"""Requests encoded the fast way against the plain path over raw rows."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_mtl.data.batch import to_batch
from recsys_mtl.errors import ArtifactError
from recsys_mtl.export.bundle import load_bundle
from recsys_mtl.export.encoded import EncodedStore, encode_store
from recsys_mtl.rank.encode import RequestEncoder
from recsys_mtl.rank.ranker import Ranker
from recsys_mtl.rank.raw import RequestReader
from recsys_mtl.rank.request import ItemInput, RankRequest, UserInput

START_S = 1_700_000_000
NOW_US = (START_S + 30) * 1_000_000
MANY = settings(max_examples=100)


class Both:
    """One bundle, and a request's rows made in both ways."""

    def __init__(self, made, store: EncodedStore | None = None) -> None:
        self.bundle = load_bundle(made.bundle)
        bundle, data = self.bundle, made.recipe.data
        card = Ranker(bundle).card
        self.reader = RequestReader(card.signature, data.keys, data.timestamp)
        assert bundle.encoded is not None
        encoded = bundle.encoded if store is None else store
        self.encoder = RequestEncoder(bundle.featurizer, bundle.store, encoded)

    def check(self, requests, now_us=NOW_US) -> None:
        bundle = self.bundle
        parts = [self.reader.ranking(request, now_us) for request in requests]
        assert all(self.encoder.splits(part) for part in parts)
        found = self.encoder.together([self.encoder.encode(part) for part in parts])
        assembled = [bundle.store.assemble(part.table) for part in parts]
        plain = [bundle.featurizer.encode(a.raw, a.histories) for a in assembled]
        wanted = to_batch(pa.concat_tables(plain), bundle.schema)
        got = found.batch.joined()
        for name in ("pooled", "sequence"):
            mine, theirs = getattr(got, name), getattr(wanted, name)
            keys = theirs.keys()
            assert mine.keys() == keys
            for key in keys:
                rows = (mine[key].lengths(), theirs[key].lengths())
                assert rows[0].tolist() == rows[1].tolist(), key
                assert mine[key].values().tolist() == theirs[key].values().tolist(), key
        dense = np.concatenate([got.dense_BM, wanted.dense_BM], 1)
        assert got.dense_BM.equal(wanted.dense_BM), dense
        known_user_N = found.known_user_R[found.batch.request_N]
        for known_N, name in (
            (known_user_N, "known_user_B"),
            (found.known_item_N, "known_item_B"),
        ):
            if name == "known_user_B" or bundle.store.items is not None:
                stored = np.concatenate([getattr(a, name) for a in assembled])
                assert known_N.tolist() == stored.tolist()


@pytest.fixture(scope="module")
def rich_pair(rich):
    return Both(rich)


@pytest.fixture(scope="module")
def alike_pair(alike):
    return Both(alike)


@pytest.fixture(scope="module")
def lean_pair(lean):
    return Both(lean)


maybe = st.none
seconds = st.integers(START_S - 5, START_S + 60)
users = st.sampled_from([*(f"u{n}" for n in range(12)), "u99", "", None, 3])
items = st.one_of(st.integers(98, 116), maybe())
user_cells = {
    "city": st.sampled_from(["rome", "bern", "", None]),
    "age": st.one_of(maybe(), st.integers(0, 12), st.floats(-5, 20)),
    "interests": st.one_of(
        maybe(), st.lists(st.sampled_from(["a", "d", "?", None, ""]), max_size=4)
    ),
    "user_ctr.rows": st.one_of(maybe(), st.floats(0, 9)),
    "user_ctr.hits": st.one_of(maybe(), st.floats(0, 9)),
}
context_cells = {
    "position": st.one_of(maybe(), st.integers(-1, 5)),
    "at": st.one_of(maybe(), seconds),
}
item_cells = {
    "brand": st.sampled_from(["x", "?", "", None]),
    "price": st.one_of(maybe(), st.floats(0, 9)),
    "tags": st.sampled_from(["a|b|c", "", "?|a", None]),
    "item_ctr.rows": st.one_of(maybe(), st.floats(0, 9)),
    "item_recent.hits": st.one_of(maybe(), st.floats(0, 9)),
}


def some_of(cells):
    return st.fixed_dictionaries({}, optional=cells)


@st.composite
def histories(draw, fields):
    size = draw(st.integers(0, 5))
    lists = {"time": st.lists(seconds, min_size=size, max_size=size)}
    for name, cells in fields.items():
        lists[name] = st.lists(cells, min_size=size, max_size=size)
    time = lists.pop("time")
    return {"time": draw(time)} | draw(st.fixed_dictionaries({}, optional=lists))


clicks = histories({"item_id": items, "brand": item_cells["brand"]})
clicked = st.sampled_from([0, 1, None])
seen = histories({"item_id": items, "click": clicked})
seen_alike = histories({"brand": item_cells["brand"], "click": clicked})


of_rich = some_of({"clicks": clicks, "seen": seen})
here = histories({"position": context_cells["position"], "click": clicked})
of_alike = some_of({"seen": seen_alike, "here": here})


@st.composite
def rich_requests(draw, given_histories=of_rich):
    user = UserInput(
        id=draw(users),
        features=draw(some_of(user_cells)),
        histories=draw(given_histories),
    )
    context = draw(some_of(context_cells | {"price": item_cells["price"]}))
    ids = draw(st.lists(items, max_size=12))
    if draw(st.booleans()):
        return RankRequest(user=user, context=context, item_ids=ids)
    candidates = [ItemInput(id=i, features=draw(some_of(item_cells))) for i in ids]
    return RankRequest(user=user, context=context, items=candidates)


@st.composite
def lean_requests(draw):
    ids = st.sampled_from(["3", 3, "03", " 3", "11", "12", "x", "", None])
    user = UserInput(
        id=draw(ids),
        features=draw(some_of(user_cells)),
        histories=draw(some_of({"seen": seen})),
    )
    context = draw(some_of(context_cells))
    return RankRequest(
        user=user, context=context, item_ids=draw(st.lists(items, max_size=70))
    )


@MANY
@given(request=rich_requests())
def test_a_request_is_encoded_as_its_raw_rows_are(rich_pair, request):
    rich_pair.check([request])


@MANY
@given(request=rich_requests(of_alike))
def test_so_is_one_with_histories_like_the_candidate(alike_pair, request):
    alike_pair.check([request])


@MANY
@given(request=lean_requests())
def test_so_is_one_whose_keys_are_written_in_several_ways(lean_pair, request):
    lean_pair.check([request])


@settings(max_examples=40)
@given(requests=st.lists(rich_requests(), min_size=2, max_size=5))
def test_requests_that_are_encoded_together_do_not_mix(rich_pair, requests):
    rich_pair.check(requests)


@settings(max_examples=30)
@given(requests=st.lists(rich_requests(of_alike), min_size=2, max_size=5))
def test_nor_do_those_with_histories_like_the_candidate(alike_pair, requests):
    alike_pair.check(requests)


@settings(max_examples=30)
@given(requests=st.lists(lean_requests(), min_size=2, max_size=5))
def test_nor_do_those_without_a_table_of_items(lean_pair, requests):
    lean_pair.check(requests)


def test_a_bundle_without_features_of_rows_is_encoded_too(bare):
    both = Both(bare)
    asks = [
        RankRequest(user=UserInput(id=user), item_ids=[101, 999, None])
        for user in ("u1", "nobody")
    ]
    both.check(asks)


def test_histories_like_the_candidate_score_as_their_rows_do(alike_pair):
    split = alike_pair.bundle.split
    assert {"seen.brand", "seen.clicked"} <= {*split.own}
    assert {"here.position", "here.clicked"} <= {*split.shared}
    ranker, ids = Ranker(alike_pair.bundle), [*range(98, 117)]
    for user in ("u1", "u2", "nobody"):
        request = RankRequest(user=UserInput(id=user), item_ids=ids)
        response = ranker.rank(request, now_us=NOW_US)
        at = [NOW_US // 10**6] * len(ids)
        raw = pa.table({"user_id": [user] * len(ids), "item_id": ids, "at": at})
        expected = ranker.score(raw).score_B
        scores = {item.id: item.score for item in response.items}
        np.testing.assert_allclose([scores[i] for i in ids], expected, atol=1e-5)


@pytest.mark.parametrize("second", [0, 1, 25, 26, 49, 50, 60])
def test_ids_alone_see_what_was_earlier_than_their_time(rich_pair, second):
    at = (START_S + second) * 1_000_000
    ids = list(range(98, 117)) * 4
    for user in range(12):
        request = RankRequest(user=UserInput(id=f"u{user}"), item_ids=ids)
        rich_pair.check([request], at)


def test_encoding_at_loading_is_encoding_at_writing(rich):
    both = Both(rich)
    again = encode_store(both.bundle.featurizer, both.bundle.store)
    for mine, theirs in (
        (again.users, both.bundle.encoded.users),
        (again.items, both.bundle.encoded.items),
    ):
        (arrays, about), (expected, said) = mine.arrays(), theirs.arrays()
        assert about == said
        assert arrays.keys() == expected.keys()
        for name, array in arrays.items():
            assert array.dtype == expected[name].dtype
            np.testing.assert_array_equal(array, expected[name])


def test_stored_events_that_no_request_could_share_are_refused(rich_pair, tmp_path):
    store = rich_pair.bundle.encoded
    events = store.items.events | {"seen": store.users.events["seen"]}
    items = dataclasses.replace(store.items, events=events)
    dataclasses.replace(store, items=items).save(tmp_path)
    with pytest.raises(ArtifactError, match=r"belong elsewhere \(seen\)"):
        EncodedStore.load(tmp_path, store.split)


def test_a_column_that_differs_from_item_to_item_is_for_the_plain_path(rich_pair):
    def splits(**features):
        items = [ItemInput(id=101, features=features), ItemInput(id=102)]
        request = RankRequest(user=UserInput(id="u1"), items=items)
        return rich_pair.encoder.splits(rich_pair.reader.ranking(request, NOW_US))

    assert splits(price=3.0, brand="x")
    assert not splits(position=1)


def test_so_is_one_that_tells_which_events_are_alike(alike_pair):
    items = [ItemInput(id=101, features={"position": 1}), ItemInput(id=102)]
    request = RankRequest(user=UserInput(id="u1"), items=items)
    parts = alike_pair.reader.ranking(request, NOW_US)
    assert not alike_pair.encoder.splits(parts)


def test_what_is_mapped_is_never_written(rich_pair):
    lists = rich_pair.encoder._encoded.items.lists["tags"]
    before = lists.values.copy(), lists.offsets.copy()
    given = ItemInput(id=101, features={"tags": "c|a", "price": 2.0})
    rich_pair.check([RankRequest(items=[given, ItemInput(id=102), given])])
    assert (lists.values == before[0]).all()
    assert (lists.offsets == before[1]).all()
