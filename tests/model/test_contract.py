"""Promises every combination of stages keeps; a new stage is one line below."""

import itertools

import pytest
import torch

from recsys_mtl.config.bottom import APEMSpec, DTRNSpec, FlatSpec
from recsys_mtl.config.chain import AITMSpec, ESMMSpec, IndependentSpec
from recsys_mtl.config.gating import (
    CGCSpec,
    DirectSpec,
    HoMESpec,
    MMoESpec,
    PLESpec,
    SharedBottomSpec,
)
from recsys_mtl.config.model import ModelSpec
from recsys_mtl.config.task import (
    BinaryTask,
    OrdinalTask,
    SurvivalTask,
    ValueTask,
)
from recsys_mtl.config.tower import (
    DCNV2Spec,
    FinalMLPSpec,
    MLPTowerSpec,
    StreamSpec,
    WideDeepSpec,
)

BOTTOMS = [
    FlatSpec(),
    DTRNSpec(kind="dtrn", width=8, code_dim=3, hidden=(6,)),
    APEMSpec(kind="apem", num_layers=2, num_groups=2, num_inducing=3, num_indicators=2),
]
GATINGS = [
    DirectSpec(),
    SharedBottomSpec(hidden=(8,)),
    MMoESpec(hidden=(8, 6), num_experts=3),
    CGCSpec(kind="cgc", hidden=(6,), num_shared=1),
    PLESpec(kind="ple", levels=((6,), (5,)), num_specific=2, num_shared=1),
    HoMESpec(kind="home", levels=((6,), (5,)), lora_rank=2),
]
TOWERS = [
    MLPTowerSpec(hidden=(5,)),
    MLPTowerSpec(hidden=(6, 5), batch_norm=True),
    FinalMLPSpec(
        kind="final_mlp",
        first=StreamSpec(hidden=(6, 4), context=("user", "item", "age")),
        second=StreamSpec(hidden=(8,)),
        gate_hidden=(30,),
        context_init_std=1.0,
        num_heads=2,
    ),
    DCNV2Spec(kind="dcn_v2", num_layers=1, hidden=(5,)),
    WideDeepSpec(kind="wide_deep", hidden=(5,), batch_norm=True),
]
TASKS = [
    (BinaryTask(kind="binary", name="click", label="click"),),
    (
        ValueTask(kind="value", name="watch", label="watch_s"),
        BinaryTask(kind="binary", name="click", label="click"),
        ValueTask(kind="value", name="amount", label="amount", loss="squared"),
    ),
]
KINDS = (
    SurvivalTask(kind="survival", name="leave", time="s", event="e", horizons=(2.0,)),
    ValueTask(
        kind="value", name="spend", label="spend", loss="zero_inflated_log_normal"
    ),
    OrdinalTask(kind="ordinal", name="rating", label="rating", levels=3),
)
STEPS = ("click", "order")
CHAINS = [ESMMSpec(kind="esmm", steps=STEPS), AITMSpec(kind="aitm", steps=STEPS)]
CHAINED = (
    BinaryTask(kind="binary", name="order", label="order"),
    ValueTask(kind="value", name="watch", label="watch_s"),
    BinaryTask(kind="binary", name="click", label="click"),
)
B = 32


@pytest.fixture(
    params=[
        *itertools.product(
            BOTTOMS[:1], GATINGS[:3], TOWERS, [IndependentSpec()], TASKS
        ),
        *itertools.product(
            BOTTOMS[:1], GATINGS[3:], TOWERS[:1], [IndependentSpec()], TASKS
        ),
        *itertools.product(
            BOTTOMS[1:], GATINGS, TOWERS[:1], [IndependentSpec()], TASKS[1:]
        ),
        *itertools.product(BOTTOMS[:1], GATINGS[2:3], TOWERS[:1], CHAINS, [CHAINED]),
        (BOTTOMS[0], GATINGS[2], TOWERS[0], IndependentSpec(), KINDS),
    ],
    ids=lambda parts: "-".join(
        [
            *(part.kind for part in parts[:4]),
            f"{TOWERS.index(parts[2])}x{len(parts[4])}",
        ]
    ),
)
def network(request, network_of):
    bottom, gating, tower, chain, tasks = request.param
    return network_of(
        bottom=bottom, gating=gating, tower=tower, chain=chain, tasks=tasks
    )


def labels(network):
    return torch.randint(0, 2, (B, len(network.heads))).float()


def test_gradient_reaches_every_parameter(network, batches):
    loss_T, _ = network.loss_T(network(batches(B)).logits, labels(network))
    loss_T.sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_a_batch_of_one_keeps_its_axes(network, batches):
    logits = network(batches(1)).logits
    assert network.predict(logits).shape == (1, len(network.heads))


def test_extreme_numbers_stay_finite(network, batches):
    batch = batches(B)
    batch.dense_BM.fill_(1e6)
    logits = network(batch).logits
    loss_T, _ = network.loss_T(logits, labels(network))
    assert loss_T.isfinite().all()
    assert network.predict(logits).isfinite().all()


@pytest.mark.parametrize("gating", GATINGS, ids=lambda spec: spec.kind)
@pytest.mark.parametrize("tower", TOWERS, ids=lambda spec: spec.kind)
def test_specs_round_trip_to_the_same_network(gating, tower, network_of, batches):
    spec = ModelSpec(gating=gating, tower=tower)
    again = ModelSpec.model_validate_json(spec.model_dump_json())
    assert again == spec
    one = network_of(gating=gating, tower=tower)
    other = network_of(gating=again.gating, tower=again.tower)
    for x_BC, y_BC in zip(
        one(batches(B)).logits, other(batches(B)).logits, strict=True
    ):
        assert x_BC.equal(y_BC)
