import pytest

from pipelines.ray_session import ray_session


@pytest.fixture(scope="package", autouse=True)
def cores():
    with ray_session(2) as cores:
        yield cores
