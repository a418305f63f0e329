"""What magnitude-invariant parametrizations are worth: steps to the same loss.

    python benchmarks/hypernetwork.py
    python benchmarks/hypernetwork.py --seeds 1 --steps 20 --plot ""  # does it run

A hypernetwork reads one number z in [0, 1] and predicts all weights of a network of
four layers, for four tasks:

``smoothing``  digits of 8 x 8 pixels, whose labels are smoothed by z: the loss is the
               divergence from (1 - z) one-hot + z / 10.
``reversed``   the same with 1 - z for z, as a plain hypernetwork predicts the largest
               weights at z = 1, where ``smoothing`` wants the smallest.
``decay``      the same digits; (1 - z) cross-entropy + z |weights|^2 / 100.
``mixture``    a regression on z y1 + (1 - z) y2, random networks of 8 numbers.

Three kinds of it are trained, by SGD with momentum 0.9 and by Adam, with the same
widths, rows, codes and seeds: with magnitude-invariant parametrizations (MIP), plain,
and plain with a last layer rescaled, so that at z = 1 it predicts weights as large as
those an ordinary network starts with. ``--kinds`` can name each half of MIP as well.
Every kind gets the learning rate, of the same list, at which the mean of its log loss
over the steps is least with another seed.

Prints JSON lines. One each for MIP and plain: variance of the predicted weights and
squared norm of gradients by z, before any step. One a task and kind, all five: how much
the loss's gradient differs between codes before any step, E|g - Eg|^2 / |Eg|^2, median
over ten networks. One a task, optimizer and kind: the rate, the steps to each loss
(median over seeds, least, most; null where a run never came there) and the last loss
(median), on 200 training rows at each of 11 values of z. Draws the first and the last.
"""

import argparse
import itertools
import json
import statistics
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor, nn

from recsys_mtl.model.hypernetwork import Hypernetwork

_HIDDEN = (16, 64, 128)
_CODES, _ROWS, _MEASURED_ROWS = 8, 32, 200
_CHECK_EVERY = 20
_TUNING_SEED = 1_000
_NETWORKS_BY_Z, _NETWORKS_A_TASK = 100, 10
_RATES = {
    "sgd": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3),
    "adam": (0.0003, 0.001, 0.003, 0.01),
}
_KINDS = ("MIP", "plain", "plain, rescaled", "encoding only", "residual only")
_GRID_X1 = torch.linspace(0, 1, 11)[:, None]


class Rows(NamedTuple):
    """Codes, and for each of them inputs and targets."""

    z_X1: Tensor
    x_XBD: Tensor
    y: Tensor


@cache
def _load_digits() -> tuple[Tensor, Tensor]:
    pixels, digits = load_digits(return_X_y=True)
    x_ND = torch.tensor(pixels, dtype=torch.float32)
    return (x_ND - x_ND.mean()) / x_ND.std(), torch.tensor(digits)


class Digits:
    """Handwritten digits, 1,797 of them."""

    widths = (64, 16, 16, 16, 10)

    def __init__(self, seed: int) -> None:
        self._x_ND, self._y_N = _load_digits()
        self._rng = torch.Generator().manual_seed(seed)

    def draw(self, z_X1: Tensor, rows: int) -> Rows:
        """Draw rows for each code."""
        shape = (len(z_X1), rows)
        drawn = torch.randint(len(self._y_N), shape, generator=self._rng)
        return Rows(z_X1, self._x_ND[drawn], self._y_N[drawn])


class Mixture:
    """Two random networks, mixed by the code."""

    widths = (8, 16, 16, 16, 1)

    def __init__(self, seed: int) -> None:
        self._rng = torch.Generator().manual_seed(seed)
        self._inner = torch.randn(2, 8, 16, generator=self._rng) / 2
        self._outer = torch.randn(2, 16, 1, generator=self._rng) / 4

    def draw(self, z_X1: Tensor, rows: int) -> Rows:
        """Draw rows for each code."""
        x_XBD = torch.randn(len(z_X1), rows, 8, generator=self._rng)
        first, second = (
            (2 * x_XBD @ inner).tanh() @ outer
            for inner, outer in zip(self._inner, self._outer, strict=True)
        )
        z_X11 = z_X1[:, :, None]
        return Rows(z_X1, x_XBD, z_X11 * first + (1 - z_X11) * second)


