"""Other models for a running server: tried first, then answering at once."""

import asyncio
import os
import shutil
import threading
import time
from pathlib import Path

import httpx
import pyarrow as pa
import pytest

from recsys_mtl.errors import ArtifactError, ConfigError
from recsys_mtl.export.bundle import load_bundle
from recsys_mtl.rank.fusion import LARGEST
from recsys_mtl.rank.ranker import Ranker
from recsys_mtl.rank.request import RankRequest, RankTable, ScoreRequest, UserInput
from serving.app import create_app
from serving.model_set import load_models
from serving.settings import ServedModels, ServingSettings
from serving.swap import RecentRequests, Swap

BODY = {"user": {"id": "u3"}, "item_ids": [101, 105, 117], "context": {"ts": 1}}
WATCH = {"weights": {"watch": 1.0}}
POWER = {"kind": "product"}


def served(*models):
    return ServedModels.model_validate({"models": list(models)})


def one(tiny, **rest):
    return served({"bundle": tiny.bundle, "name": "a", **rest})


@pytest.fixture
def swap(tiny):
    wanted = one(tiny)
    return Swap(load_models(wanted.models), wanted, RecentRequests())


def ask(app, method, path, body=None):
    async def call():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as c:
            return await c.request(method, path, json=body, timeout=60)

    return asyncio.run(call())


def test_a_bundle_that_stays_is_not_loaded_again(tiny, swap):
    before = swap.switch(one(tiny)).named("a")
    wanted = served(
        {"bundle": tiny.bundle, "name": "a", "traffic": 0.5},
        {"bundle": tiny.bundle, "name": "b", "traffic": 0.5, "score": WATCH},
    )
    asyncio.run(swap.prepare(wanted))
    after = swap.switch(wanted)
    assert after.named("a").ranker is before.ranker
    assert after.named("b").ranker.bundle is before.ranker.bundle
    assert after.named("b").card.scoring.weights == {"watch": 1.0}


def test_the_way_back_needs_no_loading(tiny, swap):
    first = swap.switch(one(tiny)).named("a")
    wanted = one(tiny, score=WATCH)
    asyncio.run(swap.prepare(wanted))
    assert swap.switch(wanted).named("a").ranker is not first.ranker
    asyncio.run(swap.prepare(one(tiny)))
    assert swap.switch(one(tiny)).named("a").ranker is first.ranker


def test_it_is_under_way_from_the_first_byte_until_all_has_settled(
    tiny, tmp_path, monkeypatch
):
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr("serving.swap._SETTLE_S", 0.3)
    turn, first, wanted = tmp_path / "turn", one(tiny), one(tiny, score=WATCH)
    swap = Swap(load_models(first.models), first, RecentRequests(), turn=turn)

    async def main():
        assert not swap.under_way
        with turn.open("w") as other:  # another replica of the machine loads
            fcntl.flock(other, fcntl.LOCK_EX)
            preparing = asyncio.create_task(swap.prepare(wanted))
            await asyncio.sleep(0.4)
            assert swap.under_way
            assert not swap.has(wanted)
        await preparing
        assert swap.under_way
        await asyncio.sleep(0.35)
        assert not swap.under_way
        swap.switch(wanted)
        assert swap.under_way
        await asyncio.sleep(0.35)
        assert not swap.under_way

    asyncio.run(main())


def test_a_model_that_refuses_what_is_answered_now_is_refused(tiny):
    recent = RecentRequests()
    unknown = RankRequest(
        user=UserInput(id="u3", features={"nobody_has_this": 1}), item_ids=[101]
    )
    recent.offer("u3", unknown, rows=1)
    swap = Swap(load_models(one(tiny).models), one(tiny), recent)
    wanted = one(tiny, score=WATCH)
    with pytest.raises(ConfigError, match=r"refuses 1 of 1 recent requests.*nobody"):
        asyncio.run(swap.prepare(wanted))
    assert not swap.has(wanted)


