import pytest
import torch
from torch import nn

from recsys_mtl.model.experts import ExpertBank
from recsys_mtl.model.gating.ple import PLE

B, D, T, OWN, SHARED = 5, 4, 3, 2, 2
HIDDEN = ((7, 6), (5,), (8,))


def ple(levels=3, *, num_tasks=T, num_specific=OWN, num_shared=SHARED):
    torch.manual_seed(0)
    counts = {"num_specific": num_specific, "num_shared": num_shared}
    return PLE(D, HIDDEN[:levels], num_tasks=num_tasks, **counts)


def expert(bank, e, x_BD):
    for weight_EHD, bias_EH in zip(bank.weights, bank.biases, strict=True):
        x_BD = (x_BD @ weight_EHD[e].T + bias_EH[e]).relu()
    return x_BD


def mixture(gate_ED, x_BD, experts):
    weight_BE = (x_BD @ gate_ED.T).softmax(-1)
    return sum(weight_BE[:, e, None] * h_BH for e, h_BH in enumerate(experts))


def reference(gating, x_BTD):
    """The paper's sums, one branch and one expert at a time."""
    branches = [*x_BTD.unbind(1), x_BTD.mean(1)]
    for number, level in enumerate(gating.levels):
        last = number == len(gating.levels) - 1
        sizes = [OWN + SHARED] * T + [T * OWN + SHARED] * (not last)
        gates = torch.split(level.gates.gates_XD, sizes)
        own = [
            [expert(level.specific, t * OWN + e, branches[t]) for e in range(OWN)]
            for t in range(T)
        ]

        def shared(x_BD, level=level):
            return [expert(level.shared, e, x_BD) for e in range(SHARED)]

        # Above the first level shared experts read the shared branch alone.
        read = branches if number == 0 else [branches[T]] * (T + 1)
        outputs = [
            mixture(gates[t], branches[t], own[t] + shared(read[t])) for t in range(T)
        ]
        if not last:
            every = [h_BH for experts in own for h_BH in experts]
            outputs.append(mixture(gates[T], branches[T], every + shared(read[T])))
        branches = outputs
    return torch.stack(branches, dim=1)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_matches_the_paper_computed_naively(levels):
    gating = ple(levels)
    x_B1D, x_BTD = torch.randn(B, 1, D), torch.randn(B, T, D)
    expected = reference(gating, x_B1D.expand(-1, T, -1))
    torch.testing.assert_close(gating(x_B1D), expected)
    torch.testing.assert_close(gating(x_BTD), reference(gating, x_BTD))


@pytest.mark.parametrize("levels", [1, 2])
def test_one_task_without_shared_experts_is_an_mlp(levels):
    gating = ple(levels, num_tasks=1, num_specific=1, num_shared=0)
    mlp = ExpertBank(D, sum(HIDDEN[:levels], ()), num_experts=1)
    banks = [level.specific for level in gating.levels]
    mlp.weights = nn.ParameterList(w for bank in banks for w in bank.weights)
    mlp.biases = nn.ParameterList(b for bank in banks for b in bank.biases)
    x_B1D = torch.randn(B, 1, D)
    torch.testing.assert_close(gating(x_B1D), mlp(x_B1D)[:, :, 0])
    # Gates of one expert each have no choice, and so no weights.
    assert set(map(id, gating.parameters())) == set(map(id, mlp.parameters()))


def test_tasks_with_one_expert_each_and_none_shared_have_no_gates():
    gating = ple(2, num_specific=1, num_shared=0)
    assert {name.split(".")[2] for name in gating.state_dict()} == {"specific"}
    gating(torch.randn(B, 1, D)).sum().backward()
    assert all((p.grad != 0).any() for p in gating.parameters())


def test_identical_experts_pass_through_whatever_the_gates():
    gating = ple(1)
    with torch.no_grad():
        for bank in (gating.levels[0].specific, gating.levels[0].shared):
            for kind in ("weights", "biases"):
                source = getattr(gating.levels[0].shared, kind)
                for parameter, first in zip(getattr(bank, kind), source, strict=True):
                    parameter[:] = first[0].clone()
    x_B1D = torch.randn(B, 1, D)
    expected_BH = gating.levels[0].shared(x_B1D)[:, 0, 0]
    for t in range(T):
        torch.testing.assert_close(gating(x_B1D)[:, t], expected_BH)


def test_permuting_tasks_permutes_outputs():
    gating, order = ple(2), [2, 0, 1]
    x_B1D, x_BTD = torch.randn(B, 1, D), torch.randn(B, T, D)
    before_1, before_T = gating(x_B1D), gating(x_BTD)
    places = torch.arange(T * OWN).view(T, OWN)[order].flatten()
    with torch.no_grad():
        for level in gating.levels:
            for parameter in level.specific.parameters():
                parameter.copy_(parameter[places])
            size = OWN + SHARED
            gates_XD = level.gates.gates_XD
            own_TED = gates_XD[: T * size].view(T, size, -1)
            gates_XD[: T * size] = own_TED[order].flatten(0, 1)
            if len(gates_XD) > T * size:  # what the shared branch sees moves too
                gates_XD[T * size : -SHARED] = gates_XD[T * size : -SHARED][places]
    torch.testing.assert_close(gating(x_B1D), before_1[:, order])
    torch.testing.assert_close(gating(x_BTD[:, order]), before_T[:, order])


def test_other_tasks_experts_reach_a_task_through_the_shared_branch_alone():
    def gradient(gating):
        gating(torch.randn(B, 1, D))[:, 0].sum().backward()
        return gating.levels[0].specific.weights[0].grad[OWN:]

    assert (gradient(ple(2)) != 0).any()
    assert gradient(ple(1)) is not None
    assert (gradient(ple(1)) == 0).all()
    assert (gradient(ple(2, num_shared=0)) == 0).all()


def test_the_trace_names_owners_and_hides_other_tasks_experts():
    first, last = ple(2).trace(torch.randn(B, 1, D)).levels
    owners = ("task:0",) * 2 + ("task:1",) * 2 + ("task:2",) * 2 + ("shared",) * 2
    assert first.experts == last.experts == owners
    assert first.gates == ("task:0", "task:1", "task:2", "shared")
    assert last.gates == ("task:0", "task:1", "task:2")
    for level in (first, last):
        torch.testing.assert_close(level.weight_BTE.sum(2).mean(), torch.tensor(1.0))
        for t, gate in enumerate(level.gates):
            for e, owner in enumerate(owners):
                seen = gate == "shared" or owner in (gate, "shared")
                assert bool((level.weight_BTE[:, t, e] > 0).all()) == seen


def test_parameter_count_is_the_formula():
    experts = (T * OWN + SHARED) * (D * 7 + 7 + 7 * 6 + 6 + 6 * 5 + 5)
    first_gates = (T * (OWN + SHARED) + T * OWN + SHARED) * D
    last_gates = T * (OWN + SHARED) * 6
    count = sum(map(nn.Parameter.numel, ple(2).parameters()))
    assert count == experts + first_gates + last_gates
