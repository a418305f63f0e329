import os
import subprocess
import sys
from pathlib import Path

import pytest
import sharded_steps
import torch
from feature_tables import recipe
from sharded_steps import EMBEDDINGS, take

from recsys_mtl.errors import ArtifactError
from recsys_mtl.train import load_network
from recsys_mtl.train.state import RunState

KINDS = sorted(EMBEDDINGS)


@pytest.fixture(scope="module")
def by_one(tables, tmp_path_factory):
    """Checkpoints of one worker, and its weights after three steps and after five."""
    folder = tmp_path_factory.mktemp("checkpoints")
    weights = {
        kind: (
            take(kind, tables, range(3), save=folder / f"{kind}-by-1"),
            take(kind, tables, range(5)),
        )
        for kind in KINDS
    }
    return folder, weights


@pytest.fixture(scope="module")
def by_two(tables, by_one):
    """What two workers came to, in the same folder."""
    folder, _ = by_one
    support = Path(sharded_steps.__file__).parent
    command = [sys.executable, "-W", "ignore", sharded_steps.__file__]
    workers = [
        subprocess.Popen(
            [*command, str(rank), "2", str(tables), str(folder)],
            env=os.environ | {"PYTHONPATH": str(support), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    told = [worker.communicate(timeout=300)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], told
    return {kind: torch.load(folder / f"{kind}.pt") for kind in KINDS}


def close(one, other, atol):
    assert one.keys() == other.keys()
    for name, weight in one.items():
        torch.testing.assert_close(weight, other[name], rtol=0, atol=atol, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_steps_of_two_workers_are_steps_of_one(by_one, by_two, kind):
    close(by_two[kind]["three"], by_one[1][kind][0], atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_one_worker_loads_exactly_what_two_have_saved(tables, by_one, by_two, kind):
    loaded = take(kind, tables, range(0), load=by_one[0] / f"{kind}-by-2")
    close(loaded, by_two[kind]["three"], atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_one_worker_goes_on_where_two_stopped(tables, by_one, by_two, kind):
    on = take(kind, tables, range(3, 5), load=by_one[0] / f"{kind}-by-2")
    close(on, by_one[1][kind][1], atol=5e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_two_workers_go_on_where_one_stopped(by_one, by_two, kind):
    close(by_two[kind]["on"], by_one[1][kind][1], atol=5e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_going_on_equals_never_having_stopped(tables, by_one, kind):
    on = take(kind, tables, range(3, 5), load=by_one[0] / f"{kind}-by-1")
    close(on, by_one[1][kind][1], atol=0)


def test_a_position_moves_with_the_number_of_workers():
    state = RunState.start("digest", num_tasks=1)
    state.epoch_step = 7
    state.spread(2, steps_per_epoch=6)
    assert (state.epoch_step, state.world) == (3, 2)
    state.spread(1, steps_per_epoch=12)
    assert (state.epoch_step, state.world) == (6, 1)


def test_a_folder_without_a_checkpoint_is_refused(tables, tmp_path):
    with pytest.raises(ArtifactError, match="train first"):
        load_network(recipe(), tables, tmp_path)


def test_a_checkpoint_of_another_version_is_refused(tables, by_one, tmp_path):
    state = (by_one[0] / "fused-by-1" / "state.json").read_text()
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    changed = state.replace('"format_version": 1', '"format_version": 99')
    (folder / "state.json").write_text(changed)
    with pytest.raises(ArtifactError, match="format version 99"):
        load_network(recipe(), tables, tmp_path)


def test_a_network_of_another_shape_is_refused(tables, by_one, tmp_path):
    (tmp_path / "checkpoint").symlink_to(by_one[0] / "fused-by-1")
    other = recipe()
    wider = other.model.tower.model_copy(update={"hidden": (16,)})
    model = other.model.model_copy(update={"tower": wider})
    with pytest.raises(ArtifactError, match="does not fit the network"):
        load_network(other.model_copy(update={"model": model}), tables, tmp_path)
