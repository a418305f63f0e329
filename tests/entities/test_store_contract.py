"""What every store of entities must do, with real files and a real server."""

import tracemalloc
import uuid

import msgspec
import numpy as np
import pytest
import redis
from redis_server import running

from recsys_mtl.entities import EntitySchema
from recsys_mtl.entities.lmdb_store import LmdbStore
from recsys_mtl.entities.redis_store import RedisStore
from recsys_mtl.entities.snapshot import SnapshotStore
from recsys_mtl.entities.store import MOST_FOUND_BYTES
from recsys_mtl.errors import ConfigError, EnvironmentFault, RequestError
from recsys_mtl.export.bundle import load_bundle
from recsys_mtl.rank.ranker import Ranker
from recsys_mtl.rank.request import RankRequest, UserInput

SECOND = 1_000_000
WRITTEN = 4_000_000_000 * SECOND  # after any bundle
NOW = WRITTEN + 90 * SECOND


@pytest.fixture(scope="module")
def bundle(tiny):
    return load_bundle(tiny.bundle)


@pytest.fixture(scope="module")
def schema(bundle):
    return EntitySchema.of(Ranker(bundle).card, bundle.recipe.features)


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory):
    with running(tmp_path_factory.mktemp("redis")) as (url, _):
        yield url


@pytest.fixture(params=["snapshot", "lmdb", "redis"])
def store(request, bundle, tiny, tmp_path):
    """A store of the same users and items, whatever its kind."""
    if request.param == "snapshot":
        made = SnapshotStore(bundle)
    else:
        if request.param == "lmdb":
            made = LmdbStore(tmp_path / "entities")
        else:
            url = request.getfixturevalue("redis_url")
            made = RedisStore(url, prefix=uuid.uuid4().hex, timeout_s=5.0)
        fill(made, bundle)
    yield made
    made.close()


@pytest.fixture(params=["lmdb", "redis"])
def make(request, tmp_path):
    """Make stores that can be written, all upon the same rows."""
    made = []

    def one(**options):
        if request.param == "lmdb":
            made.append(LmdbStore(tmp_path / "entities", **options))
        else:
            url = request.getfixturevalue("redis_url")
            made.append(RedisStore(url, prefix=str(tmp_path), timeout_s=5.0, **options))
        return made[-1]

    yield one
    for store in made:
        store.close()


def fill(store, bundle):
    snapshot = SnapshotStore(bundle)
    for kind, column in (
        ("users", bundle.store.users.rows.column("user_id")),
        ("items", bundle.store.items.rows.column("item_id")),
    ):
        keys = [str(key) for key in column.to_pylist()]
        found = snapshot.get_many(kind, keys, now_us=NOW)
        rows = [(key, row.cells) for key, row in zip(keys, found.rows, strict=True)]
        store.put_many(kind, rows, now_us=WRITTEN)


def test_keys_come_back_in_order_with_what_is_present(store):
    found = store.get_many("users", ["u3", "nobody", "u1", "u3"], now_us=NOW)
    assert found.present_B.tolist() == [True, False, True, True]
    assert found.rows[0] == found.rows[3] != found.rows[2]
    assert found.rows[1] is None
    assert found.damaged == 0


def test_cells_are_the_raw_ones(store, tiny):
    found = store.get_many("users", ["u3"], now_us=NOW)
    cells = dict(found.rows[0].cells)
    told = {k: v for k, v in tiny.user_features("u3").items() if v is not None}
    assert {name: cells[name] for name in told} == told
    for history, lists in tiny.user_histories("u3").items():
        for name, events in lists.items():
            mine = cells[f"{history}.{name}"]
            assert mine == events[-len(mine) :]
    found = store.get_many("items", ["105"], now_us=NOW)
    told = tiny.item_features(105)
    assert dict(found.rows[0].cells) == pytest.approx(told)


def test_ages_are_in_seconds_and_nan_where_there_is_nothing(store, bundle):
    age_s = store.get_many("users", ["u3", "nobody"], now_us=NOW).age_s
    assert age_s[0] >= 90
    if store.writable:
        assert age_s[0] == pytest.approx(90)
    assert np.isnan(age_s[1])
    early = store.get_many("users", ["u3"], now_us=0).age_s
    assert early[0] == 0  # clocks of two machines differ; no age is negative


