"""A layer, a normalisation and an MLP for every task, computed together."""

import contextlib
from collections.abc import Callable, Iterator
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from recsys_mtl.model.dropout import dropout
from recsys_mtl.model.split_rows import SplitRows

__all__ = ["TaskBatchNorm", "TaskLinear", "TaskLogits", "TaskMLP", "exact_products"]

Init = Callable[[Tensor], object]
"""Fills one matrix, of shape ``(out, in)``, in place."""


@final
class TaskLinear(nn.Module):
    r"""Gives every task its own affine map, :math:`W_t h_t + b_t`.

    Args:
        dim: Width of the input.
        hidden: Width of the output.
        num_tasks: Number of tasks.
        init: Start of each matrix; biases start at 0.

    Shape:
        - h_TBG: ``(tasks, batch, dim)``, or split rows that all tasks share
        - return: ``(tasks, batch, hidden)``

    Example:
        >>> TaskLinear(4, 3, num_tasks=2)(torch.randn(2, 5, 4)).shape
        torch.Size([2, 5, 3])
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        *,
        num_tasks: int,
        init: Init = nn.init.xavier_uniform_,
    ) -> None:
        super().__init__()
        self.weight_THG = nn.Parameter(torch.empty(num_tasks, hidden, dim))
        self.bias_TH = nn.Parameter(torch.zeros(num_tasks, hidden))
        with torch.no_grad():
            for weight_HG in self.weight_THG:
                init(weight_HG)

    def forward(
        self, h_TBG: Float[Tensor, "tasks batch dim"] | SplitRows
    ) -> Float[Tensor, "tasks batch hidden"]:
        if isinstance(h_TBG, SplitRows):
            h_BX = h_TBG.linear(self.weight_THG, self.bias_TH)
            return h_BX.view(-1, *self.bias_TH.shape).transpose(0, 1)
        if len(self.weight_THG) == 1:
            # A product of two matrices is faster than a batch of one such product. And
            # indexing by 0 would copy in the backward pass; this does not.
            weight_HG = self.weight_THG.flatten(0, 1)
            return F.linear(h_TBG.flatten(0, 1), weight_HG, self.bias_TH.flatten())[
                None
            ]
        weight_TGH = self.weight_THG.transpose(1, 2)
        return torch.baddbmm(self.bias_TH[:, None], h_TBG, weight_TGH)


@final
class TaskBatchNorm(nn.Module):
    r"""Standardises every unit of every task over the rows of the batch.

    While training :math:`y = \gamma (x - \mu) / \sqrt{\sigma^2 + \epsilon} + \beta`
    with the batch's own mean and variance, of which running averages are kept;
    afterwards with those averages. Each worker of several goes by its own rows.

    Args:
        num_tasks: Number of tasks.
        dim: Units of a task.
        eps: Added to variances.
        momentum: Weight of the newest batch in the running averages.

    Shape:
        - h_TBH: ``(tasks, batch, dim)``
        - return: as the input

    Deviations:
        - A batch of a single row, which has no variance, goes by the running averages
          in training too, and leaves them alone.

    References:
        S. Ioffe, C. Szegedy. Batch normalization: accelerating deep network training
        by reducing internal covariate shift. ICML 2015. arXiv:1502.03167

    Example:
        >>> norm = TaskBatchNorm(num_tasks=2, dim=3)
        >>> norm(torch.randn(2, 50, 3)).mean(1).abs().max() < 1e-5
        tensor(True)
    """

    def __init__(
        self, num_tasks: int, dim: int, *, eps: float = 1e-5, momentum: float = 0.1
    ) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.weight_TH = nn.Parameter(torch.ones(num_tasks, dim))
        self.bias_TH = nn.Parameter(torch.zeros(num_tasks, dim))
        self.mean_TH: Tensor
        self.var_TH: Tensor
        self.register_buffer("mean_TH", torch.zeros(num_tasks, dim))
        self.register_buffer("var_TH", torch.ones(num_tasks, dim))

    def forward(
        self, h_TBH: Float[Tensor, "tasks batch dim"]
    ) -> Float[Tensor, "tasks batch dim"]:
        num_tasks, num_rows, dim = h_TBH.shape
        # All units of all tasks side by side; of one task this copies nothing. As an
        # image of one line whose channels come last it takes half the time on a CPU.
        h_BX = h_TBH.transpose(0, 1).reshape(num_rows, num_tasks * dim)
        y_1X1B = F.batch_norm(
            h_BX[None, None].permute(0, 3, 1, 2),
            self.mean_TH.flatten(),
            self.var_TH.flatten(),
            self.weight_TH.flatten(),
            self.bias_TH.flatten(),
            self.training and num_rows > 1,
            self.momentum,
            self.eps,
        )
        y_BTH = y_1X1B.permute(0, 2, 3, 1).view(num_rows, num_tasks, dim)
        return y_BTH.transpose(0, 1)


@final
class TaskMLP(nn.Module):
    r"""Runs a ReLU MLP of one shape per task; the last layer too ends in a ReLU.

    Layer by layer :math:`h \leftarrow \mathrm{dropout}(\phi(W_t h + b_t))`, or
    :math:`\phi(\mathrm{BN}(W_t h + b_t))` with batch normalisation.

    Args:
        dim: Width of the input.
        hidden: Widths of the layers, in order; at least one.
        num_tasks: Number of tasks.
        dropout: Probability to drop a hidden unit while training.
        batch_norm: Whether each layer is standardised before its ReLU.
        init: Start of each matrix; biases start at 0.

    Shape:
        - h_TBG: ``(tasks, batch, dim)``, or split rows that all tasks share
        - return: ``(tasks, batch, hidden[-1])``

    Example:
        >>> TaskMLP(4, (8, 3), num_tasks=2)(torch.randn(2, 5, 4)).shape
        torch.Size([2, 5, 3])
    """

    def __init__(
        self,
        dim: int,
        hidden: tuple[int, ...],
        *,
        num_tasks: int,
        dropout: float = 0.0,
        batch_norm: bool = False,
        init: Init = nn.init.xavier_uniform_,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        widths = zip((dim, *hidden), hidden, strict=False)
        self.layers = nn.ModuleList(
            TaskLinear(fan_in, fan_out, num_tasks=num_tasks, init=init)
            for fan_in, fan_out in widths
        )
        self.norms = nn.ModuleList(
            TaskBatchNorm(num_tasks, width) if batch_norm else nn.Identity()
            for width in hidden
        )

    def forward(
        self, h_TBG: Float[Tensor, "tasks batch dim"] | SplitRows
    ) -> Float[Tensor, "tasks batch hidden"]:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            # Not in place: of a view that would cost a copy in the backward pass.
            h_TBH: Tensor = norm(layer(h_TBG)).relu()
            h_TBG = h_TBH = dropout(h_TBH, self.dropout, self.training)
        return h_TBH


@final
class TaskLogits(nn.Module):
    r"""Ends every task: one affine map a logit, of its task's hidden vector.

    Args:
        dim: Width of the input.
        num_logits: Logits of each task.
        init: Start of each task's matrix; biases start at 0.

    Shape:
        - h_TBH: ``(tasks, batch, dim)``
        - return: ``(batch, all logits)``, the first task's first; float32 even under
          autocast

    Example:
        >>> TaskLogits(4, (1, 2))(torch.randn(2, 5, 4)).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        dim: int,
        num_logits: tuple[int, ...],
        *,
        init: Init = nn.init.xavier_uniform_,
    ) -> None:
        super().__init__()
        self.weight_XH = nn.Parameter(torch.empty(sum(num_logits), dim))
        self.bias_X = nn.Parameter(torch.zeros(sum(num_logits)))
        with torch.no_grad():
            for weight_CH in torch.split(self.weight_XH, list(num_logits)):
                init(weight_CH)
        self.repeat = LogitRepeat(num_logits)

    def start_at(self, logits: list[float]) -> None:
        """Set the biases."""
        with torch.no_grad():
            self.bias_X.copy_(torch.tensor(logits))

    def forward(
        self, h_TBH: Float[Tensor, "tasks batch dim"]
    ) -> Float[Tensor, "batch logits"]:
        with exact_products(self.repeat(h_TBH)) as h_XBH:
            logits_XB = torch.bmm(h_XBH, self.weight_XH[:, :, None])[:, :, 0]
            return logits_XB.t() + self.bias_X


@contextlib.contextmanager
def exact_products(h: Tensor) -> Iterator[Tensor]:
    """Give ``h`` in float32 to products that autocast leaves alone.

    For logits: the eight bits of bf16 are too few to tell similar candidates apart.
    """
    device = h.device.type
    if torch.is_autocast_enabled(device):
        with torch.autocast(device, enabled=False):
            yield h.float()
    else:
        yield h


@final
class LogitRepeat(nn.Module):
    """Repeats each task's vector once for each of its logits.

    Args:
        num_logits: Logits of each task.

    Shape:
        - h_TBH: ``(tasks, batch, dim)``
        - return: ``(all logits, batch, dim)``
    """

    def __init__(self, num_logits: tuple[int, ...]) -> None:
        super().__init__()
        self.places = [t for t, count in enumerate(num_logits) for _ in range(count)]
        self.alike = len(self.places) == len(num_logits)

    def forward(
        self, h_TBH: Float[Tensor, "tasks batch dim"]
    ) -> Float[Tensor, "logits batch dim"]:
        return h_TBH if self.alike else h_TBH[self.places]
