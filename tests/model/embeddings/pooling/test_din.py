import pytest
import torch

from recsys_mtl.model.embeddings.pooling.din import TargetAttention

D, K, Q = 4, 3, 2
LENGTHS = torch.tensor([3, 0, 1, 4, 0])
B, N = len(LENGTHS), int(LENGTHS.sum())


@pytest.fixture
def pooling() -> TargetAttention:
    torch.manual_seed(0)
    return TargetAttention(D, num_fields=K, num_matched=Q, hidden=(6, 5))


def reference(pooling, events_NKD, length_B, query_BQD):
    """The activation unit, one row and one event at a time."""
    events = iter(events_NKD)
    rows = []
    for length, query_QD in zip(length_B.tolist(), query_BQD, strict=True):
        pooled_KD = torch.zeros(K, D)
        for _ in range(length):
            event_KD = next(events)
            key_QD = event_KD[:Q]
            x = torch.cat([query_QD, event_KD, query_QD * key_QD]).flatten()
            weight = torch.cat([pooling.query.weight, pooling.event.weight], dim=1)
            h = weight @ x + pooling.query.bias
            for activation, layer in zip(
                pooling.activations, pooling.layers, strict=True
            ):
                h = layer.weight @ h.where(h > 0, activation.weight * h) + layer.bias
            pooled_KD = pooled_KD + h * event_KD
        rows.append(pooled_KD)
    return torch.stack(rows)


@pytest.fixture
def inputs():
    torch.manual_seed(1)
    return torch.randn(N, K, D), LENGTHS, torch.randn(B, Q, D)


def test_matches_the_paper_computed_naively(pooling, inputs):
    torch.testing.assert_close(pooling(*inputs), reference(pooling, *inputs))


def test_weights_are_not_normalised(pooling, inputs):
    events_NKD, length_B, query_BQD = inputs
    twice = events_NKD.repeat_interleave(2, dim=0)
    torch.testing.assert_close(
        pooling(twice, length_B * 2, query_BQD), 2 * pooling(*inputs)
    )


def test_every_parameter_and_input_gets_gradient(pooling, inputs):
    events_NKD, length_B, query_BQD = inputs
    leaves = [events_NKD.requires_grad_(), query_BQD.requires_grad_()]
    pooling(events_NKD, length_B, query_BQD).square().sum().backward()
    for leaf in (*leaves, *pooling.parameters()):
        assert leaf.grad.isfinite().all()
        assert leaf.grad.abs().sum() > 0
    assert query_BQD.grad[LENGTHS == 0].abs().sum() == 0, "no event, no comparison"


def test_dropout_acts_in_training_only(inputs):
    pooling = TargetAttention(D, num_fields=K, num_matched=Q, hidden=(8,), dropout=0.5)
    assert not pooling(*inputs).equal(pooling(*inputs))
    pooling.eval()
    assert pooling(*inputs).equal(pooling(*inputs))