def test_kinds_are_kept_apart_and_asked_for_together(store):
    found = store.fetch({"users": ["u3", "105"], "items": ["105", "u3"]}, now_us=NOW)
    assert found["users"].present_B.tolist() == [True, False]
    assert found["items"].present_B.tolist() == [True, False]


def test_no_keys_have_no_rows(store):
    assert store.fetch({}, now_us=NOW) == {}
    found = store.get_many("users", [], now_us=NOW)
    assert found.rows == ()
    assert found.age_s.shape == (0,)


def test_the_table_has_the_signature_s_types_and_nulls_where_nothing_is(store, schema):
    table = schema.table("users", store.get_many("users", ["nobody", "u3"], now_us=NOW))
    assert set(table.column_names) == set(schema.columns["users"])
    assert str(table.schema.field("clicks.item_id").type) == "list<item: int64>"
    assert str(table.schema.field("age").type) == "double"
    assert all(value is None for value in table.slice(0, 1).to_pylist()[0].values())
    assert table.slice(1).to_pylist()[0]["clicks.time"]


@pytest.mark.parametrize("user", ["u3", "u7"])
def test_stored_cells_given_in_a_request_rank_like_the_bundle_s_own(
    store, tiny, bundle, user
):
    cells = store.get_many("users", [user], now_us=NOW).rows[0].cells
    histories = {}
    for name in [name for name in cells if "." in name]:
        history, _, column = name.partition(".")
        histories.setdefault(history, {})[column] = cells[name]
    features = {name: cell for name, cell in cells.items() if "." not in name}
    ranker = Ranker(bundle)
    at = {"ts": 1_700_000_490_000}
    looked_up, given = (
        ranker.rank(
            RankRequest(user=who, item_ids=[101, 105, 110], context=at), now_us=0
        )
        for who in (
            UserInput(id=user),
            UserInput(id=user, features=features, histories=histories),
        )
    )
    for one, other in zip(looked_up.items, given.items, strict=True):
        assert one.id == other.id
        assert one.score == pytest.approx(other.score, rel=1e-5)


KEYS = ["", "u 1", "ü" * 300, "x" * 5_000, "x" * 5_001, "a:b\0c", "\udc80", "-7"]


def test_any_text_is_a_key(make):
    store = make()
    store.put_many("users", [(key, {"n": n}) for n, key in enumerate(KEYS)], now_us=0)
    found = store.get_many("users", KEYS, now_us=NOW)
    assert [row.cells["n"] for row in found.rows] == list(range(len(KEYS)))


def test_rows_take_each_other_s_place_and_the_last_wins(make):
    store = make()
    store.put_many("users", [("u", {"a": 1, "b": 2}), ("u", {"a": 3})], now_us=0)
    assert store.get_many("users", ["u"], now_us=0).rows[0].cells == {"a": 3}
    store.put_many("users", [("u", {"c": [1.5, None]})], now_us=SECOND)
    row = store.get_many("users", ["u"], now_us=2 * SECOND)
    assert row.rows[0].cells == {"c": [1.5, None]}
    assert row.age_s.tolist() == [1.0]


def test_deleted_rows_are_gone_and_counted(make):
    store = make()
    store.put_many("users", [("a", {}), ("b", {})], now_us=0)
    assert store.delete_many("users", ["a", "nobody"]) == 1
    assert store.get_many("users", ["a", "b"], now_us=0).present_B.tolist() == [
        False,
        True,
    ]
    assert store.delete_many("users", []) == 0


def test_rows_outlive_the_store_that_wrote_them(make):
    first = make()
    first.put_many("items", [("i", {"price": 2.5})], now_us=7, checked="v")
    first.close()
    row = make().get_many("items", ["i"], now_us=8).rows[0]
    assert (row.cells, row.written_us, row.checked) == ({"price": 2.5}, 7, "v")


def test_old_rows_count_as_absent(make):
    store = make(ttl_s=60.0)
    store.put_many("users", [("u", {})], now_us=WRITTEN)
    for age_s, present in ((59, True), (61, False)):
        found = store.get_many("users", ["u"], now_us=WRITTEN + age_s * SECOND)
        assert found.present_B.tolist() == [present]


def test_what_cannot_be_stored_as_a_whole_is_not_stored_at_all(make):
    store = make()
    with pytest.raises((TypeError, OverflowError)):
        store.put_many("users", [("a", {"n": 1}), ("b", {"n": object()})], now_us=0)
    assert not store.get_many("users", ["a", "b"], now_us=0).present_B.any()


