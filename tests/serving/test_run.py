"""Servers as processes: they start, stop and leave nothing behind."""

import contextlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import msgspec
import psutil
import pytest

from recsys_mtl.errors import EnvironmentFault
from recsys_mtl.rank.ranker import Ranker
from recsys_mtl.rank.request import RankRequest
from serving.observability.ledger import Ledger
from serving.observability.node import NodeFolder
from serving.port import claim_port, free_ports
from serving.process import ServerProcess
from serving.run import serve
from serving.settings import ServingSettings
from serving.signals import stopped_by_signals

BODY = {"user": {"id": "u3"}, "item_ids": [101, 105, 117], "context": {"ts": 1}}


def settings_of(bundle, **server):
    return ServingSettings.of_bundle(bundle, server=server)


def family():
    return {p.pid for p in psutil.Process().children(recursive=True)}


@pytest.mark.parametrize("engine", ["uvicorn", "ray"])
def test_a_port_in_use_is_told_before_anything_is_loaded(engine, tmp_path):
    with contextlib.closing(claim_port("127.0.0.1", 0)) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(EnvironmentFault, match=f"port {port} .* in use"):
            serve(settings_of(tmp_path / "no bundle here", engine=engine, port=port))


def test_a_stopped_server_frees_its_port(tiny):
    (port,) = free_ports(1)
    stop = threading.Event()
    for _ in range(2):
        stop.clear()
        serve(
            settings_of(tiny.bundle, engine="uvicorn", port=port),
            on_ready=lambda url: stop.set(),
            stop=stop,
        )


def test_counting_that_has_begun_is_finished_before_a_server_ends(
    tiny, tmp_path, monkeypatch
):
    stop, begun, gaps = threading.Event(), threading.Event(), Ranker.gaps

    def slowly(self, request, *, now_us):
        begun.set()
        stop.wait(30)
        time.sleep(0.5)
        return gaps(self, request, now_us=now_us)

    monkeypatch.setattr(Ranker, "gaps", slowly)

    def ask(url):
        answer = httpx.post(f"{url}/v1/rank", json=BODY, timeout=60, trust_env=False)
        assert answer.status_code == 200
        begun.wait(30)
        stop.set()

    observability = {"node_folder": tmp_path, "feature_sample_interval_s": 1e-3}
    serve(
        ServingSettings.of_bundle(
            tiny.bundle,
            server={"engine": "uvicorn", "port": 0},
            overload={"max_wait_s": 60, "default_timeout_s": 60},
            observability=observability,
        ),
        on_ready=lambda url: threading.Thread(target=ask, args=(url,)).start(),
        stop=stop,
    )
    assert begun.is_set()
    with contextlib.closing(NodeFolder(tmp_path, Ledger())) as node:
        counts = {
            sample.labels["feature"]: sample.value
            for metric in node.collect()
            for sample in metric.samples
            if sample.name == "recsys_feature_cells_total"
        }
    assert counts["price"] == len(BODY["item_ids"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_and_the_second_insists(number):
    stop, before = threading.Event(), signal.getsignal(number)
    with stopped_by_signals(stop):
        signal.raise_signal(number)
        assert stop.is_set()
        usual = {signal.SIGTERM: signal.SIG_DFL}
        assert signal.getsignal(number) == usual.get(number, signal.default_int_handler)
    assert signal.getsignal(number) == before


def test_a_signal_ends_uvicorn_cleanly(tiny):
    script = (
        "import sys; from serving.run import serve\n"
        "from serving.settings import ServingSettings as S\n"
        "server = {'engine': 'uvicorn', 'port': 0}\n"
        "serve(S.of_bundle(sys.argv[1], server=server),"
        " on_ready=lambda url: print(url, flush=True))\n"
        "print('ended', flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tiny.bundle)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        url = process.stdout.readline().strip()
        assert (
            httpx.get(f"{url}/readyz", timeout=30, trust_env=False).status_code == 200
        )
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (0, "ended\n", "")


def test_a_server_that_cannot_start_says_why(tmp_path):
    before = family()
    with (
        pytest.raises(EnvironmentFault, match="ended with code"),
        ServerProcess(tmp_path / "no bundle", engine="uvicorn"),
    ):
        pass
    assert family() <= before


@pytest.fixture
def short_folder(monkeypatch):
    """A temporary folder of our own; sockets need short paths."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


@pytest.mark.slow
def test_ray_serve_scores_as_in_process_and_leaves_nothing_behind(
    tiny, ranker, short_folder
):
    before = family()
    request = msgspec.convert(BODY, RankRequest)
    expected = msgspec.to_builtins(ranker.rank(request, now_us=0))
    with ServerProcess(tiny.bundle, engine="ray") as server:
        during = [psutil.Process(pid) for pid in family() - before]
        assert any(process.name() == "haproxy" for process in during)
        assert list(short_folder.glob("recsys-mtl-*"))
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(EnvironmentFault, match="in use"):
            claim_port("127.0.0.1", port)
        answer = httpx.post(
            f"{server.url}/v1/rank", json=BODY, timeout=30, trust_env=False
        ).json()
        refused = httpx.post(
            f"{server.url}/v1/rank", content=b"{", timeout=30, trust_env=False
        )
    assert refused.status_code == 400
    assert [i["id"] for i in answer["items"]] == [i["id"] for i in expected["items"]]
    for got, wanted in zip(answer["items"], expected["items"], strict=True):
        assert got["score"] == pytest.approx(wanted["score"], abs=1e-6)
    # Not only children: processes whose parent died have another one by now.
    _, alive = psutil.wait_procs(during, timeout=5)
    assert alive == []
    assert not list(short_folder.glob("recsys-mtl-*"))
    claim_port("127.0.0.1", port).close()
