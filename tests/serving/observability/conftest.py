"""Apps that are asked without a socket, and what they tell."""

import asyncio

import httpx
import pytest
from metric_series import series

from serving.app import create_app
from serving.settings import ServingSettings


class Asked:
    """An app, and one event loop for all that is asked of it."""

    def __init__(self, models, **observability):
        settings = ServingSettings(observability=observability)
        self.app = create_app(models, settings)
        self.observer = self.app.state.observer
        self.runner = asyncio.Runner()

    def __call__(self, method, path, **how):
        return self.runner.run(self._ask(method, path, **how))

    async def _ask(self, method, path, **how):
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://test"
        ) as client:
            answer = await client.request(method, path, **how)
        await asyncio.sleep(0)  # counting follows the answer
        return answer

    def rank(self, **changes):
        body = {"user": {"id": "u3"}, "item_ids": [101, 105, 117]} | changes
        return self("POST", "/v1/rank", json=body)

    def told(self):
        return series(self("GET", "/metrics").text)

    def close(self):
        self.observer.close()
        self.runner.close()


@pytest.fixture
def serving(ranker):
    """Make an app with settings of observability."""
    made = []

    def make(models=ranker, **observability):
        made.append(Asked(models, **observability))
        return made[-1]

    yield make
    for asked in made:
        asked.close()
