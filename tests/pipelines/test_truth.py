import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.evaluate import read_predictions
from pipelines.truth import best_possible
from recsys_mtl.config.recipe import Recipe
from recsys_mtl.data.simulator import Simulator
from recsys_mtl.evaluate.metric import evaluate_tasks

SOURCE = {"kind": "simulator", "rows": 20_000, "num_users": 200, "num_items": 100}
CLICKED = {"column": "is_click", "equals": 1}


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return Recipe.model_validate(
        {
            "name": "truth",
            "data": {
                "interactions": SOURCE,
                "keys": {"user": "user_id", "item": "item_id"},
                "timestamp": {"column": "time_ms", "unit": "ms"},
                "split": {"kind": "time"},
            },
            "features": [{"kind": "categorical", "name": "item_id"}],
            "tasks": [
                {"kind": "binary", "name": "click", "label": "is_click"},
                {
                    "kind": "binary",
                    "name": "long",
                    "label": "long_view",
                    "sample_space": CLICKED,
                },
                {"kind": "binary", "name": "like", "label": "like"},
            ],
        }
    )


@pytest.fixture(scope="module")
def log(recipe) -> pa.Table:
    simulator = Simulator(recipe.data.interactions)
    chunks = [simulator.chunk(i) for i in range(simulator.num_chunks)]
    table = pa.concat_tables(chunks)
    # The newest rows, in an order of their own, as a test split has them.
    rows = np.flatnonzero(
        table["time_ms"].to_numpy() > np.quantile(table["time_ms"].to_numpy(), 0.8)
    )
    return table.take(np.random.default_rng(0).permutation(rows))


def predictions(log, path, **by_task):
    click = log["is_click"].to_numpy()
    columns = {
        "key.user": log["user_id"],
        "key.time": pa.array(log["time_ms"].to_numpy() * 1_000),
        "label.click": pa.array(click.astype(np.float32)),
        "label.long": pa.array(
            np.where(click == 1, log["long_view"].to_numpy(), np.nan), from_pandas=True
        ),
        "label.like": pa.array(log["like"].to_numpy().astype(np.float32)),
    }
    columns |= {f"prediction.{task}": pa.array(p) for task, p in by_task.items()}
    pq.write_table(pa.table(columns), path)
    return path


def compared(recipe, path):
    prediction_BT, label_BT, _ = read_predictions(path, recipe)
    metrics = evaluate_tasks(recipe.tasks, label_BT, prediction_BT)
    return best_possible(recipe, path, metrics)


def test_the_truth_itself_reaches_all_of_the_way(recipe, log, tmp_path):
    click = log["true.click"].to_numpy()
    path = predictions(
        log,
        tmp_path / "p.parquet",
        click=click,
        long=log["true.long_view"].to_numpy(),
        like=log["true.like"].to_numpy() * click,
    )
    best = compared(recipe, path)
    assert set(best) == {"click", "long", "like"}
    for task, values in best.items():
        assert values["reached"] == pytest.approx(1.0, abs=1e-3), task
        assert 0.6 < values["best_auc"] < 0.95


def test_chance_reaches_nothing_of_it(recipe, log, tmp_path):
    dice = np.random.default_rng(1).random((3, log.num_rows))
    path = predictions(
        log, tmp_path / "p.parquet", click=dice[0], long=dice[1], like=dice[2]
    )
    assert abs(compared(recipe, path)["click"]["reached"]) < 0.1


def test_rows_of_files_have_no_known_truth(recipe, tmp_path):
    data = recipe.data.model_dump() | {
        "interactions": {"kind": "parquet", "path": "log.parquet"}
    }
    of_files = Recipe.model_validate(recipe.model_dump() | {"data": data})
    assert best_possible(of_files, tmp_path / "none.parquet", {}) == {}