@pytest.mark.parametrize("kind", ["json", "arrow", "rows"])
def test_a_score_that_overflows_in_recent_requests_alone_is_refused(tiny, kind):
    odd = {"age": -1_000_000}  # predicts seconds beyond all measure; examples do not
    user, item = UserInput(id="u3", features=odd), pa.table({"item_id": [101]})
    requests = {
        "json": RankRequest(user=user, item_ids=[101]),
        "arrow": RankTable(user=user, table=item, as_table=True),
        "rows": ScoreRequest(rows=[{"user_id": "u3", "item_id": 101, **odd}]),
    }
    recent = RecentRequests()
    swap = Swap(load_models(one(tiny).models), one(tiny), recent)
    wanted = one(tiny, score=POWER | {"weights": {"watch": 20.0}})
    asyncio.run(swap.prepare(wanted))
    assert swap.has(wanted)
    recent.offer("u3", requests[kind], rows=1)
    swap = Swap(load_models(one(tiny).models), one(tiny), recent)
    with pytest.raises(
        ConfigError, match=r"'a' gives a recent request a score .*watch"
    ):
        asyncio.run(swap.prepare(wanted))


def test_a_score_that_overflows_is_answered_as_the_largest_number(tiny):
    power = one(tiny, score=POWER | {"weights": {"watch": 20.0}})
    app = create_app(
        load_models(power.models), ServingSettings.model_validate(power.model_dump())
    )
    user = {"id": "u3", "features": {"age": -1_000_000}}
    answer = ask(app, "POST", "/v1/rank", BODY | {"user": user})
    assert answer.status_code == 200
    assert {item["score"] for item in answer.json()["items"]} == {LARGEST}


def test_recent_requests_are_few_apart_in_time_and_small(monkeypatch):
    now = 0.0
    monkeypatch.setattr("serving.swap.time.monotonic", lambda: now)
    recent = RecentRequests(size=2, every_s=1.0, max_rows=10)
    for n in range(8):
        now = n * 0.5
        recent.offer(str(n), RankRequest(user=UserInput(), item_ids=[1]), rows=1)
    now = 9.0
    recent.offer("large", RankRequest(user=UserInput(), item_ids=[1]), rows=11)
    assert [unit for unit, _ in recent] == ["4", "6"]


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"bundle": "relative"}, "models[0].bundle", "absolute"),
        ({"name": "no spaces"}, "models[0].name", "letters"),
        ({"traffic": 0.5}, "models", "add up to 1"),
        ({"traffic": 7}, "models[0].traffic", "at most 1"),
        ({"score": {"weights": {}}}, "models[0].score.weights", "1 or more"),
        ({"other": 1}, "models[0]", "unknown field"),
        ({"score": {"weights": {"no_task": 1.0}}}, "models", "no_task"),
        ({"score": {"weights": {"click": 1.7e308}}}, ".click", "at most 1e+06"),
        ({"score": {"weights": {"watch": -1.1e6}}}, ".watch", "at least -1e+06"),
        ({"score": POWER | {"weights": {"click": 2e6}}}, ".click", "at most 1e+06"),
        ({"score": POWER | {"weights": {"click": -1e5}}}, "models", "no finite number"),
        ({"bundle": "/nowhere"}, "models", "cannot be read"),
        ({"bundle": "/tmp/\0x"}, "models[0].bundle", "NUL"),
        ({"bundle": "/" + "a" * 5_000}, "models", "cannot be read"),
        ({"bundle": "/\N{SNOWMAN}"}, "models", "cannot be read"),
    ],
)
def test_what_cannot_be_served_changes_nothing(tiny, change, field, says):
    app = create_app(
        load_models(one(tiny).models),
        ServingSettings.model_validate(one(tiny).model_dump()),
    )
    before = ask(app, "GET", "/v1/models").json()
    model = {"bundle": str(tiny.bundle), "name": "a", **change}
    answer = ask(app, "PUT", "/v1/models", {"models": [model]})
    assert answer.status_code == 422, answer.text
    error = answer.json()["error"]
    assert field in error["field"], error
    assert says in error["message"], error
    assert ask(app, "GET", "/v1/models").json() == before


def test_a_link_that_leads_to_itself_is_refused(tiny, tmp_path):
    settings = ServingSettings.model_validate(one(tiny).model_dump())
    app = create_app(load_models(settings.models), settings)
    link = tmp_path / "link"
    link.symlink_to(link)
    told = ask(app, "PUT", "/v1/models", {"models": [{"bundle": str(link)}]})
    assert told.status_code == 422, told.text
    assert "cannot be read" in told.json()["error"]["message"]


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "truncated": lambda folder: os.truncate(folder / "network.safetensors", 100),
    "missing": lambda folder: (folder / "items.arrow").unlink(),
    "extra": lambda folder: (folder / "more.txt").write_text("?"),
    "altered": lambda folder: flip(folder / "network.safetensors"),
}


