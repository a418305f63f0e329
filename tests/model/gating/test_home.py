import pytest
import torch

from recsys_mtl.model.gating.home import ExpertCounts, HoME

B, D, T = 6, 4, 3
GROUPS = {"watch": (1,), "act": (2, 0)}
GROUP_OF = {1: 0, 2: 1, 0: 1}
COUNTS = ExpertCounts(3, 2, 1, 2, 1)


def home(counts=COUNTS, groups=GROUPS):
    torch.manual_seed(0)
    gating = HoME(D, ((7, 6), (5,)), groups=groups, counts=counts, rank=2, num_lora=2)
    for level in (gating.meta, gating.task):
        torch.nn.init.normal_(level.feature_gate.up_SEGD)
    return gating


def expert(bank, e, x_BD):
    """Linear, batch normalisation, Swish."""
    for weight_EHD, norm in zip(bank.weights, bank.norms, strict=True):
        h_BH = x_BD @ weight_EHD[e].T
        var_H, mean_H = torch.var_mean(h_BH, 0, correction=0)
        h_BH = (h_BH - mean_H) / (var_H + norm.eps).sqrt()
        h_BH = h_BH * norm.weight_TH[e] + norm.bias_TH[e]
        x_BD = h_BH * h_BH.sigmoid()
    return x_BD


def gated(level, s, v_BD):
    """The input of owner ``s``."""
    gate, total = level.feature_gate, 0.0
    weight_BE = (v_BD @ gate.mix_SED[s].T).softmax(-1)
    for e, down_GD in enumerate(gate.down_SXD[s].split(2)):
        open_BD = 2 * (v_BD @ down_GD.T @ gate.up_SEGD[s, e]).sigmoid()
        total = total + weight_BE[:, e, None] * open_BD
    return v_BD * total


def outputs(level, counts, own):
    """Experts of each owner, on its own input."""
    every = [
        bank_expert
        for bank in level.banks
        for bank_expert in ((bank, e) for e in range(len(bank.weights[0])))
    ]
    places = iter(every)
    return [
        [expert(*next(places), v_BD) for _ in range(count)]
        for count, v_BD in zip(counts, own, strict=True)
    ]


def mixture(gate_ED, x_BD, experts, self_ED, v_BD, own_experts):
    weight_BE = (x_BD @ gate_ED.T).softmax(-1)
    self_BE = v_BD @ self_ED.T
    self_BE = self_BE.softmax(-1) if len(self_ED) > 1 else self_BE.sigmoid()
    mixed = sum(weight_BE[:, e, None] * h for e, h in enumerate(experts))
    return mixed + sum(self_BE[:, e, None] * h for e, h in enumerate(own_experts))


def gate_rows(bank, sizes):
    return torch.split(bank.gates_XD, sizes)


def reference(gating, x_BTD, counts=COUNTS):
    """Both levels, one owner, one task and one expert at a time."""
    members = [range(T), *GROUPS.values()]
    own = [
        gated(gating.meta, s, x_BTD[:, list(tasks)].mean(1))
        for s, tasks in enumerate(members)
    ]
    m_shared, m_group = counts[:2]
    sizes = [m_shared, m_group, m_group]
    said = outputs(gating.meta, sizes, own)
    sees = [said[0] + said[1] + said[2], said[0] + said[1], said[0] + said[2]]
    gates = gate_rows(gating.meta.gates, [len(seen) for seen in sees])
    selves = gate_rows(gating.meta.self_gates, sizes)
    z = [
        mixture(gates[s], own[s], sees[s], selves[s], own[s], said[s]) for s in range(3)
    ]
    source = [z[0], z[1], z[2], *(z[1 + GROUP_OF[t]] for t in range(T))]
    own = [gated(gating.task, s, z_BH) for s, z_BH in enumerate(source)]
    n_shared, n_group, n_own = counts[2:]
    said = outputs(gating.task, [n_shared, n_group, n_group] + [n_own] * T, own)
    gates = gate_rows(gating.task.gates, [n_shared + n_group + n_own] * T)
    selves = gate_rows(gating.task.self_gates, [n_own] * T)
    hidden = []
    for t in range(T):
        group = 1 + GROUP_OF[t]
        both_BX = torch.cat([z[group], z[0]], dim=1)
        sees_t = said[0] + said[group] + said[3 + t]
        hidden.append(
            mixture(gates[t], both_BX, sees_t, selves[t], own[3 + t], said[3 + t])
        )
    return torch.stack(hidden, dim=1)


