import torch
from torch import nn

from recsys_mtl.model.gating.gate_bank import GateBank

B, D, E = 5, 4, 4
VISIBLE = ((0, 3), (2,), (0, 1, 2, 3))


def gate_rows(gates, visible=VISIBLE):
    return torch.split(gates.gates_XD, list(map(len, visible)))


def reference(gates, x_BTD, *, sigmoid_of_one=False):
    """One gate at a time, over what it sees alone."""
    weight_BTE = torch.zeros(len(x_BTD), len(VISIBLE), E)
    for t, (seen, gate_ED) in enumerate(zip(VISIBLE, gate_rows(gates), strict=True)):
        logit_BE = x_BTD[:, t] @ gate_ED.T
        alone = sigmoid_of_one and len(seen) == 1
        weight_BTE[:, t, seen] = logit_BE.sigmoid() if alone else logit_BE.softmax(-1)
    return weight_BTE


def test_gates_weigh_what_they_see_and_nothing_else():
    gates = GateBank(D, VISIBLE, num_experts=E)
    x_B1D, x_BTD = torch.randn(B, 1, D), torch.randn(B, len(VISIBLE), D)
    expected = reference(gates, x_B1D.expand(-1, len(VISIBLE), -1))
    torch.testing.assert_close(gates(x_B1D), expected)
    torch.testing.assert_close(gates(x_BTD), reference(gates, x_BTD))
    assert (gates(x_BTD)[:, 0, [1, 2]] == 0).all()


def test_a_gate_of_one_expert_can_be_a_sigmoid():
    gates = GateBank(D, VISIBLE, num_experts=E, sigmoid_of_one=True)
    x_BTD = torch.randn(B, len(VISIBLE), D)
    expected = reference(gates, x_BTD, sigmoid_of_one=True)
    torch.testing.assert_close(gates(x_BTD), expected)
    assert (gates(x_BTD)[:, 1, 2] < 1).all()


def test_gates_have_weights_only_for_what_they_see():
    gates = GateBank(D, VISIBLE, num_experts=E)
    assert sum(map(nn.Parameter.numel, gates.parameters())) == (2 + 1 + 4) * D
    assert set(gates.state_dict()) == {"gates_XD"}


def test_a_gate_learns_from_its_own_output_alone():
    gates = GateBank(D, VISIBLE, num_experts=E)
    gates(torch.randn(B, 1, D))[:, 0, 3].sum().backward()
    first, *others = torch.split(gates.gates_XD.grad, list(map(len, VISIBLE)))
    assert (first != 0).all()
    assert all((grad_ED == 0).all() for grad_ED in others)
