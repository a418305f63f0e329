import pytest
import torch
from torch import nn

from recsys_mtl.config.gating import DirectSpec
from recsys_mtl.config.model import EmbeddingSpec, ModelSpec
from recsys_mtl.config.task import BinaryTask
from recsys_mtl.config.tower import FinalMLPSpec
from recsys_mtl.features.manifest import TaskStats
from recsys_mtl.features.schema import FeatureSchema, IdField
from recsys_mtl.model.build import build_network
from recsys_mtl.model.towers.final_mlp import (
    FeatureGate,
    FinalMLPTower,
    Selection,
    Stream,
    _distinct,
)

B, T, D = 6, 3, 4
NUM_LOGITS = (1, 2, 1)
CONTEXT = torch.randn(B, 2, 3, generator=torch.Generator().manual_seed(0))
NAMED = Selection(6, (5,), learned=False)
LEARNED = Selection(3, (5,), learned=True)


def make(first=NAMED, second=LEARNED, *, num_heads=2, batch_norm=True, dropout=0.0):
    torch.manual_seed(0)
    tower = FinalMLPTower(
        D,
        Stream((7, 6), dropout, first),
        Stream((8,), dropout, second),
        num_logits=NUM_LOGITS,
        num_heads=num_heads,
        batch_norm=batch_norm,
    )
    for name, parameter in tower.named_parameters():
        if "bias" in name or "vector" in name:
            nn.init.normal_(parameter)
    return tower


def stream_by_hand(tower, s, t, x_BD, context_BG):
    """Stream ``s`` of task ``t`` as the paper has it."""
    gate = tower.gates[s]
    if not isinstance(gate, nn.Identity):
        c = context_BG if gate.vector_TG is None else gate.vector_TG[t].expand(B, -1)
        (layer,) = gate.mlp.layers
        c = (c @ layer.weight_THG[t].T + layer.bias_TH[t]).relu()
        c = c @ gate.last.weight_THG[t].T + gate.last.bias_TH[t]
        x_BD = x_BD * 2 * c.sigmoid()
    mlp = tower.mlps[s]
    for layer, norm in zip(mlp.layers, mlp.norms, strict=True):
        x_BD = x_BD @ layer.weight_THG[t].T + layer.bias_TH[t]
        if not isinstance(norm, nn.Identity):
            spread = (x_BD.var(0, unbiased=False) + norm.eps).sqrt()
            x_BD = (x_BD - x_BD.mean(0)) / spread * norm.weight_TH[t] + norm.bias_TH[t]
        x_BD = x_BD.relu()
    return x_BD


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(("first", "num_heads"), [(NAMED, 2), (None, 1), (None, 0)])
def test_is_the_published_model_written_row_by_row(first, num_heads, batch_norm):
    second = None if first is None else LEARNED
    tower = make(first, second, num_heads=num_heads, batch_norm=batch_norm)
    h_BTH = torch.randn(B, T, D)
    found = torch.cat(tower(h_BTH, (CONTEXT,) if first else ()), dim=1)
    for x, t in enumerate([0, 1, 1, 2]):
        one, two = (
            stream_by_hand(tower, s, t, h_BTH[:, t], CONTEXT.flatten(1)) for s in (0, 1)
        )
        for b in range(B):
            logit = sum(
                o[b] @ last.weight_XH[x] + last.bias_X[x]
                for o, last in zip((one, two), tower.logits, strict=True)
            )
            for j in range(num_heads):
                a, c = one[b].chunk(num_heads)[j], two[b].chunk(num_heads)[j]
                logit = logit + a @ tower.fusion.weight_XKGH[x, j] @ c
            torch.testing.assert_close(found[b, x], logit, rtol=1e-4, atol=1e-4)


def test_a_task_sees_no_other_tasks_input():
    tower = make().eval()
    h_BTH = torch.randn(B, T, D)
    other = h_BTH.clone()
    other[:, 1] += 1.0
    one, two = tower(h_BTH, (CONTEXT,)), tower(other, (CONTEXT,))
    torch.testing.assert_close(one[0], two[0])
    torch.testing.assert_close(one[2], two[2])
    assert not one[1].equal(two[1])


def test_each_stream_reads_its_own_context():
    tower = make(NAMED, NAMED, num_heads=0).eval()
    h_BTH, other = torch.randn(B, T, D), CONTEXT + 1
    base = tower(h_BTH, (CONTEXT, CONTEXT))[0]
    assert not tower(h_BTH, (other, CONTEXT))[0].equal(base)
    assert not tower(h_BTH, (CONTEXT, other))[0].equal(base)
    with torch.no_grad():
        tower.logits[1].weight_XH.zero_()
    base = tower(h_BTH, (CONTEXT, CONTEXT))[0]
    assert tower(h_BTH, (CONTEXT, other))[0].equal(base)


def test_a_gate_without_context_learns_one_constant_unless_it_starts_at_random():
    for init_std, alive in ((0.0, False), (0.1, True)):
        torch.manual_seed(0)
        empty = Selection(3, (50,), learned=True, init_std=init_std)
        tower = FinalMLPTower(
            D, Stream((6,), 0.0, empty), Stream((8,)), num_logits=(1,), num_heads=2
        )
        torch.cat(tower(torch.randn(B, 1, D)), 1).square().sum().backward()
        reached = {
            name
            for name, parameter in tower.gates[0].named_parameters()
            if parameter.grad is not None and parameter.grad.abs().sum() > 0
        }
        assert "last.bias_TH" in reached
        others = {"vector_TG", "mlp.layers.0.weight_THG", "last.weight_THG"}
        assert (others <= reached) if alive else not (others & reached)


