import threading

import httpx
import pytest

from recsys_mtl.export.bundle import load_bundle
from recsys_mtl.rank.ranker import Ranker
from serving.run import serve


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
        args=(tiny.bundle,),
        kwargs={"engine": "uvicorn", "port": 0, "on_ready": on_ready, "stop": stop},
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
