import torch

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