def test_a_gate_worked_out_once_for_equal_contexts_learns_as_if_row_by_row():
    gate = FeatureGate(D, NAMED, num_tasks=T)
    h_TBH = torch.randn(T, B, D)
    kinds_CG = torch.randn(2, 6)
    place = [0, 1, 0, 0, 1, 0]
    found = []
    for training in (True, False):
        gate.train(training).zero_grad()
        leaf_CG = kinds_CG.clone().requires_grad_()
        said_TBH = gate(h_TBH, leaf_CG[place])
        said_TBH.square().sum().backward()
        found.append([said_TBH, leaf_CG.grad, *(p.grad for p in gate.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_contexts_that_differ_in_a_bit_are_different():
    context_BG = torch.ones(B, 6)
    context_BG[2, 5] = torch.nextafter(torch.ones(()), torch.zeros(()))
    gate = FeatureGate(D, NAMED, num_tasks=1)
    distinct_UG, place_B = _distinct(context_BG, gate.factor_G)
    assert len(distinct_UG) == 2
    assert distinct_UG[place_B].equal(context_BG)


def test_a_clash_of_keys_costs_time_and_nothing_else():
    context_BG = torch.randn(B, 6)
    distinct_UG, place_B = _distinct(context_BG, torch.zeros(6, dtype=torch.int64))
    assert distinct_UG[place_B].equal(context_BG)


def test_starts_where_it_is_told():
    tower = make(None, None)
    start = ((0.5,), (1.0, -2.0), (3.0,))
    with torch.no_grad():
        for name, parameter in tower.named_parameters():
            if not name.startswith("mlps"):
                parameter.zero_()
    tower.start_at(start)
    for logits_BC, expected in zip(tower(torch.randn(B, T, D)), start, strict=True):
        torch.testing.assert_close(logits_BC, torch.tensor(expected).expand(B, -1))


def test_dropout_acts_in_training_only():
    tower = make(None, None, batch_norm=False, dropout=0.5)
    h_BTH = torch.randn(B, T, D)
    assert not tower(h_BTH)[0].equal(tower(h_BTH)[0])
    tower.eval()
    assert tower(h_BTH)[0].equal(tower(h_BTH)[0])


def test_heads_that_do_not_divide_a_width_are_refused():
    with pytest.raises(ValueError, match="divide both last widths, got 4 for 6 and 8"):
        make(num_heads=4)


FRAPPE = {
    "user": 956,
    "item": 4084,
    "daytime": 9,
    "weekday": 9,
    "isweekend": 4,
    "homework": 5,
    "cost": 4,
    "weather": 11,
    "country": 82,
    "city": 235,
}
MOVIELENS = {"user": 16_977, "item": 23_606, "tag": 49_659}
AVAZU = {"c0": 1_298_621 - 21} | {f"c{i}": 1 for i in range(1, 22)}
# Published are the sum of the 26 sizes and the number of parameters; these two need C6,
# the one table looked up twice, to have 23 rows. How the others share the rest is free.
CRITEO = {"C6": 23, "C1": 2_086_329 - 23 - 24} | {f"c{i}": 1 for i in range(24)}
NUMBERS = tuple(f"I{i}" for i in range(1, 14))


def dual(first, second):
    return {
        "first": {"hidden": first},
        "second": {"hidden": second},
        "feature_selection": False,
        "num_heads": 0,
    }


PUBLISHED = [
    (
        "Frappe_x1",
        FRAPPE,
        (),
        {
            "first": {"hidden": [400], "context": ["user"]},
            "second": {"hidden": [100], "context": ["item"]},
            "gate_hidden": [400],
            "num_heads": 5,
        },
        253_392,
    ),
    (
        "MovielensLatest_x1",
        MOVIELENS,
        (),
        {"first": {"hidden": [400]}, "second": {"hidden": [800]}, "num_heads": 10},
        1_040_902,
    ),
    (
        "Criteo_x1",
        CRITEO,
        NUMBERS,
        {
            "first": {"hidden": [400] * 3, "context": NUMBERS},
            "second": {"hidden": [1000], "context": ["C6"]},
            "num_heads": 200,
        },
        22_478_162,
    ),
    (
        "Avazu_x1",
        AVAZU,
        (),
        {"first": {"hidden": [400] * 3}, "second": {"hidden": [800]}, "num_heads": 10},
        13_979_472,
    ),
    ("DualMLP Frappe_x1", FRAPPE, (), dual([400] * 3, [500] * 3), 972_992),
    ("DualMLP MovielensLatest_x1", MOVIELENS, (), dual([400] * 3, [400]), 1_252_022),
    ("DualMLP Criteo_x1", CRITEO, NUMBERS, dual([400] * 3, [400] * 3), 21_823_422),
    ("DualMLP Avazu_x1", AVAZU, (), dual([400] * 3, [400]), 13_487_812),
]


@pytest.mark.parametrize(
    ("sizes", "numbers", "tower", "count"),
    [case[1:] for case in PUBLISHED],
    ids=[case[0] for case in PUBLISHED],
)
def test_parameters_are_as_many_as_published(sizes, numbers, tower, count):
    model = ModelSpec(
        embedding=EmbeddingSpec(dim=10, numeric="linear"),
        gating=DirectSpec(),
        tower=FinalMLPSpec(kind="final_mlp", **tower),
    )
    schema = FeatureSchema(
        ids=tuple(IdField(name=name, size=size) for name, size in sizes.items()),
        dense=numbers,
        histories=(),
    )
    stats = TaskStats(rows=2, positives=1, mean=0.5, log_mean=0.3, log_std=0.3)
    with torch.device("meta"):
        network = build_network(
            model,
            (),
            schema,
            (BinaryTask(kind="binary", name="click", label="click"),),
            {"click": stats},
            device=torch.device("meta"),
        )
    assert sum(p.numel() for p in network.parameters()) == count
