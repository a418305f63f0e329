import pytest
import torch
from torch import nn

from recsys_mtl.model.gating.gate_bank import GateBank

B, D, E = 5, 4, 4
VISIBLE = ((0, 3), (2,), (0, 1, 2, 3))


def reference(gates, x_BTD, *, sigmoid_of_one=False):
    """One gate at a time, over what it sees alone."""
    weight_BTE = torch.zeros(len(x_BTD), len(VISIBLE), E)
    sizes = [len(seen) for seen in VISIBLE if len(seen) > 1 or sigmoid_of_one]
    rows = iter(torch.split(gates.gates_XD, sizes))
    for t, seen in enumerate(VISIBLE):
        if len(seen) > 1:
            weight_BTE[:, t, seen] = (x_BTD[:, t] @ next(rows).T).softmax(-1)
        elif sigmoid_of_one:
            weight_BTE[:, t, seen] = (x_BTD[:, t] @ next(rows).T).sigmoid()
        else:
            weight_BTE[:, t, seen] = 1.0
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


def test_gates_have_weights_only_for_what_they_choose_from():
    gates = GateBank(D, VISIBLE, num_experts=E)
    assert sum(map(nn.Parameter.numel, gates.parameters())) == (2 + 4) * D
    assert set(gates.state_dict()) == {"gates_XD"}
    gates = GateBank(D, VISIBLE, num_experts=E, sigmoid_of_one=True)
    assert sum(map(nn.Parameter.numel, gates.parameters())) == (2 + 1 + 4) * D


@pytest.mark.parametrize("sharing", [1, 2])
def test_gates_without_a_choice_have_nothing_to_learn(sharing):
    gates = GateBank(D, ((2,), (0,)), num_experts=3)
    assert gates.state_dict() == {}
    weight_BTE = gates(torch.randn(B, sharing, D))
    expected = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    assert torch.equal(weight_BTE, expected.expand(B, -1, -1))


def test_a_gate_learns_from_its_own_output_alone():
    gates = GateBank(D, VISIBLE, num_experts=E)
    gates(torch.randn(B, 1, D))[:, 0, 3].sum().backward()
    first, other = torch.split(gates.gates_XD.grad, [2, 4])
    assert (first != 0).all()
    assert (other == 0).all()