def test_a_snapshot_says_how_rows_could_be_stored(bundle):
    store = SnapshotStore(bundle)
    for write in (
        lambda: store.put_many("users", [("u", {})], now_us=0),
        lambda: store.delete_many("users", ["u"]),
    ):
        with pytest.raises(EnvironmentFault, match="kind: lmdb"):
            write()
    assert not store.writable


@pytest.mark.parametrize("content", [b"", b"\xc1", b"\x00" * 9, "other format"])
def test_damaged_rows_are_absent_and_counted(tmp_path, redis_url, content):
    if content == "other format":
        content = msgspec.msgpack.encode([2, 0, "", {}])
    lmdb_store = LmdbStore(tmp_path / "entities")
    with lmdb_store._env.begin(write=True) as writing:
        writing.put(b"users\0u", content)
    redis_store = RedisStore(redis_url, prefix=str(tmp_path), timeout_s=5.0)
    with redis.Redis.from_url(redis_url) as client:
        client.set(f"{tmp_path}:users:u", content)
    for store in (lmdb_store, redis_store):
        found = store.get_many("users", ["u"], now_us=0)
        assert found.rows == (None,)
        assert found.damaged == 1
        store.close()


def test_a_full_file_is_refused_and_old_rows_make_room(tmp_path):
    store = LmdbStore(tmp_path / "entities", max_bytes=256 * 1024, ttl_s=60.0)
    many = [(f"u{n}", {"text": "x" * 900}) for n in range(60)]
    store.put_many("users", many, now_us=0)
    more = [(f"v{n}", cells) for n, (_, cells) in enumerate(many * 3)]
    with pytest.raises(EnvironmentFault, match=r"MDB_MAP_FULL.*max_bytes"):
        store.put_many("users", more, now_us=SECOND)
    assert store.get_many("users", ["u0", "v0"], now_us=0).present_B.tolist() == [
        True,
        False,
    ]
    store.put_many("users", more[:100], now_us=100 * SECOND)
    found = store.get_many("users", ["u0", "v0"], now_us=100 * SECOND)
    assert found.present_B.tolist() == [False, True]
    store.close()


def test_two_kinds_are_one_round_trip(redis_url):
    store = RedisStore(redis_url, prefix="trips", timeout_s=5.0)
    store.get_many("users", ["warm"], now_us=0)
    sent = []
    connection = store._client.connection_pool.get_connection()
    pack = type(connection).send_packed_command

    def count(self, command, *rest, **options):
        sent.append(command)
        return pack(self, command, *rest, **options)

    store._client.connection_pool.release(connection)
    type(connection).send_packed_command, before = count, pack
    try:
        store.fetch({"users": ["a", "b"], "items": ["c"]}, now_us=0)
    finally:
        type(connection).send_packed_command = before
    assert len(sent) == 1
    store.close()


def test_a_server_that_dies_is_a_fault_and_no_hang(tmp_path):
    with running(tmp_path) as (url, process):
        store = RedisStore(url, timeout_s=0.2)
        store.put_many("users", [("u", {})], now_us=0)
        process.kill()
        process.wait()
        for ask in (
            lambda: store.get_many("users", ["u"], now_us=0),
            lambda: store.put_many("users", [("u", {})], now_us=0),
            lambda: store.delete_many("users", ["u"]),
        ):
            with pytest.raises(EnvironmentFault, match="Redis server does not answer"):
                ask()
        store.close()


def test_a_url_that_is_none_is_a_fault_of_the_settings():
    with pytest.raises(ConfigError, match=r"entities\.url must be a URL"):
        RedisStore("localhost:6379")


def test_rows_that_take_too_much_together_are_refused_before_they_are_read(make):
    store = make()
    share = MOST_FOUND_BYTES // 3
    rows = [(key, {"n": "x" * share}) for key in "abc"]
    for row in rows:
        store.put_many("users", [row], now_us=0)
    assert store.get_many("users", ["a", "b"], now_us=0).present_B.all()
    tracemalloc.start()
    try:
        for keys in ("abc", "abab"):
            with pytest.raises(RequestError, match="users: must be fewer"):
                store.fetch({"items": ["i"], "users": list(keys)}, now_us=0)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # No more than is allowed was read; but Redis had sent all of it already.
    if isinstance(store, LmdbStore):
        assert most < MOST_FOUND_BYTES
