"""Planted pathologies of experts are found, and healthy ones are not."""

import re

import pytest
import torch
from feature_tables import SCHEMA, encoded_table, recipe

from recsys_mtl.config.model import ModelSpec
from recsys_mtl.data.batch import EncodedRows
from recsys_mtl.features.manifest import TaskStats
from recsys_mtl.model.build import build_network
from recsys_mtl.model.gating import GateLevel
from recsys_mtl.xray import advice
from recsys_mtl.xray.examine import examine_experts
from recsys_mtl.xray.expert import LevelTally
from recsys_mtl.xray.verdict import conflict_findings, expert_findings

TASKS = ("click", "stay")
STATS = TaskStats(rows=9, positives=4, mean=0.5, log_mean=0.7, log_std=0.5)
EVEN = [[0.25] * 4, [0.25] * 4]


def network_of(gating):
    data = recipe().model_dump(mode="json") | {"model": {"gating": gating}}
    spec = type(recipe()).model_validate(data)
    torch.manual_seed(0)
    return build_network(
        spec.model,
        spec.features,
        SCHEMA,
        spec.tasks,
        dict.fromkeys(TASKS, STATS),
        device=torch.device("cpu"),
    )


def model_of(gating, bottom="flat"):
    kinds = {"gating": {"kind": gating}, "bottom": {"kind": bottom}}
    return ModelSpec.model_validate(kinds)


def health_of(owners, weights, *, outputs=None, norms=None, gates=("task:0", "task:1")):
    """One level's health from planted figures: weights by gate and expert."""
    weight_BTE = torch.tensor(weights).expand(40, -1, -1)
    if outputs is None:
        torch.manual_seed(0)
        outputs = torch.randn(40, 1, len(owners), 6)
    level = GateLevel("experts", owners, gates, weight_BTE, outputs)
    squares_TE = torch.ones(2, len(owners)) if norms is None else norms.square()
    tally = LevelTally(level, TASKS)
    for part in (slice(0, 15), slice(15, 40)):
        cut = level._replace(
            weight_BTE=weight_BTE[part], expert_BSEH=level.expert_BSEH[part]
        )
        tally.add(cut, squares_TE / 2)
    return tally.health([tally.groups(t) for t in range(2)])


def found(levels, subject, gating="mmoe"):
    return [
        finding
        for finding in expert_findings(levels, model_of(gating))
        if finding.subject == subject and finding.state == "found"
    ]


def state(levels, subject):
    (one,) = [f for f in expert_findings(levels, ModelSpec()) if f.subject == subject]
    return one.state


def test_a_dead_expert_is_found_and_its_peers_are_not():
    network = network_of({"kind": "mmoe", "hidden": [6], "num_experts": 3})
    with torch.no_grad():
        experts = network.trunk.gating.experts
        experts.weights[0][1] = 0.0
        experts.biases[0][1] = -1.0  # its ReLU is never on
    rows = EncodedRows.of(encoded_table(300, 0), SCHEMA, TASKS)
    levels, _ = examine_experts(network, rows, TASKS)
    shares = [expert.zero_share for expert in levels[0].experts]
    assert shares[1] == levels[0].experts[1].dead_units == 1.0
    assert max(shares[0], shares[2]) < 0.9
    (finding,) = found(levels, "collapse")
    assert "shared 2 of level experts has collapsed: 100% of" in finding.says
    assert "home" in finding.advice


def test_figures_of_experts_are_those_of_all_rows_at_once():
    network = network_of({"kind": "mmoe", "hidden": [6], "num_experts": 3}).eval()
    rows = EncodedRows.of(encoded_table(2_500, 0), SCHEMA, TASKS)  # two batches
    (level,), _ = examine_experts(network, rows, TASKS)
    with torch.no_grad():
        embedded = network.embedding(rows.batch(0, 2_500))[:4]
        _, (whole,) = network.trunk.trace(*embedded)
    for e, expert in enumerate(level.experts):
        out_BH = whole.expert_BSEH[:, 0, e].double()
        assert expert.zero_share == pytest.approx(float((out_BH == 0).double().mean()))
        assert expert.scale == pytest.approx(float(out_BH.std(correction=0)), rel=1e-5)
    for g, gate in enumerate(level.gates):
        weight_BE = whole.weight_BTE[:, g].double()
        assert gate.weights == pytest.approx(weight_BE.mean(0).tolist(), rel=1e-4)
        entropy = torch.special.entr(weight_BE).sum(1).mean() / torch.tensor(3.0).log()
        assert gate.entropy == pytest.approx(float(entropy), rel=1e-4)


def test_a_quiet_expert_is_out_of_proportion():
    outputs = torch.randn(40, 1, 4, 6, generator=torch.Generator().manual_seed(0))
    outputs[:, :, 2] /= 10
    level = health_of(("shared",) * 4, EVEN, outputs=outputs)
    (finding,) = found([level], "collapse")
    assert "shared 3 of level experts is out of proportion" in finding.says
    assert level.experts[2].relative_scale == pytest.approx(0.1, rel=0.15)


def test_a_shared_expert_of_one_task_is_found():
    weights = [[0.6, 0.2, 0.2, 0.0], [0.01, 0.33, 0.33, 0.33]]
    level = health_of(("shared",) * 4, weights)
    assert level.experts[0].users == ("click",)
    (finding,) = found([level], "degradation")
    assert "shared 1 of level experts is shared in name: 2 gates" in finding.says
    assert "only click uses it" in finding.says
    # One gate alone sees the last expert, which thus is not shared.
    assert level.experts[3].readers == ("stay",)
    assert state([health_of(("shared",) * 4, EVEN)], "degradation") == "fine"


