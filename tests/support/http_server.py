"""A server with a socket, in a thread of this process."""

import contextlib
import threading

import httpx

from serving.run import serve


@contextlib.contextmanager
def running(settings):
    """Serve while the block lasts; gives a client."""
    stop, ready, urls = threading.Event(), threading.Event(), []

    def on_ready(url):
        urls.append(url)
        ready.set()

    thread = threading.Thread(
        target=serve, args=(settings,), kwargs={"on_ready": on_ready, "stop": stop}
    )
    thread.start()
    try:
        assert ready.wait(120)
        with httpx.Client(base_url=urls[0], timeout=60, trust_env=False) as client:
            yield client
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()
