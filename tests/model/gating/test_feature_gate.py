import pytest
import torch

from recsys_mtl.model.gating.feature_gate import FeatureGate

B, D, S, RANK = 5, 6, 3, 2


def feature_gate(num_lora):
    torch.manual_seed(0)
    gate = FeatureGate(D, num_readers=S, rank=RANK, num_lora=num_lora)
    torch.nn.init.normal_(gate.up_SEGD)
    return gate


def reference(gate, x_BSD):
    """The formula, one reader and one low-rank gate at a time."""
    outputs = []
    for s in range(S):
        v_BD = x_BSD[:, s]
        weight_BE = (v_BD @ gate.mix_SED[s].T).softmax(-1)
        total_BD = torch.zeros_like(v_BD)
        for e, down_GD in enumerate(torch.split(gate.down_SXD[s], RANK)):
            open_BD = 2 * (v_BD @ down_GD.T @ gate.up_SEGD[s, e]).sigmoid()
            total_BD = total_BD + weight_BE[:, e, None] * open_BD
        outputs.append(v_BD * total_BD)
    return torch.stack(outputs, dim=1)


@pytest.mark.parametrize("num_lora", [1, 2, 3])
def test_matches_the_formula(num_lora):
    gate = feature_gate(num_lora)
    x_B1D, x_BSD = torch.randn(B, 1, D), torch.randn(B, S, D)
    torch.testing.assert_close(gate(x_BSD), reference(gate, x_BSD))
    expected = reference(gate, x_B1D.expand(-1, S, -1))
    torch.testing.assert_close(gate(x_B1D), expected)


@pytest.mark.parametrize("num_lora", [1, 2])
def test_the_gate_is_one_where_its_second_factor_is_zero(num_lora):
    gate = feature_gate(num_lora)
    torch.nn.init.zeros_(gate.up_SEGD)
    x_BSD = torch.randn(B, S, D)
    # Weights of a softmax over several sum to 1 but for rounding.
    tolerance = 0.0 if num_lora == 1 else 1e-6
    torch.testing.assert_close(gate(x_BSD), x_BSD, rtol=tolerance, atol=0.0)


def test_entries_are_weighed_between_zero_and_two():
    gate = feature_gate(2)
    weight_BSD = gate(100 * torch.ones(B, S, D)) / 100
    assert (weight_BSD >= 0).all()
    assert (weight_BSD <= 2 + 1e-6).all()
    assert weight_BSD.min() < 0.1
    assert weight_BSD.max() > 1.9
