"""Replicas change their models together, under load, and keep them when they die."""

import contextlib
import subprocess
import sys
import threading
import time

import httpx
import pytest

from serving.process import ServerProcess

BODY = {"user": {"id": "u3"}, "item_ids": [101, 105, 117], "context": {"ts": 1}}
WATCH = {"weights": {"watch": 1.0}}


class Load:
    """Asks all the time, and keeps what came back."""

    def __init__(self, url, threads=3):
        self._url = url
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(threads)]
        self.answers = []

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _ask(self):
        with httpx.Client(base_url=self._url, timeout=30, trust_env=False) as client:
            while not self._stop.is_set():
                try:
                    answer = client.post("/v1/rank", json=BODY)
                    told = answer.json() if answer.is_success else answer.text
                except httpx.TransportError as error:
                    told = repr(error)
                self.answers.append((time.monotonic(), told))


def models_of(answers):
    return {told["model"] if isinstance(told, dict) else told for _, told in answers}


@pytest.mark.slow
def test_replicas_change_together_and_stay_changed(tiny, short_folder, tmp_path):
    path = tmp_path / "serving.yaml"
    path.write_text(
        f"models: [{{name: a, bundle: {tiny.bundle}}}]\n"
        "server: {replicas: 2}\n"
        "overload: {default_timeout_s: 60, max_wait_s: 60}\n"
    )
    with (
        ServerProcess(path, timeout_s=300) as server,
        httpx.Client(base_url=server.url, timeout=120, trust_env=False) as client,
    ):
        pids = {process.pid for process in server.replicas()}
        assert len(pids) == 2
        with Load(server.url) as load:
            time.sleep(1)
            # What cannot be served is refused, and everybody goes on.
            lost = {"models": [{"bundle": str(tmp_path / "lost"), "name": "b"}]}
            refused = client.put("/v1/models", json=lost)
            assert refused.status_code == 422, refused.text
            assert "the models that were served go on" in refused.text
            before = time.monotonic()

            # By the command, as people do it.
            path.write_text(
                f"models: [{{name: b, bundle: {tiny.bundle}, score: {WATCH}}}]"
            )
            told = subprocess.run(
                [
                    *(sys.executable, "-c", "from recsys_mtl.cli import main; main()"),
                    *("swap", str(path), "--url", server.url),
                ],
                check=False,
                capture_output=True,
                text=True,
            )
            assert told.returncode == 0, told.stderr
            assert "(new)" in told.stdout
            assert "is no longer served" in told.stdout
            after = time.monotonic()
            time.sleep(1)
        assert models_of(a for a in load.answers if a[0] < before) == {"a"}
        assert models_of(load.answers) == {"a", "b"}  # and no fault
        late = [a for a in load.answers if a[0] > after + 0.5]
        assert models_of(late) == {"b"}
        assert {process.pid for process in server.replicas()} == pids
        for _, told in late:
            assert told["scoring"]["weights"] == WATCH["weights"]

        # One that is started again serves what was served last.
        victim = server.replicas()[0]
        victim.kill()
        deadline = time.monotonic() + 120
        while len({p.pid for p in server.replicas()} - {victim.pid}) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.5)
        (new,) = {p.pid for p in server.replicas()} - pids
        other = next(p for p in server.replicas() if p.pid != new)
        while "recsys_replicas_ready 2.0" not in client.get("/metrics").text:
            assert time.monotonic() < deadline
            time.sleep(0.5)
        other.kill()
        seen = set()
        while time.monotonic() < deadline and not seen:
            with contextlib.suppress(httpx.TransportError):
                answer = client.post("/v1/rank", json=BODY)
                if answer.is_success:
                    seen.add(answer.json()["model"])
            time.sleep(0.2)
        assert seen == {"b"}
