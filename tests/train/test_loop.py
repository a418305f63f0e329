import json
import os
import signal
import warnings

import numpy as np
import pytest
import torch
from feature_tables import recipe, write_tables

from recsys_mtl.data.reader import FeatureReader
from recsys_mtl.errors import ArtifactError, DataError, EnvironmentFault
from recsys_mtl.train import device as devices
from recsys_mtl.train import load_network, predict, train
from recsys_mtl.train.device import check_precision, find_device

ADAM = {"kind": "adam", "learning_rate": 0.02, "l2": 1e-4}
FUSED = {"kind": "rowwise_adagrad", "learning_rate": 0.1}


def figures(result):
    """Everything of the checks but the clock."""
    clock = {"seconds", "cpu_seconds", "rows_per_s"}
    return [check.model_dump(exclude=clock) for check in result.checks]


def interrupt_at(step, batch_size=50):
    """Press Ctrl-C once ``step`` steps are done."""
    told = []

    def listen(progress):
        if progress.done >= step * batch_size and not told:
            told.append(progress)
            os.kill(os.getpid(), signal.SIGINT)

    return listen


@pytest.fixture(autouse=True)
def _tell_every_step(monkeypatch):
    monkeypatch.setattr("recsys_mtl.train.events._INTERVAL_S", 0.0)


@pytest.mark.parametrize("embeddings", [FUSED, ADAM])
def test_the_loss_falls_and_the_planted_model_is_found(tables, tmp_path, embeddings):
    spec = recipe(epochs=6, embedding_optimizer=embeddings)
    result = train(spec, tables, tmp_path)
    losses = [check.train_loss for check in result.checks]
    for task in ("click", "stay"):
        assert losses[-1][task] < losses[0][task]
    assert result.best.metrics["click"]["auc"] > 0.8


@pytest.mark.parametrize("embeddings", [FUSED, ADAM])
def test_the_same_seed_gives_the_same_figures(tables, tmp_path, embeddings):
    spec = recipe(embedding_optimizer=embeddings)
    first, second = (train(spec, tables, tmp_path / name) for name in "ab")
    assert figures(first) == figures(second)
    other = train(
        recipe(embedding_optimizer=embeddings, seed=1), tables, tmp_path / "c"
    )
    assert figures(other) != figures(first)


