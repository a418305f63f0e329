"""How each task pulls: the directions of its gradient, and who receives it.

Embeddings are looked up without a gradient, so nothing that is updated inside a
backward pass is touched, and gradients are asked for, never accumulated.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.autograd
from jaxtyping import Float
from torch import Tensor

from recsys_mtl.data.batch import Batch
from recsys_mtl.model.gating import GateLevel
from recsys_mtl.model.network import Network

__all__ = ["Cosines", "Pull", "TaskGradients", "at_rest", "pull"]

Cosines = dict[str, dict[str, float]]
"""For each task and each later one, the cosine between their gradients."""


class Pull(NamedTuple):
    """What one batch says of every task.

    Attributes:
        levels: The gating's experts and gates, without their graph.
        gradients: For each task the gradient of the sum of its losses, a tensor a
            parameter of the trunk; ``None`` where the task does not reach it.
        squares: For each level ``(tasks, experts)``: the squared norm of the
            gradient of the sum of a task's losses with respect to an expert's output.
        loss_T: Mean loss of each task.
        count_T: Number of labels of each task.
    """

    levels: tuple[GateLevel, ...]
    gradients: list[list[Tensor | None]]
    squares: tuple[Float[Tensor, "tasks _"], ...]
    loss_T: Float[Tensor, " tasks"]
    count_T: Float[Tensor, " tasks"]


@contextmanager
def at_rest(network: Network) -> Iterator[None]:
    """Put a network into evaluation mode, with gradients to be asked for, and back.

    In evaluation mode nothing is drawn at random and no running statistic moves.
    """
    training = network.training
    wanted = [(p, p.requires_grad) for p in network.trunk.parameters()]
    network.eval()
    network.trunk.requires_grad_(requires_grad=True)
    try:
        yield
    finally:
        network.train(training)
        for parameter, before in wanted:
            parameter.requires_grad_(before)


def pull(network: Network, batch: Batch) -> Pull:
    """Find each task's gradient on one batch.

    The network must be ``at_rest``. With several workers all must call it together,
    because their lookups wait for each other.

    Args:
        network: On the batch's device.
        batch: With labels.
    """
    assert batch.label_BT is not None, "the batch has no labels"
    with torch.no_grad():
        fields_BFD, dense_BM, sequences, contexts, _ = network.embedding(batch)
    with torch.enable_grad():
        logits, levels = network.trunk.trace(fields_BFD, dense_BM, sequences, contexts)
        loss_T, count_T = network.loss_T(logits, batch.label_BT)
        parameters = list(network.trunk.parameters())
        outputs = [level.expert_BSEH for level in levels]
        gradients: list[list[Tensor | None]] = []
        squares: list[list[Tensor]] = [[] for _ in levels]
        for loss, count in zip(loss_T.unbind(), count_T.unbind(), strict=True):
            found = torch.autograd.grad(
                loss * count,
                [*parameters, *outputs],
                retain_graph=True,
                allow_unused=True,
            )
            gradients.append(list(found[: len(parameters)]))
            for place, gradient in enumerate(found[len(parameters) :]):
                squares[place].append(_squares(gradient, outputs[place]))
    return Pull(
        tuple(
            level._replace(
                weight_BTE=level.weight_BTE.detach(),
                expert_BSEH=level.expert_BSEH.detach(),
            )
            for level in levels
        ),
        gradients,
        tuple(torch.stack(of) for of in squares),
        loss_T.detach(),
        count_T.detach().float(),
    )


class TaskGradients:
    """Adds up each task's gradient over batches, and compares the tasks.

    Args:
        tasks: Names, in the order of the losses.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        self._tasks = tuple(tasks)
        self._sum: list[list[Tensor | None]] | None = None

    def add(self, gradients: list[list[Tensor | None]]) -> None:
        """Add those of one batch; see ``Pull``."""
        if self._sum is None:
            self._sum = gradients
            return
        self._sum = [
            [_plus(a, b) for a, b in zip(mine, new, strict=True)]
            for mine, new in zip(self._sum, gradients, strict=True)
        ]

    def cosines(self) -> Cosines:
        r"""Compare every two tasks on the parameters that both of them move.

        With :math:`g_t` the gradient of task :math:`t`,
        :math:`\cos_{tu} = \sum_i g_{ti} g_{ui} / \sqrt{\sum_{i: g_{ui} \ne 0} g_{ti}^2
        \sum_{i: g_{ti} \ne 0} g_{ui}^2}`, so a part of a parameter that is one task's
        alone, as its gate or tower, does not count.

        Returns:
            By task and by each later task; a pair that shares no moving parameter, or
            of which a task has no labels, is left out.
        """
        num_tasks = len(self._tasks)
        dot_TT = torch.zeros(num_tasks, num_tasks, dtype=torch.float64)
        square_TT = torch.zeros_like(dot_TT)
        for parts in zip(*(self._sum or ()), strict=True):
            # Few parameters at a time: in float64, all would take much memory.
            reached = [t for t, part in enumerate(parts) if part is not None]
            if len(reached) < 2:
                continue
            gradient_RP = torch.stack(
                [part.flatten().double() for part in parts if part is not None]
            )
            moved_RP = (gradient_RP != 0).double()
            place = torch.tensor(reached)
            pair = place[:, None], place
            dot_TT[pair] += (gradient_RP @ gradient_RP.T).cpu()
            square_TT[pair] += (gradient_RP.square() @ moved_RP.T).cpu()
        norm_TT = (square_TT * square_TT.T).sqrt()
        return {
            one: {
                other: max(-1.0, min(1.0, float(dot_TT[t, u] / norm_TT[t, u])))
                for u, other in enumerate(self._tasks[t + 1 :], start=t + 1)
                if norm_TT[t, u] > 0
            }
            for t, one in enumerate(self._tasks[:-1])
        }


def _squares(
    gradient_BSEH: Tensor | None, expert_BSEH: Tensor
) -> Float[Tensor, " experts"]:
    if gradient_BSEH is None:
        return expert_BSEH.new_zeros(expert_BSEH.shape[2])
    return gradient_BSEH.detach().float().square().sum((0, 1, 3))


def _plus(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return one if other is None else other
    return one + other
