import pytest
from feature_tables import write_tables


@pytest.fixture(scope="session")
def tables(tmp_path_factory):
    return write_tables(tmp_path_factory.mktemp("tables") / "tables")
