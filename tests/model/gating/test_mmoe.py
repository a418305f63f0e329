import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn

from recsys_mtl.model.gating.mmoe import MMoE

B, D, E, T, H = 5, 4, 3, 2, 8


@pytest.fixture
def gating() -> MMoE:
    torch.manual_seed(0)
    return MMoE(D, (6, H), num_experts=E, num_tasks=T)


def reference(gating: MMoE, x_BTD: torch.Tensor) -> torch.Tensor:
    """The paper's sum, one task and one expert at a time."""
    outputs = []
    for t in range(T):
        gate_BE = (x_BTD[:, t] @ gating.gates_TED[t].T).softmax(-1)
        experts = []
        for e in range(E):
            h = x_BTD[:, t]
            for weight_EHD, bias_EH in zip(
                gating.experts.weights, gating.experts.biases, strict=True
            ):
                h = (h @ weight_EHD[e].T + bias_EH[e]).relu()
            experts.append(gate_BE[:, e, None] * h)
        outputs.append(sum(experts))
    return torch.stack(outputs, dim=1)


def test_matches_the_paper_computed_naively(gating):
    x_B1D = torch.randn(B, 1, D)
    torch.testing.assert_close(gating(x_B1D), reference(gating, x_B1D.repeat(1, T, 1)))


def test_matches_the_paper_where_each_task_has_its_own_input(gating):
    x_BTD = torch.randn(B, T, D)
    torch.testing.assert_close(gating(x_BTD), reference(gating, x_BTD))


def test_a_saturated_gate_selects_one_expert(gating):
    with torch.no_grad():
        gating.gates_TED.zero_()[:, 1] = 1e4
    x_B1D = torch.ones(B, 1, D)
    expected_BH = gating.experts(x_B1D)[:, 0, 1]
    torch.testing.assert_close(gating(x_B1D)[:, 0], expected_BH)


def test_identical_experts_pass_through_whatever_the_gate(gating):
    with torch.no_grad():
        for parameter in gating.experts.parameters():
            parameter[:] = parameter[0]
    x_B1D = torch.randn(B, 1, D)
    expected_BH = gating.experts(x_B1D)[:, 0, 0]
    for t in range(T):
        torch.testing.assert_close(gating(x_B1D)[:, t], expected_BH)


def test_permuting_tasks_permutes_outputs(gating):
    x_B1D = torch.randn(B, 1, D)
    before = gating(x_B1D)
    with torch.no_grad():
        gating.gates_TED.copy_(gating.gates_TED.flip(0))
    torch.testing.assert_close(gating(x_B1D), before.flip(1))


def test_parameter_count_is_the_formula(gating):
    experts = E * ((D * 6 + 6) + (6 * H + H))
    assert sum(map(nn.Parameter.numel, gating.parameters())) == experts + T * D * E


def test_a_missing_axis_is_caught_by_annotations(gating):
    with pytest.raises(TypeCheckError, match="x_BSD"):
        gating(torch.randn(B, D))