@pytest.fixture
def copied(tiny, tmp_path):
    """The served bundle once more, in files of its own."""
    return Path(shutil.copytree(tiny.bundle, tmp_path / "copy"))


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_copy_of_what_is_served_is_refused(tiny, copied, damage):
    damage(copied)
    settings = ServingSettings.model_validate(one(tiny).model_dump())
    app = create_app(load_models(settings.models), settings)
    before = ask(app, "GET", "/v1/models").json()
    told = ask(app, "PUT", "/v1/models", {"models": [{"bundle": str(copied)}]})
    assert told.status_code == 422, told.text
    assert str(copied) in told.json()["error"]["message"]
    assert ask(app, "GET", "/v1/models").json() == before


def test_an_intact_copy_is_not_loaded_again(tiny, copied, swap):
    before = swap.switch(one(tiny)).named("a").ranker
    wanted = served({"bundle": copied, "name": "b"})
    asyncio.run(swap.prepare(wanted))
    assert swap.switch(wanted).named("b").ranker is before


@pytest.mark.parametrize("damage", ["truncated", "missing", "extra"])
def test_a_bundle_that_is_damaged_while_it_is_served_is_refused(copied, damage):
    wanted = served({"bundle": copied, "name": "a"})
    swap = Swap(load_models(wanted.models), wanted, RecentRequests())
    # What is mapped keeps its pages: files are replaced, as copying tools do it.
    for path in [p for p in copied.rglob("*") if p.is_file()]:
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    DAMAGES[damage](copied)
    again = served({"bundle": copied, "name": "a", "score": WATCH})
    with pytest.raises(ArtifactError, match=str(copied)):
        asyncio.run(swap.prepare(again))


def test_answers_documents_and_counts_follow(tiny):
    settings = ServingSettings.model_validate(one(tiny).model_dump())
    app = create_app(load_models(settings.models), settings)
    plain = Ranker(load_bundle(tiny.bundle))
    first = ask(app, "POST", "/v1/rank", BODY).json()
    assert first["scoring"]["version"] == plain.card.scoring.version
    models = [{"bundle": str(tiny.bundle), "name": "b", "score": WATCH}]
    told = ask(app, "PUT", "/v1/models", {"models": models})
    assert told.status_code == 200, told.text
    second = ask(app, "POST", "/v1/rank", BODY).json()
    assert second["model"] == "b"
    assert second["scoring"]["weights"] == WATCH["weights"]
    assert second["scoring"]["version"] != first["scoring"]["version"]
    scores = [item["predictions"]["watch"] for item in second["items"]]
    assert [item["score"] for item in second["items"]] == pytest.approx(scores)
    assert ask(app, "POST", "/v1/rank", BODY | {"model": "a"}).status_code == 404
    assert '"b"' in ask(app, "GET", "/openapi.json").text
    metrics = ask(app, "GET", "/metrics").text
    assert 'recsys_swaps_total{outcome="switched"} 1.0' in metrics


def test_requests_go_on_while_models_change(tiny, url, client):
    """Every answer is of one of the two, and says of which."""
    expected = {}
    for name, score in (("a", None), ("b", WATCH)):
        model = {"bundle": str(tiny.bundle), "name": name}
        body = {"models": [model if score is None else model | {"score": score}]}
        assert client.put("/v1/models", json=body).status_code == 200
        answer = client.post("/v1/rank", json=BODY).json()
        expected[name] = [item["score"] for item in answer["items"]]
        expected[f"{name} put"] = body
    stop, seen, wrong = threading.Event(), set(), []

    def load():
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as own:
            while not stop.is_set():
                answer = own.post("/v1/rank", json=BODY)
                told = answer.json()
                scores = [item["score"] for item in told.get("items", ())]
                if scores != pytest.approx(expected.get(told.get("model"))):
                    wrong.append(answer.text)
                seen.add(told.get("model"))

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for name in "abab":
            put = client.put("/v1/models", json=expected[f"{name} put"])
            assert put.status_code == 200, put.text
            seen.clear()
            deadline = time.monotonic() + 30
            while name not in seen:
                assert time.monotonic() < deadline, name
                time.sleep(0.01)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not wrong, wrong[:1]
    original = {"models": [{"bundle": str(tiny.bundle)}]}
    assert client.put("/v1/models", json=original).status_code == 200
