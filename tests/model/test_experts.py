import pytest
import torch
from torch import nn

from recsys_mtl.model.experts import ExpertBank

B, S, D, E = 5, 2, 4, 3


def test_each_expert_is_an_mlp_of_its_own():
    bank = ExpertBank(D, (7, 6, 5), E)
    x_BSD = torch.randn(B, S, D)
    for e in range(E):
        h = x_BSD
        for weight_EHD, bias_EH in zip(bank.weights, bank.biases, strict=True):
            h = (h @ weight_EHD[e].T + bias_EH[e]).relu()
        torch.testing.assert_close(bank(x_BSD)[:, :, e], h)


def test_an_expert_reads_no_other_experts_weights():
    bank = ExpertBank(D, (7, 6), E)
    x_BSD = torch.randn(B, S, D)
    before = bank(x_BSD)
    with torch.no_grad():
        for parameter in bank.parameters():
            parameter[1] += 1.0
    after = bank(x_BSD)
    assert after[:, :, [0, 2]].equal(before[:, :, [0, 2]])
    assert not after[:, :, 1].equal(before[:, :, 1])


def test_parameter_count_is_the_formula():
    bank = ExpertBank(D, (7, 6), E)
    count = sum(p.numel() for p in bank.parameters())
    assert count == E * ((D * 7 + 7) + (7 * 6 + 6))


def test_dropout_acts_in_training_only():
    bank = ExpertBank(D, (32,), E, dropout=0.5)
    x_BSD = torch.randn(B, S, D)
    assert not bank(x_BSD).equal(bank(x_BSD))
    bank.eval()
    assert bank(x_BSD).equal(bank(x_BSD))


@pytest.mark.parametrize("activation", ["relu", "silu"])
@pytest.mark.parametrize("divided", [False, True])
def test_units_are_standardised_before_their_activation(activation, divided):
    bank = ExpertBank(
        D, (7, 6), 2 * S, activation=activation, batch_norm=True, divided=divided
    )
    for parameter in bank.norms.parameters():
        nn.init.normal_(parameter)
    phi = nn.ReLU() if activation == "relu" else nn.SiLU()
    x_BSD = torch.randn(B, S, D)
    output = bank(x_BSD)
    assert output.shape == (B, 1 if divided else S, 2 * S, 6)
    for e in range(2 * S):
        # Neighbours read the same input where inputs divide the experts.
        h = x_BSD[:, e // 2] if divided else x_BSD.flatten(0, 1)
        for weight_EHD, norm in zip(bank.weights, bank.norms, strict=True):
            oracle = nn.BatchNorm1d(len(weight_EHD[e]))
            oracle.weight.data = norm.weight_TH[e].data
            oracle.bias.data = norm.bias_TH[e].data
            h = phi(oracle(h @ weight_EHD[e].T))
        expected = h[:, None] if divided else h.view(B, S, -1)
        torch.testing.assert_close(output[:, :, e], expected)


@pytest.mark.parametrize("hidden", [(6,), (7, 6)])
def test_inputs_that_divide_experts_are_read_by_their_own_alone(hidden):
    bank = ExpertBank(D, hidden, 2 * S, divided=True)
    every = ExpertBank(D, hidden, 2 * S)
    for bias_EH in bank.biases:
        nn.init.normal_(bias_EH)
    every.load_state_dict(bank.state_dict())
    x_BSD = torch.randn(B, S, D)
    expected_BSEH = every(x_BSD)
    for e in range(2 * S):
        torch.testing.assert_close(bank(x_BSD)[:, 0, e], expected_BSEH[:, e // 2, e])
    # One input is read by all.
    torch.testing.assert_close(bank(x_BSD[:, :1]), every(x_BSD[:, :1]))


def test_normalised_experts_learn_from_a_batch_of_one_row():
    bank = ExpertBank(D, (7, 6), E, batch_norm=True)
    output = bank(torch.randn(1, 1, D))
    output.sum().backward()
    assert output.isfinite().all()
    assert all(p.grad.isfinite().all() for p in bank.parameters())


def test_normalised_layers_have_no_idle_bias():
    bank = ExpertBank(D, (7, 6), E, batch_norm=True)
    count = sum(p.numel() for p in bank.parameters())
    assert count == E * ((D * 7 + 2 * 7) + (7 * 6 + 2 * 6))
