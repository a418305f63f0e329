import pytest
import torch

from recsys_mtl.model.dropout import dropout


@pytest.mark.parametrize("rate", [0.1, 0.4, 0.99])
def test_drops_at_its_rate_and_keeps_the_mean(rate):
    torch.manual_seed(0)
    y = dropout(torch.ones(400, 500), rate, training=True)
    share, count = (y == 0).float().mean().item(), y.numel()
    assert abs(share - rate) < 5 * (rate * (1 - rate) / count) ** 0.5
    kept = y[y != 0]
    torch.testing.assert_close(
        kept, torch.full_like(kept, 1 / (1 - rate)), rtol=1e-2, atol=0
    )


def test_units_drop_independently_of_their_neighbours():
    torch.manual_seed(0)
    dropped = dropout(torch.ones(400, 500), 0.3, training=True).flatten() == 0
    for distance in (1, 2, 3, 4, 8):
        both = (dropped[distance:] & dropped[:-distance]).float().mean().item()
        assert both == pytest.approx(0.09, abs=0.005)


def test_the_gradient_is_dropped_and_scaled_alike():
    x = torch.rand(7, 9, requires_grad=True)
    y = dropout(x, 0.5, training=True)
    y.sum().backward()
    torch.testing.assert_close(y, x.detach() * x.grad)


@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (0, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_any_shape_and_type_stays_as_it_is(shape, dtype):
    y = dropout(torch.ones(shape, dtype=dtype), 0.5, training=True)
    assert (y.shape, y.dtype) == (shape, dtype)


def test_the_same_seed_drops_the_same():
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(dropout(torch.ones(50), 0.5, training=True))
    assert drawn[0].equal(drawn[1])
    assert not drawn[0].equal(drawn[2])


def test_nothing_happens_after_training_or_at_rate_0():
    x = torch.randn(5)
    assert dropout(x, 0.5, training=False) is x
    assert dropout(x, 0.0, training=True) is x
