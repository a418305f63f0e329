"""Cosines of tasks' gradients, and that nothing else comes of asking for them."""

import copy

import pytest
import torch
from feature_tables import SCHEMA, encoded_table, recipe

from recsys_mtl.data.batch import to_batch
from recsys_mtl.features.manifest import TaskStats
from recsys_mtl.model.build import build_network
from recsys_mtl.xray.gradient import TaskGradients, at_rest, pull

TASKS = ("click", "stay")
STATS = TaskStats(rows=9, positives=4, mean=0.5, log_mean=0.7, log_std=0.5)


def network_of(gating, tasks=("binary", "value")):
    kinds = [
        {"kind": kind, "name": name, "label": name}
        for kind, name in zip(tasks, TASKS, strict=True)
    ]
    data = recipe().model_dump(mode="json") | {"tasks": kinds}
    spec = type(recipe()).model_validate(data | {"model": {"gating": gating}})
    torch.manual_seed(0)
    return build_network(
        spec.model,
        spec.features,
        SCHEMA,
        spec.tasks,
        dict.fromkeys(TASKS, STATS),
        device=torch.device("cpu"),
    )


@pytest.fixture
def network():
    return network_of({"kind": "mmoe", "hidden": [6], "num_experts": 3})


@pytest.fixture
def batch():
    return to_batch(encoded_table(80, 0), SCHEMA, TASKS)


def cosine_of(network, batch):
    gradients = TaskGradients(TASKS)
    with at_rest(network):
        gradients.add(pull(network, batch).gradients)
    return gradients.cosines()


def test_a_cosine_is_that_of_the_gradients_on_what_both_tasks_move(network, batch):
    network.eval()
    moved = []
    for t in range(2):
        network.zero_grad()
        loss_T, _ = network.loss_T(network(batch).logits, batch.label_BT)
        loss_T[t].backward()
        parts = [p.grad for p in network.trunk.parameters() if p.grad is not None]
        moved.append(torch.cat([part.flatten() for part in parts]).double())
    both = (moved[0] != 0) & (moved[1] != 0)
    expected = torch.cosine_similarity(moved[0][both], moved[1][both], dim=0)
    # Gates and towers of one task alone are not among them.
    assert 0 < both.sum() < len(both)
    found = cosine_of(network, batch)
    assert found == {"click": {"stay": pytest.approx(float(expected), abs=1e-5)}}


@pytest.mark.parametrize(("opposed", "expected"), [(True, -1.0), (False, 1.0)])
def test_a_label_and_its_negation_pull_apart(opposed, expected):
    network = network_of({"kind": "shared_bottom", "hidden": [6]}, ("binary",) * 2)
    tower = network.trunk.tower
    with torch.no_grad():
        for parameter in tower.parameters():  # both tasks say the same of a row
            if len(parameter) == 2:
                parameter[1] = parameter[0]
        tower.logits[1].load_state_dict(tower.logits[0].state_dict())
        for layer in tower.logits:
            layer.bias.zero_()
            layer.weight.mul_(1e-4)  # every probability is a half
    table = encoded_table(80, 0)
    click = table["label.click"].to_numpy()
    place = table.column_names.index("label.stay")
    other = 1 - click if opposed else click
    table = table.set_column(place, "label.stay", [other])
    found = cosine_of(network, to_batch(table, SCHEMA, TASKS))
    assert found["click"]["stay"] == pytest.approx(expected, abs=1e-3)


def test_batches_add_up_to_the_whole(network):
    table = encoded_table(90, 3)
    gradients = TaskGradients(TASKS)
    with at_rest(network):
        for start, rows in ((0, 40), (40, 50)):
            part = to_batch(table.slice(start, rows), SCHEMA, TASKS)
            gradients.add(pull(network, part).gradients)
    whole = cosine_of(network, to_batch(table, SCHEMA, TASKS))
    assert gradients.cosines()["click"]["stay"] == pytest.approx(
        whole["click"]["stay"], abs=1e-5
    )


def test_a_task_without_labels_has_no_cosine(network, batch):
    batch.label_BT[:, 1] = float("nan")
    assert cosine_of(network, batch) == {"click": {}}


def test_tasks_that_share_only_embeddings_have_no_cosine(batch):
    network = network_of({"kind": "direct"})
    assert cosine_of(network, batch) == {"click": {}}


def test_asking_leaves_no_trace(network, batch):
    network.train()
    before = copy.deepcopy(network.state_dict())
    wanted = [parameter.requires_grad for parameter in network.parameters()]
    random = torch.get_rng_state()
    first = cosine_of(network, batch)
    assert all(map(torch.equal, before.values(), network.state_dict().values()))
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert [parameter.requires_grad for parameter in network.parameters()] == wanted
    assert all(module.training for module in network.modules())
    assert cosine_of(network, batch) == first


def test_a_frozen_network_can_be_asked(network, batch):
    expected = cosine_of(network, batch)
    network.requires_grad_(requires_grad=False)
    assert cosine_of(network, batch) == expected
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_squares_are_those_of_the_gradient_of_each_expert(network, batch):
    with at_rest(network):
        found = pull(network, batch)
        logits, (level,) = network.trunk.trace(*network.embedding(batch)[:4])
        loss_T, count_T = network.loss_T(logits, batch.label_BT)
        for t in range(2):
            (gradient_BSEH,) = torch.autograd.grad(
                loss_T[t] * count_T[t], level.expert_BSEH, retain_graph=True
            )
            torch.testing.assert_close(
                found.squares[0][t], gradient_BSEH.square().sum((0, 1, 3))
            )
