"""Any bottom under any gating under any chain under any tower, with every head."""

import itertools
import typing

import pytest
import torch
from exported import assert_export_equals_eager
from model_stages import STAGES, TASKS, each_stack, name_of
from pydantic import BaseModel

from recsys_mtl.config.model import ModelSpec
from recsys_mtl.config.recipe import Recipe

B = 16


def kinds(annotation):
    """Spec classes that a type allows."""
    if isinstance(annotation, type):
        return {annotation} if issubclass(annotation, BaseModel) else set()
    return set().union(*map(kinds, typing.get_args(annotation)))


def test_no_kind_is_forgotten():
    for stage, specs in STAGES.items():
        allowed = kinds(ModelSpec.model_fields[stage].annotation)
        assert {type(spec) for spec in specs} == allowed, stage
    assert {type(task) for task in TASKS} == kinds(
        Recipe.model_fields["tasks"].annotation
    )
    losses = {task.loss for task in TASKS if task.kind == "value"}
    (value,) = {type(task) for task in TASKS if task.kind == "value"}
    assert losses == set(typing.get_args(value.model_fields["loss"].annotation))


@pytest.mark.parametrize(
    "combination", list(itertools.product(*STAGES.values())), ids=name_of
)
def test_a_step_is_finite_and_moves_every_stage(combination, network_of, batches):
    stages = dict(zip(STAGES, combination, strict=True))
    network = network_of(tasks=TASKS, **stages)
    parts = {"embedding": network.embedding} | dict(network.trunk.named_children())
    before = {
        name: [p.detach().clone() for p in part.parameters()]
        for name, part in parts.items()
    }
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    logits, penalty = network(batches(B))
    loss_T, _ = network.loss_T(logits, torch.randint(0, 2, (B, len(TASKS))).float())
    loss = loss_T.sum() + penalty
    loss.backward()
    optimizer.step()
    assert loss.isfinite()
    for name, part in parts.items():
        after = list(part.parameters())
        assert all(p.isfinite().all() for p in after), name
        moved = [not p.equal(q) for p, q in zip(after, before[name], strict=True)]
        assert any(moved) or not moved, name


@pytest.mark.parametrize(
    ("stages", "tasks"),
    each_stack(),
    ids=lambda part: (
        name_of(part.values())
        if isinstance(part, dict)
        else "-".join(task.name for task in part)
    ),
)
def test_export_equals_eager_at_another_number_of_rows(
    stages, tasks, network_of, batches
):
    assert_export_equals_eager(network_of(tasks=tasks, **stages), batches)
