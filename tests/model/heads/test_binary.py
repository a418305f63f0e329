import pytest
import torch

from recsys_mtl.model.heads.binary import BinaryHead


def test_loss_is_the_bernoulli_likelihood():
    logits_BC = torch.randn(8, 1)
    label_B = torch.tensor([0.0, 1.0] * 4)
    bernoulli = torch.distributions.Bernoulli(logits=logits_BC[:, 0])
    torch.testing.assert_close(
        BinaryHead(0.5).loss(logits_BC, label_B), -bernoulli.log_prob(label_B)
    )


def test_starts_at_the_base_rate():
    head = BinaryHead(base_rate=0.03)
    prediction_B = head.predict(torch.tensor(head.initial_logits)[None])
    assert prediction_B.item() == pytest.approx(0.03)