@pytest.mark.parametrize("counts", [COUNTS, (1, 1, 1, 1, 1), (1, 2, 2, 1, 2)])
def test_matches_the_reading_computed_naively(counts):
    counts = ExpertCounts(*counts)
    gating = home(counts)
    x_B1D, x_BTD = torch.randn(B, 1, D), torch.randn(B, T, D)
    expected = reference(gating, x_B1D.expand(-1, T, -1), counts)
    torch.testing.assert_close(gating(x_B1D), expected)
    torch.testing.assert_close(gating(x_BTD), reference(gating, x_BTD, counts))


def taught_by_watch(gating):
    """What task 1 teaches the experts of group act, of the meta level."""
    gating(torch.randn(B, 1, D))[:, 1].sum().backward()
    # Neighbours are in one bank if equally many: here 3, and then 2 and 2.
    _, groups = gating.meta.banks
    return groups.weights[0].grad[2:]


def without_shared(_, inputs):
    """Cut the shared branch between the levels."""
    own_BSD, both_BTD = inputs
    group_BTH, shared_BTH = both_BTD.chunk(2, dim=2)
    own_BSD = torch.cat([own_BSD[:, :1].detach(), own_BSD[:, 1:]], dim=1)
    return own_BSD, torch.cat([group_BTH, shared_BTH.detach()], dim=2)


def test_a_task_teaches_the_other_groups_experts_through_the_shared_branch_alone():
    assert (taught_by_watch(home()) != 0).any()
    gating = home()
    gating.task.register_forward_pre_hook(without_shared)
    assert (taught_by_watch(gating) == 0).all()


def test_permuting_tasks_permutes_outputs():
    gating = home(ExpertCounts(3, 2, 1, 2, 1))
    x_B1D = torch.randn(B, 1, D)
    before = gating(x_B1D)
    # Tasks 0 and 2 are in one group: exchange all that is theirs.
    order = [2, 1, 0]
    task = gating.task
    with torch.no_grad():
        for parameter in task.feature_gate.parameters():
            parameter[3:] = parameter[3:][order].clone()
        for parameter in task.banks[-1].parameters():
            parameter.copy_(parameter[order])
        for gates in (task.gates, task.self_gates):
            per_task = gates.gates_XD.view(T, -1, gates.gates_XD.shape[1])
            gates.gates_XD.copy_(per_task[order].flatten(0, 1))
    torch.testing.assert_close(gating(x_B1D), before[:, order])


def test_a_self_gate_of_one_expert_is_a_sigmoid():
    gating = home(ExpertCounts(1, 2, 1, 1, 1))
    x_B1D = torch.randn(B, 1, D)
    own_BSD = gating.meta.feature_gate(x_B1D)
    weight_BTE = gating.meta.self_gates(own_BSD)
    first_D, *_ = gating.meta.self_gates.gates_XD
    torch.testing.assert_close(weight_BTE[:, 0, 0], (own_BSD[:, 0] @ first_D).sigmoid())
    torch.testing.assert_close(weight_BTE[:, 1:].sum(2), torch.ones(B, 2))


def test_training_goes_by_the_batch_and_evaluation_by_averages():
    gating = home()
    x_B1D = torch.randn(B, 1, D)
    alone = gating(x_B1D[:3])
    assert not torch.allclose(gating(x_B1D)[:3], alone)
    gating.eval()
    torch.testing.assert_close(gating(x_B1D)[:3], gating(x_B1D[:3]))
    assert not torch.allclose(gating(x_B1D)[:3], alone)


def test_the_trace_names_owners_and_masks_other_groups():
    meta, task = home().trace(torch.randn(B, 1, D)).levels
    owners = ("shared",) * 3 + ("group:watch",) * 2 + ("group:act",) * 2
    assert meta.experts == owners
    assert meta.gates == ("shared", "group:watch", "group:act")
    assert (meta.weight_BTE[:, 1, 5:] == 0).all()
    assert (meta.weight_BTE[:, 2, 3:5] == 0).all()
    assert (meta.weight_BTE[:, 0] > 0).all()
    assert task.experts == (
        *("shared", "group:watch", "group:watch", "group:act", "group:act"),
        *("task:0", "task:1", "task:2"),
    )
    assert task.gates == ("task:0", "task:1", "task:2")
    seen_TE = (task.weight_BTE > 0).all(0)
    assert seen_TE.int().tolist() == [
        [1, 0, 0, 1, 1, 1, 0, 0],
        [1, 1, 1, 0, 0, 0, 1, 0],
        [1, 0, 0, 1, 1, 0, 0, 1],
    ]
