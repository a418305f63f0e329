import numpy as np
import pytest
from feature_tables import recipe, write_tables

from pipelines.train import train_on_workers
from recsys_mtl.data.reader import FeatureReader
from recsys_mtl.errors import DataError
from recsys_mtl.train import load_network, predict, train

TASKS = ("click", "stay")


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return write_tables(tmp_path_factory.mktemp("tables") / "tables")


def test_two_workers_learn_what_one_learns(tables, tmp_path, capfd):
    # Half the rows on each of two workers make the same step, but for rounding.
    half = recipe(batch_size=25, epochs=3, dropout=0.0)
    told = []
    two = train_on_workers(half, tables, tmp_path / "two", 2, on_progress=told.append)
    assert capfd.readouterr() == ("", "")
    whole = recipe(batch_size=50, epochs=3, dropout=0.0)
    one = train(whole, tables, tmp_path / "one")
    for mine, other in zip(two.checks, one.checks, strict=True):
        assert mine.step == other.step
        assert mine.train_loss == pytest.approx(other.train_loss, rel=1e-3)
        for task in TASKS:
            expected = pytest.approx(other.metrics[task], rel=1e-2)
            assert mine.metrics[task] == expected
    assert two.checks[-1].train_loss["click"] < two.checks[0].train_loss["click"]
    assert told[-1].done == told[-1].total == 1800

    reader = FeatureReader(tables, "valid", batch_size=64, tasks=TASKS)
    network = load_network(half, tables, tmp_path / "two")
    prediction_BT, label_BT, _ = predict(network, reader)
    hit_B = np.where(label_BT[:, 0] == 1, prediction_BT[:, 0], 1 - prediction_BT[:, 0])
    expected = two.best.metrics["click"]["log_loss"]
    assert -np.log(hit_B).mean() == pytest.approx(expected, rel=1e-5)


def test_what_a_worker_raises_is_raised_as_it_was(tables, tmp_path):
    spec = recipe(optimizer={"learning_rate": 1e30}, clip_norm=None)
    with pytest.raises(DataError, match="must be finite"):
        train_on_workers(spec, tables, tmp_path, 1)