def apply(tensors: Sequence[Tensor], x_XBD: Tensor) -> Tensor:
    """Run each code's network on its rows."""
    *inner, last = zip(tensors[::2], tensors[1::2], strict=True)
    for weight, bias in inner:
        x_XBD = torch.baddbmm(bias[:, None], x_XBD, weight.transpose(1, 2)).relu()
    weight, bias = last
    return torch.baddbmm(bias[:, None], x_XBD, weight.transpose(1, 2))


def smoothing_X(tensors: Sequence[Tensor], rows: Rows) -> Tensor:
    """Classify, the less sure the larger z."""
    z_X11 = rows.z_X1[:, :, None]
    target_XBC = F.one_hot(rows.y, 10) * (1 - z_X11) + z_X11 / 10
    log_prob_XBC = apply(tensors, rows.x_XBD).log_softmax(-1)
    return F.kl_div(log_prob_XBC, target_XBC, reduction="none").sum(-1).mean(1)


def reversed_X(tensors: Sequence[Tensor], rows: Rows) -> Tensor:
    """Classify, the surer the larger z."""
    return smoothing_X(tensors, rows._replace(z_X1=1 - rows.z_X1))


def decay_X(tensors: Sequence[Tensor], rows: Rows) -> Tensor:
    """Classify, with the smaller weights the larger z."""
    logits_XCB = apply(tensors, rows.x_XBD).transpose(1, 2)
    fit_X = F.cross_entropy(logits_XCB, rows.y, reduction="none").mean(1)
    size_X = torch.stack([w.square().sum((1, 2)) for w in tensors[::2]]).sum(0)
    z_X = rows.z_X1[:, 0]
    return (1 - z_X) * fit_X + z_X * size_X / 100


def mixture_X(tensors: Sequence[Tensor], rows: Rows) -> Tensor:
    """Regress."""
    return (apply(tensors, rows.x_XBD) - rows.y).square().mean((1, 2))


class Task(NamedTuple):
    """What predicted networks are to do.

    Attributes:
        data: What they read.
        loss_X: One loss a code.
        targets: Losses to count the steps to.
    """

    data: type[Digits] | type[Mixture]
    loss_X: Callable[[Sequence[Tensor], Rows], Tensor]
    targets: tuple[float, ...]


_TASKS = {
    "smoothing": Task(Digits, smoothing_X, (0.4, 0.2, 0.1, 0.05)),
    "reversed": Task(Digits, reversed_X, (0.4, 0.2, 0.1, 0.05)),
    "decay": Task(Digits, decay_X, (1.0, 0.6, 0.4, 0.3)),
    "mixture": Task(Mixture, mixture_X, (0.4, 0.2, 0.1, 0.05)),
}


def build(widths: tuple[int, ...], kind: str, seed: int) -> Hypernetwork:
    """Draw a hypernetwork; first the ordinary start of what it predicts."""
    torch.manual_seed(seed)
    start = []
    for fan_in, fan_out in pairwise(widths):
        weight = nn.init.kaiming_normal_(torch.empty(fan_out, fan_in))
        start += [weight, torch.zeros(fan_out)]
    encodes = kind in {"MIP", "encoding only"}
    network = Hypernetwork(1, _HIDDEN, start, invariant=encodes)
    keeps_start = kind in {"MIP", "residual only"}
    with torch.no_grad():
        for own, ordinary in zip(network.start, start, strict=True):
            own.copy_(ordinary if keeps_start else torch.zeros_like(ordinary))
        if kind == "plain, rescaled":
            parts = torch.split_with_sizes(network.last_HG, network.sizes)
            predicted = network(torch.ones(1, 1))
            for rows_HG, tensor, ordinary in zip(parts, predicted, start, strict=True):
                if ordinary.any():
                    rows_HG.mul_(ordinary.norm() / tensor.norm())
    return network


