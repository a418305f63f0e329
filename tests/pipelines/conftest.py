import pytest
from feature_log import make_log, make_recipe, write_csv

from pipelines.features import build_feature_tables
from pipelines.ray_session import ray_session


@pytest.fixture(scope="package", autouse=True)
def cores():
    with ray_session(2) as cores:
        yield cores


@pytest.fixture(scope="package")
def log():
    return make_log()


@pytest.fixture(scope="package")
def recipe(tmp_path_factory, log):
    folder = tmp_path_factory.mktemp("raw")
    write_csv(folder / "log.csv", log)
    return make_recipe(folder)


@pytest.fixture(scope="package")
def tables(tmp_path_factory, recipe):
    folder = tmp_path_factory.mktemp("built") / "tables"
    build_feature_tables(recipe, folder)
    return folder
