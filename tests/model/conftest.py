import pytest
import torch
from small_model import batches, encoded, network, network_of, schema, tasks

__all__ = ["batches", "encoded", "network", "network_of", "schema", "tasks"]


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    # Threads that wait for tiny products make a busy machine several times slower.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