def curve(
    name: str, optimizer: str, kind: str, *, rate: float, seed: int, steps: int
) -> np.ndarray:
    """Train once; give the loss at every check, infinity from where it diverges."""
    task = _TASKS[name]
    data = task.data(seed)
    network = build(data.widths, kind, seed)
    # Of their own, as kinds draw differently many numbers for their weights.
    codes = torch.Generator().manual_seed(seed)
    measured = data.draw(_GRID_X1, _MEASURED_ROWS)
    stepper: torch.optim.Optimizer
    if optimizer == "sgd":
        stepper = torch.optim.SGD(network.parameters(), rate, momentum=0.9)
    else:
        stepper = torch.optim.Adam(network.parameters(), rate, fused=True)
    losses = np.full(steps // _CHECK_EVERY + 1, np.inf)
    for step in range(steps + 1):
        if step % _CHECK_EVERY == 0:
            with torch.no_grad():
                loss = float(task.loss_X(network(_GRID_X1), measured).mean())
            if not loss < 1e6:
                break
            losses[step // _CHECK_EVERY] = loss
        rows = data.draw(torch.rand(_CODES, 1, generator=codes), _ROWS)
        stepper.zero_grad()
        torch.autograd.backward(task.loss_X(network(rows.z_X1), rows).mean())
        stepper.step()
    return losses


def tuned(name: str, optimizer: str, kind: str, steps: int) -> float:
    """Find the best rate: the least mean log loss, with a seed of its own."""

    def mean_log_loss(rate: float) -> float:
        losses = curve(name, optimizer, kind, rate=rate, seed=_TUNING_SEED, steps=steps)
        return float(np.log(np.minimum(losses, 1e6)).mean())

    return min(_RATES[optimizer], key=mean_log_loss)


def magnitudes(kind: str) -> dict[str, np.ndarray]:
    """Measure predicted weights and gradients by z, before any step.

    Returns:
        ``variance``: mean square of what is predicted beside the independent weights;
        ``gradient``: squared norm of the gradient of the hypernetwork's weights, of
        the predicted ones along a random direction. At the codes above 0, means over
        many networks, over the mean of all codes.
    """
    found: dict[str, list[list[float]]] = {"variance": [], "gradient": []}
    for seed in range(_NETWORKS_BY_Z):
        network = build(Digits.widths, kind, seed)
        named = dict(network.named_parameters())
        weights = [named[name] for name in named if name.endswith(("weight", "_HG"))]
        directions = [torch.randn_like(start) for start in network.start]
        squares, gradients = [], []
        for z_X1 in torch.split(_GRID_X1[1:], 1):
            pairs = zip(network(z_X1), network.start, strict=True)
            changes = [tensor - start for tensor, start in pairs]
            flat = torch.cat([change.flatten() for change in changes])
            squares.append(float(flat.detach().square().mean()))
            along = sum((c * d).sum() for c, d in zip(changes, directions, strict=True))
            parts = torch.autograd.grad(along, weights)
            gradients.append(sum(float(part.square().sum()) for part in parts))
        found["variance"].append(squares)
        found["gradient"].append(gradients)
    means = {what: np.mean(values, axis=0) for what, values in found.items()}
    return {what: values / values.mean() for what, values in means.items()}


def gradient_variance(name: str, kind: str) -> float:
    """Measure how much the loss's gradient differs between codes, before any step."""
    task, found = _TASKS[name], []
    for seed in range(_NETWORKS_A_TASK):
        data = task.data(seed)
        network = build(data.widths, kind, seed)
        parameters = list(network.parameters())
        rows = data.draw(_GRID_X1, _MEASURED_ROWS)
        gradients = []
        for loss in task.loss_X(network(rows.z_X1), rows):
            parts = torch.autograd.grad(loss, parameters, retain_graph=True)
            gradients.append(torch.cat([part.flatten() for part in parts]))
        g_XP = torch.stack(gradients)
        mean_P = g_XP.mean(0)
        spread = (g_XP - mean_P).square().sum(1).mean()
        found.append(float(spread / mean_P.square().sum()))
    return statistics.median(found)


def summary(targets: tuple[float, ...], runs: np.ndarray) -> dict[str, object]:
    """Count steps to each loss: median, least and most over seeds."""
    steps = {}
    for target in targets:
        found = [np.flatnonzero(run <= target) for run in runs]
        reached = [n[0] * _CHECK_EVERY if len(n) else np.inf for n in found]
        middle = (statistics.median(reached), min(reached), max(reached))
        steps[str(target)] = [None if np.isinf(n) else int(n) for n in middle]
    last = statistics.median(float(run[-1]) for run in runs)
    return {"steps_to_loss": steps, "last_loss": round(last, 4)}


def draw_curves(axes: Axes, curves: dict[str, np.ndarray]) -> None:
    """Draw the median of each kind, and of two the range over seeds."""
    for number, (kind, runs) in enumerate(curves.items()):
        steps = np.arange(len(runs[0])) * _CHECK_EVERY
        low, middle, high = np.sort(runs, axis=0)[[0, len(runs) // 2, -1]]
        colour, main = f"C{number}", number < 2
        if main:
            axes.fill_between(steps, low, high, color=colour, alpha=0.2, lw=0)
        style = "-" if main else "--"
        axes.plot(
            steps, middle, style, color=colour, lw=1.6 if main else 0.9, label=kind
        )
    axes.set(yscale="log")


def draw(
    path: Path,
    curves: dict[tuple[str, str], dict[str, np.ndarray]],
    sizes: dict[str, dict[str, np.ndarray]],
) -> None:
    """Draw curves by optimizer and task, and on the right magnitudes by z."""
    figure = Figure(figsize=(12.5, 5.2), layout="constrained")
    grid = figure.subplots(2, len(_TASKS) + 1)
    for row, optimizer in zip(grid, _RATES, strict=True):
        for axes, name in zip(row, _TASKS, strict=False):
            draw_curves(axes, curves[optimizer, name])
            axes.set_title(f"{name}, {optimizer}", fontsize=9)
        row[0].set_ylabel("loss")
    for axes in grid[1, :-1]:
        axes.set_xlabel("step")
    for axes, what in zip(grid[:, -1], ("variance", "gradient"), strict=True):
        for kind, values in sizes.items():
            axes.plot(_GRID_X1[1:, 0], values[what], lw=1.6, label=kind)
        axes.set(yscale="log", ylim=(0.01, 10))
        axes.set_title(f"{what} by z, before any step", fontsize=9)
    grid[1, -1].set_xlabel("z")
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=7, which="both")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=5, frameon=False, fontsize=9
    )
    figure.savefig(path, dpi=100, metadata={"Software": None})


def main() -> None:
    """Measure, train all, print, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", default=_KINDS[:3], choices=_KINDS)
    parser.add_argument("--steps", type=int, default=200)
    default = Path(__file__).parents[1] / "docs" / "hypernetwork.png"
    parser.add_argument("--plot", default=str(default), help="empty for none")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes = {kind: magnitudes(kind) for kind in _KINDS[:2]}
    for kind, values in sizes.items():
        told = {what: v.round(4).tolist() for what, v in values.items()}
        print(json.dumps({"kind": kind, "start, by z": told}), flush=True)
    for name, kind in itertools.product(_TASKS, _KINDS):
        spread = round(gradient_variance(name, kind), 3)
        print(
            json.dumps({"task": name, "kind": kind, "gradient_variance": spread}),
            flush=True,
        )
    curves: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    for kind, name, optimizer in itertools.product(options.kinds, _TASKS, _RATES):
        rate = tuned(name, optimizer, kind, options.steps)
        runs = np.stack(
            [
                curve(name, optimizer, kind, rate=rate, seed=seed, steps=options.steps)
                for seed in range(options.seeds)
            ]
        )
        figures = {"task": name, "optimizer": optimizer, "kind": kind, "rate": rate}
        told = figures | summary(_TASKS[name].targets, runs)
        print(json.dumps(told), flush=True)
        curves.setdefault((optimizer, name), {})[kind] = runs
    if options.plot:
        draw(Path(options.plot), curves, sizes)


if __name__ == "__main__":
    main()