def test_an_expert_that_no_task_uses_is_found():
    weights = [[0.01, 0.33, 0.33, 0.33]] * 2
    (finding,) = found([health_of(("shared",) * 4, weights)], "degradation")
    assert "none uses it" in finding.says


def test_weights_with_a_residual_are_shares_all_the_same():
    weights = [[1.5, 0.5, 0.0, 0.0], [0.25] * 4]
    level = health_of(("task:0", "shared", "shared", "task:1"), weights)
    assert level.gates[0].weights == pytest.approx((0.75, 0.25, 0.0, 0.0))
    assert level.gates[0].visible == 2


def test_a_task_that_neglects_its_own_expert_is_found():
    owners = ("task:0", "task:1", "shared", "shared")
    weights = [[0.4, 0.0, 0.3, 0.3], [0.0, 0.4, 0.3, 0.3]]
    norms = torch.tensor([[0.1, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0]])
    level = health_of(owners, weights, norms=norms)
    assert level.own_share == pytest.approx({"click": 0.1 / 2.1, "stay": 1 / 3})
    assert level.fair_share == pytest.approx({"click": 1 / 3, "stay": 1 / 3})
    (finding,) = found([level], "underfitting")
    assert finding.says.startswith("click neglects its own experts")
    assert "self gates" in finding.advice


def test_experts_of_a_group_are_those_of_its_tasks():
    owners = ("group:watch", "group:act", "shared")
    weights = [[0.5, 0.0, 0.5], [0.0, 0.5, 0.5]]
    norms = torch.tensor([[3.0, 5.0, 1.0], [0.0, 1.0, 1.0]])
    level = health_of(owners, weights, norms=norms)
    # What reaches the other group's experts by way of a shared branch is neither.
    assert level.own_share == pytest.approx({"click": 0.75, "stay": 0.5})
    assert [expert.name for expert in level.experts] == [
        "group watch",
        "group act",
        "shared",
    ]


def test_a_task_without_labels_has_no_share():
    owners = ("task:0", "task:1", "shared")
    norms = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    level = health_of(owners, [[0.5, 0.0, 0.5], [0.0, 0.5, 0.5]], norms=norms)
    assert set(level.own_share) == set(level.gradients) == {"stay"}


@pytest.mark.parametrize(
    ("gating", "moot"),
    [
        ({"kind": "direct"}, {"collapse", "degradation", "underfitting"}),
        ({"kind": "shared_bottom", "hidden": [6]}, {"degradation", "underfitting"}),
        ({"kind": "mmoe", "hidden": [6], "num_experts": 2}, {"underfitting"}),
    ],
)
def test_questions_that_do_not_arise_are_told(gating, moot):
    rows = EncodedRows.of(encoded_table(120, 0), SCHEMA, TASKS)
    levels, _ = examine_experts(network_of(gating), rows, TASKS)
    findings = list(expert_findings(levels, model_of(gating["kind"])))
    assert {f.subject for f in findings if f.state == "moot"} == moot


def test_conflicts_are_named_from_the_worst_on():
    cosines = {"a": {"b": -0.3, "c": 0.2}, "b": {"c": -0.8}}
    findings = list(conflict_findings(cosines, 3, ModelSpec()))
    assert [f.state for f in findings] == ["found", "found"]
    assert findings[0].says.startswith("b and c pull shared parameters apart")
    fine = conflict_findings({"a": {"c": 0.0}}, 2, ModelSpec())
    assert [f.state for f in fine] == ["fine"]
    assert [f.state for f in conflict_findings({}, 1, ModelSpec())] == ["moot"]


KINDS = ("shared_bottom", "mmoe", "cgc", "ple", "home")


@pytest.mark.parametrize("kind", KINDS)
def test_no_advice_names_what_the_recipe_has_already(kind):
    model = model_of(kind, bottom="dtrn")
    outputs = torch.randn(40, 1, 4, 6, generator=torch.Generator().manual_seed(0))
    outputs[:, :, 1] = 0.0
    outputs[:, :, 2] /= 10
    owners = ("task:0", "task:1", "shared", "shared")
    weights = [[0.49, 0.0, 0.5, 0.01], [0.0, 0.5, 0.01, 0.49]]
    norms = torch.tensor([[0.1, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0]])
    level = health_of(owners, weights, outputs=outputs, norms=norms)
    findings = [
        *expert_findings([level], model),
        *conflict_findings({"click": {"stay": -1.0}}, 2, model),
    ]
    assert {f.state for f in findings} == {"found"}
    subjects = {"collapse", "degradation", "underfitting", "conflict"}
    assert {f.subject for f in findings} == subjects
    for finding in findings:
        assert finding.advice
        assert not re.search(rf"gating: [a-z ]*\b{kind}\b", finding.advice)
        assert "dtrn" not in finding.advice


def test_advice_names_options_that_there_are():
    for kind in KINDS:
        model = model_of(kind)
        for advise in (getattr(advice, name) for name in advice.__all__):
            said = advise(model)
            for option in re.findall(r"gating\.(\w+)", said):
                assert option in type(model.gating).model_fields
            for named in re.findall(r"gating: ([a-z]+)(?: or ([a-z]+))?", said):
                assert {name for name in named if name} <= set(KINDS)
