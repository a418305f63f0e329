import tempfile
import threading

import httpx
import pytest

from recsys_mtl.export.bundle import load_bundle
from recsys_mtl.rank.ranker import Ranker
from serving.run import serve
from serving.settings import ServingSettings

UVICORN = {"engine": "uvicorn", "port": 0}
# Shapes are checked in tests, which takes a multiple of the time.
PATIENT = {"overload": {"max_wait_s": 60, "default_timeout_s": 60}}


@pytest.fixture(scope="session")
def ranker(tiny):
    return Ranker(load_bundle(tiny.bundle))


@pytest.fixture(scope="session")
def url(tiny):
    """A server with a socket, in a thread of this process."""
    stop, ready, urls = threading.Event(), threading.Event(), []

    def on_ready(url):
        urls.append(url)
        ready.set()

    thread = threading.Thread(
        target=serve,
        args=(ServingSettings.of_bundle(tiny.bundle, server=UVICORN, **PATIENT),),
        kwargs={"on_ready": on_ready, "stop": stop},
    )
    thread.start()
    assert ready.wait(60)
    yield urls[0]
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


@pytest.fixture(scope="session")
def client(url):
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture
def short_folder(monkeypatch):
    """Sockets need short paths."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield
