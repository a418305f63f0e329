import math

import pytest
import torch

from recsys_mtl.model.hypernetwork import Hypernetwork, constant_norm

D = 6
START = [torch.linspace(-1, 1, 4), torch.linspace(0, 2, 15).view(5, 3)]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@torch.no_grad()
def predict(seed, z_XD, **options):
    torch.manual_seed(seed)
    return Hypernetwork(D, (16, 32), START, **options)(z_XD)


def reference(network, z_D):
    """The equations for one code, one number at a time."""
    encoded = [math.cos(math.pi / 2 * z) for z in z_D.tolist()]
    encoded += [math.sin(math.pi / 2 * z) for z in z_D.tolist()]
    h = torch.tensor(encoded)
    for layer in network.layers:
        h = layer.weight @ h + layer.bias
        h = h.where(h > 0, 0.01 * h)
    row, tensors = 0, []
    for start in network.start:
        change = [network.last_HG[row + i] @ h for i in range(start.numel())]
        row += start.numel()
        tensors.append(start + torch.stack(change).reshape(start.shape))
    return tensors


def test_the_encoding_has_the_same_norm_everywhere():
    norm_B = constant_norm(torch.rand(50, D)).norm(dim=1)
    torch.testing.assert_close(norm_B, torch.full((50,), math.sqrt(D)))


def test_matches_the_equations_computed_naively():
    network = Hypernetwork(D, (7, 5), START)
    z_XD = torch.rand(3, D)
    predicted = network(z_XD)
    for b in range(3):
        for tensor, expected in zip(
            predicted, reference(network, z_XD[b]), strict=True
        ):
            torch.testing.assert_close(tensor[b], expected)


@pytest.mark.parametrize("size", [0.05, 0.3, 1.0])
def test_at_the_start_the_size_of_the_code_does_not_matter(size):
    # One network turns with its code; over many, what it adds is equally large.
    z_XD = torch.stack([torch.ones(D), torch.full((D,), size)])
    norms = torch.zeros(2)
    for seed in range(200):
        for tensor, start in zip(predict(seed, z_XD), START, strict=True):
            norms += (tensor - start).flatten(1).norm(dim=1)
    assert norms[1] / norms[0] == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("size", [0.05, 0.3, 1.0])
def test_the_plain_one_scales_with_its_code(size):
    z_XD = torch.rand(4, D)
    large = predict(0, z_XD, invariant=False)
    small = predict(0, size * z_XD, invariant=False)
    for one, other in zip(small, large, strict=True):
        torch.testing.assert_close(one, size * other)


def test_each_tensor_starts_with_a_fan_out_of_its_own():
    # Their norms are equal although one has a hundred times as many numbers.
    network = Hypernetwork(D, (64,), [torch.ones(20), torch.ones(2_000)])
    few, many = network.last_HG.detach().split([20, 2_000])
    assert few.norm() / many.norm() == pytest.approx(1.0, rel=0.1)


def test_without_its_last_layer_it_gives_the_ordinary_start():
    network = Hypernetwork(D, (8,), START)
    with torch.no_grad():
        network.last_HG.zero_()
    for tensor, start in zip(network(torch.rand(3, D)), START, strict=True):
        assert tensor.equal(start.expand_as(tensor))


def test_the_start_is_a_copy_and_is_trained():
    network = Hypernetwork(D, (8,), START)
    for tensor, start in zip(network.start, START, strict=True):
        assert tensor.data_ptr() != start.data_ptr()
    sum(tensor.sum() for tensor in network(torch.rand(3, D))).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("codes", [0, 1])
def test_any_number_of_codes_keeps_its_axes(codes):
    one, other = Hypernetwork(D, (8,), START)(torch.rand(codes, D))
    assert (one.shape, other.shape) == ((codes, 4), (codes, 5, 3))


def test_what_starts_at_zero_starts_there_for_every_code():
    network = Hypernetwork(D, (8,), [torch.ones(3), torch.zeros(3)])
    weight, bias = network(torch.rand(4, D))
    assert (weight != 1).all()
    assert (bias == 0).all()
    bias.sum().backward()
    assert network.last_HG.grad[3:].abs().sum() > 0, "but it can leave"
