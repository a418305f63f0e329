import httpx
from asking import call

from serving.app import create_app
from serving.settings import ServingSettings


def test_readiness_waits_for_the_warm_up(ranker):
    app = create_app(ranker, ServingSettings())
    assert call(app, "GET", "/healthz").status_code == 200
    assert call(app, "GET", "/readyz").status_code == 503
    app.state.service.warm_up()
    assert call(app, "GET", "/readyz").status_code == 200


def test_connections_are_kept_alive(url):
    with httpx.Client(base_url=url, trust_env=False) as client:
        first = client.get("/healthz")
        second = client.get("/healthz")
    assert first.extensions["network_stream"] is second.extensions["network_stream"]
