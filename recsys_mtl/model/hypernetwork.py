"""A network that predicts tensors of another one, with steady magnitudes (MIP)."""

import math
from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Hypernetwork", "constant_norm"]

_SLOPE = 0.01


def constant_norm(z_XD: Float[Tensor, "codes dim"]) -> Float[Tensor, "codes twice_dim"]:
    r"""Encode numbers so that the norm tells nothing of them.

    :math:`[\cos(\pi z / 2); \sin(\pi z / 2)]`: its norm is the root of ``dim``.

    Args:
        z_XD: Numbers in [0, 1].

    Example:
        >>> constant_norm(torch.tensor([[0.0, 1.0], [0.5, 0.5]])).norm(dim=1)
        tensor([1.4142, 1.4142])
    """
    angle_XD = z_XD * (math.pi / 2)
    return torch.cat([angle_XD.cos(), angle_XD.sin()], dim=1)


@final
class Hypernetwork(nn.Module):
    r"""Predicts tensors from a code: :math:`\theta = \theta_0 + h(E(z))`.

    :math:`h` is an MLP with LeakyReLU, :math:`E` is ``constant_norm`` and
    :math:`\theta_0` are parameters of their own. A plain hypernetwork,
    :math:`\theta = h(z)`, is homogeneous while its biases are zero: what it predicts,
    and the gradients, scale with the code. Both changes take that away.

    Args:
        dim: Numbers of a code.
        hidden: Widths of the layers before the last, in order; at least one.
        start: One tensor for each to predict, as the ordinary network would start:
            the shapes, and the start of :math:`\theta_0`.
        invariant: False gives the plain hypernetwork, for comparison; of ``start``
            it then takes the shapes only.

    Shape:
        - z_XD: ``(codes, dim)``, numbers in [0, 1]
        - return: for each tensor ``(codes, *its shape)``

    Deviations:
        :math:`\theta_0` is stored tensor by tensor, in the authors' code as the bias
        of the last layer; the arithmetic is the same. The plain one has that bias too,
        starting at zero. The authors' code tells biases by name and lets them start at
        zero for every code; here it is tensors that start at zero. Whether codes lie
        in [0, 1] is not checked at run time.

    References:
        Gonzalez Ortiz, Guttag, Dalca, "Magnitude Invariant Parametrizations Improve
        Hypernetwork Learning", ICLR 2024, arXiv:2304.07645.

    Example:
        >>> predict = Hypernetwork(2, (8,), [torch.ones(3), torch.zeros(4, 3)])
        >>> [tensor.shape for tensor in predict(torch.rand(5, 2))]
        [torch.Size([5, 3]), torch.Size([5, 4, 3])]
    """

    def __init__(
        self,
        dim: int,
        hidden: tuple[int, ...],
        start: Sequence[Tensor],
        *,
        invariant: bool = True,
    ) -> None:
        super().__init__()
        self.invariant = invariant
        fan_in = 2 * dim if invariant else dim
        self.layers = nn.ModuleList(
            nn.Linear(width_in, width_out)
            for width_in, width_out in zip((fan_in, *hidden), hidden, strict=False)
        )
        for layer in self.layers.children():
            assert isinstance(layer, nn.Linear)
            _kaiming(layer.weight)
            nn.init.zeros_(layer.bias)
        self.sizes = [tensor.numel() for tensor in start]
        last_HG = torch.empty(sum(self.sizes), hidden[-1])
        # The fan-out of a layer is that of one predicted tensor, not of all together;
        # and what starts at zero, a bias, is to start there for every code.
        for rows_HG, tensor in zip(
            last_HG.split_with_sizes(self.sizes), start, strict=True
        ):
            if tensor.any():
                _kaiming(rows_HG)
            else:
                nn.init.zeros_(rows_HG)
        self.last_HG = nn.Parameter(last_HG)
        self.start = nn.ParameterList(
            tensor.detach().clone() if invariant else torch.zeros_like(tensor)
            for tensor in start
        )

    def forward(
        self, z_XD: Float[Tensor, "codes dim"]
    ) -> tuple[Float[Tensor, "codes ..."], ...]:
        h_XG = constant_norm(z_XD) if self.invariant else z_XD
        for layer in self.layers:
            h_XG = F.leaky_relu(layer(h_XG), _SLOPE)
        change_XH = F.linear(h_XG, self.last_HG)
        changes = change_XH.split_with_sizes(self.sizes, dim=1)
        return tuple(
            start + change.view(z_XD.shape[0], *start.shape)
            for start, change in zip(self.start, changes, strict=True)
        )


def _kaiming(weight_HG: Tensor) -> None:
    nn.init.kaiming_normal_(weight_HG, _SLOPE, "fan_out", "leaky_relu")
