"""A store of users and items that is slow, lost or holds what does not fit."""

import asyncio
import threading
import time

import pytest
from entity_app import (
    SLOW,
    USER,
    app_with,
    outcomes_of,
    rank,
    scores,
    told,
)
from redis_server import running

from recsys_mtl.entities import AbstractEntityStore
from recsys_mtl.errors import ConfigError, EnvironmentFault
from recsys_mtl.rank.request import RankRequest, UserInput
from serving.entity_lookup import EntityLookup
from serving.entity_settings import LmdbSettings, RedisSettings
from serving.model_set import ModelSet
from serving.settings_file import load_settings


def test_rows_of_other_types_count_as_missing_and_refuse_nobody(ranker, tmp_path):
    with app_with(ranker, kind="lmdb", path=str(tmp_path / "e"), **SLOW) as (
        client,
        lookup,
    ):
        cells = {"age": "old", "gender": "f", "colour": 7, "clicks.item_id": [1]}
        lookup.store.put_many("users", [("nobody", cells)], now_us=0)
        answer = rank(client)
        plain = rank(client, {"id": "x", "features": {"gender": "f"}})
        assert scores(answer) == pytest.approx(scores(plain))
        assert told(client)["recsys_entity_faults_total", ("fault", "misfit")] == 2
        with lookup.store._env.begin(write=True) as writing:
            writing.put(b"users\0nobody", b"\xff")
        assert rank(client)["stored"]["users"] == 0
        assert told(client)["recsys_entity_faults_total", ("fault", "damaged")] == 1


def test_a_store_that_dies_and_comes_back(ranker, tmp_path):
    with running(tmp_path) as (url, process):
        options = {"kind": "redis", "url": url, "failures": 2, "pause_s": 2.0}
        with app_with(ranker, **options, timeout_s=1.0) as (client, _):
            client.put("/v1/entities/users/nobody", json=USER)
            good = rank(client)
            assert not good["degraded"]
            process.kill()
            process.wait()
            for _ in range(6):
                answer = rank(client)
                assert answer["degraded"] is True
                assert "stored" not in answer
            outcomes = outcomes_of(client)
            assert outcomes["failed"] >= 2
            assert outcomes["left_alone"] >= 2  # not all of them paid for the failure
            assert outcomes["failed"] + outcomes["left_alone"] == 6
            put = client.put("/v1/entities/users/nobody", json=USER)
            assert put.status_code == 503
            assert put.json()["error"]["code"] == "store_unavailable"
            assert client.get("/v1/entities/users/u3").status_code == 503
            assert any(key[0] == "recsys_degraded_total" for key in told(client))
            port = int(url.rsplit(":", 1)[1].split("/")[0])
            with running(tmp_path, port):
                time.sleep(2.1)
                again = rank(client)
                assert again["degraded"] is False
                assert again["stored"]["users"] == 0  # it had kept nothing


class Stuck(AbstractEntityStore):
    """A store whose disk does not answer until it is let go: what no real one does
    when asked to."""

    writable = True

    def __init__(self):
        self.free = threading.Event()

    def fetch(self, wanted, *, now_us):
        self.free.wait(20)
        raise EnvironmentFault("too late anyway")

    def put_many(self, kind, rows, *, now_us, checked=""):
        raise AssertionError

    delete_many = put_many

    def close(self):
        self.free.set()


def test_a_stuck_store_costs_no_more_than_its_time_and_then_nothing(ranker, tmp_path):
    options = {"kind": "lmdb", "path": str(tmp_path / "e"), "failures": 3}
    with app_with(ranker, **options, timeout_s=0.1, pause_s=60) as (client, lookup):
        lookup.store.close()
        lookup.store = stuck = Stuck()
        started = time.monotonic()
        assert all(rank(client)["degraded"] for _ in range(8))
        assert time.monotonic() - started < 5
        assert outcomes_of(client) == {"too_slow": 3, "left_alone": 5}
        waited = told(client)
        assert waited["recsys_entity_lookup_seconds_count",] == 3
        assert 0.3 <= waited["recsys_entity_lookup_seconds_sum",] < 3
        (degraded,) = [v for k, v in waited.items() if k[0] == "recsys_degraded_total"]
        assert degraded == 8
        stuck.free.set()


def test_no_more_than_half_of_a_request_s_time_is_spent(ranker):
    redis = {"kind": "redis", "url": "redis://127.0.0.1:1/0", "timeout_s": 30.0}
    lookup = EntityLookup(RedisSettings.model_validate(redis))
    lookup.store.close()
    lookup.store = stuck = Stuck()
    (model,) = ModelSet.of({"tiny": ranker}).models
    request = RankRequest(user=UserInput(id="u"), item_ids=[101])
    started = time.monotonic()

    async def ask():
        return await lookup.fill(request, model, time_s=0.4)

    try:
        asked, use, degraded = asyncio.run(asyncio.wait_for(ask(), 10))
    finally:
        stuck.free.set()
    assert asked is request
    assert use is None
    assert degraded
    assert 0.15 < time.monotonic() - started < 3


def test_an_answer_in_time_counts_though_the_loop_was_busy(ranker, tmp_path):
    lmdb = {"kind": "lmdb", "path": tmp_path / "e", "timeout_s": 0.2}
    lookup = EntityLookup(LmdbSettings.model_validate(lmdb))
    lookup.store.put_many("users", [("u", USER["features"])], now_us=0)
    (model,) = ModelSet.of({"tiny": ranker}).models
    request = RankRequest(user=UserInput(id="u"), item_ids=[101])

    async def ask():
        asking = asyncio.ensure_future(lookup.fill(request, model, time_s=5))
        await asyncio.sleep(0)
        time.sleep(0.5)  # the loop has other work
        return await asking

    try:
        _, use, degraded = asyncio.run(ask())
    finally:
        lookup.close()
    assert not degraded
    assert use.users == 1


def test_settings_are_read_from_a_file(tmp_path):
    (tmp_path / "secret").write_text("word\n")
    path = tmp_path / "serving.yaml"
    path.write_text(
        "models: [{bundle: b}]\n"
        "entities: {kind: redis, url: 'redis://h:1/0', password_file: secret}\n"
    )
    entities = load_settings(path).entities
    assert entities.password_file == tmp_path / "secret"
    path.write_text("models: [{bundle: b}]\nentities: {kind: lmdb, path: e}\n")
    assert load_settings(path).entities.path == tmp_path / "e"
    path.write_text("models: [{bundle: b}]\nentities: {kind: lmdb, pth: e}\n")
    with pytest.raises(ConfigError, match="pth"):
        load_settings(path)
    gone = RedisSettings(kind="redis", url="redis://h:1/0", password_file="/no/where")
    with pytest.raises(ConfigError, match="password_file"):
        EntityLookup(gone)