@pytest.mark.parametrize("embeddings", [FUSED, ADAM])
@pytest.mark.parametrize("step", [5, 12, 16])
def test_a_run_that_was_interrupted_ends_as_if_it_had_not_been(
    tables, tmp_path, embeddings, step
):
    spec = recipe(
        embedding_optimizer=embeddings,
        checks_per_epoch=2,
        warmup_steps=8,
        schedule={"kind": "plateau", "factor": 0.5},
    )
    whole = train(spec, tables, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(spec, tables, tmp_path / "cut", on_progress=interrupt_at(step))
    seen = []
    resumed = train(spec, tables, tmp_path / "cut", on_progress=seen.append)
    assert seen[0].done > (step - 1) * 50
    assert figures(resumed) == figures(whole)
    one, other = (
        load_network(spec, tables, tmp_path / name).state_dict()
        for name in ("whole", "cut")
    )
    assert all(torch.equal(weight, other[name]) for name, weight in one.items())


def test_an_unfinished_run_of_another_recipe_is_refused(tables, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(recipe(), tables, tmp_path, on_progress=interrupt_at(3))
    with pytest.raises(ArtifactError, match="unfinished run of another recipe"):
        train(recipe(seed=5), tables, tmp_path)


def test_a_finished_run_starts_anew(tables, tmp_path):
    first = train(recipe(), tables, tmp_path)
    assert figures(train(recipe(), tables, tmp_path)) == figures(first)


def test_the_best_weights_are_kept_not_the_last(tables, tmp_path):
    # A rate this high overshoots, so that the last check is not the best.
    spec = recipe(epochs=8, optimizer={"learning_rate": 0.2})
    result = train(spec, tables, tmp_path)
    assert result.best.step < result.checks[-1].step
    names = tuple(task.name for task in spec.tasks)
    reader = FeatureReader(tables, "valid", batch_size=64, tasks=names)
    prediction_BT, label_BT, _ = predict(load_network(spec, tables, tmp_path), reader)
    loss = -np.where(
        label_BT[:, 0] == 1, np.log(prediction_BT[:, 0]), np.log1p(-prediction_BT[:, 0])
    )
    expected = result.best.metrics["click"]["log_loss"]
    assert loss.mean() == pytest.approx(expected, rel=1e-5)


def test_patience_ends_a_run_early(tables, tmp_path):
    stopping = {"metric": "click.auc", "patience": 2, "min_delta": 0.5}
    result = train(recipe(epochs=9, early_stopping=stopping), tables, tmp_path)
    assert [check.best for check in result.checks] == [True, False, False]


def test_checks_are_spread_over_an_epoch(tables, tmp_path):
    result = train(recipe(epochs=1, checks_per_epoch=5), tables, tmp_path)
    assert [check.step for check in result.checks] == [3, 5, 8, 10, 12]


def test_grouped_auc_can_steer(tables, tmp_path):
    stopping = {"metric": "click.gauc", "patience": 5}
    result = train(recipe(epochs=1, early_stopping=stopping), tables, tmp_path)
    assert 0 < result.best.metrics["click"]["gauc"] < 1


def test_rates_rise_with_warmup_and_fall_on_plateaus(tables, tmp_path):
    stopping = {"metric": "click.auc", "patience": 9, "min_delta": 0.5}
    plateau = {"kind": "plateau", "factor": 0.1}
    spec = recipe(epochs=3, early_stopping=stopping, schedule=plateau, warmup_steps=24)
    rates = np.array([c.learning_rates for c in train(spec, tables, tmp_path).checks])
    # 13 of 24 steps of warm-up, then one cut and two; on fused rates as on others.
    np.testing.assert_allclose(rates[:, 0], [0.1 * 13 / 24, 0.01, 0.001], rtol=1e-5)
    np.testing.assert_allclose(rates[:, -1], [0.01 * 13 / 24, 1e-3, 1e-4], rtol=1e-5)


def test_a_loss_that_is_not_finite_names_task_and_step(tables, tmp_path):
    spec = recipe(optimizer={"learning_rate": 1e30}, clip_norm=None)
    with pytest.raises(DataError, match=r"loss of task '\w+' must be finite.* step 2;"):
        train(spec, tables, tmp_path)


def test_history_and_events_tell_what_the_checks_found(tables, tmp_path):
    result = train(recipe(), tables, tmp_path)
    history = json.loads((tmp_path / "history.json").read_text())
    assert [check["step"] for check in history] == [12, 24]
    assert history[1]["metrics"] == result.checks[1].metrics
    assert list((tmp_path / "events").glob("events.out.tfevents.*"))


def test_progress_counts_rows_up_to_all_of_them(tables, tmp_path):
    told = []
    train(recipe(), tables, tmp_path, on_progress=told.append)
    done = [progress.done for progress in told]
    assert done == sorted(done)
    assert done[-1] == told[-1].total == 1200
    assert "rows/s" in told[-1].note


def test_checkpoints_that_nothing_names_are_gone(tables, tmp_path):
    train(recipe(checks_per_epoch=3), tables, tmp_path)
    names = {path.name for path in (tmp_path / "checkpoint").iterdir()}
    assert len(names) == 2
    assert "state.json" in names


def test_nothing_of_the_libraries_is_heard(tables, tmp_path, capfd):
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        train(recipe(epochs=1), tables, tmp_path)
    assert [str(warning.message) for warning in heard] == []
    assert capfd.readouterr() == ("", "")


def test_the_process_group_and_the_threads_are_given_back(tables, tmp_path):
    before = torch.get_num_threads()
    train(recipe(epochs=1), tables, tmp_path)
    assert not torch.distributed.is_initialized()
    assert torch.get_num_threads() == before


def test_bf16_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr(devices.torch.cpu, "get_capabilities", dict)
    with pytest.raises(EnvironmentFault, match=r"set train\.precision to 'fp32'"):
        check_precision("bf16", torch.device("cpu"))
    check_precision("fp32", torch.device("cpu"))


def test_a_missing_gpu_is_told(monkeypatch):
    monkeypatch.setattr(devices.torch.cuda, "is_available", lambda: False)
    with pytest.raises(EnvironmentFault, match="'cuda' needs a GPU"):
        find_device("cuda")
    assert find_device("auto") == torch.device("cpu")


def test_labels_without_a_class_to_compare_are_told(tmp_path):
    tables = write_tables(tmp_path / "tables", rows=2, parts=1)
    with pytest.raises(DataError, match=r"click\.auc' is undefined"):
        train(recipe(epochs=1, batch_size=4), tables, tmp_path / "run")
