"""What magnitude-invariant parametrizations are worth: steps to the same loss.

    python benchmarks/hypernetwork.py
    python benchmarks/hypernetwork.py --seeds 2 --steps 400 --plot ""  # a short look

A hypernetwork reads one number z in [0, 1] and predicts all weights of a network of
four layers, which is to regress a mixture of y1 and y2, random networks of 8 numbers:
``line`` z y1 + (1 - z) y2, a preference between two tasks, or ``circle``
cos(2 pi z) y1 + sin(2 pi z) y2. It is trained twice, with magnitude-invariant
parametrizations and plain: same widths, rows, codes, Adam, rate and seeds.

Prints one JSON line a mixture, rate and kind: the median over seeds of the steps to
each loss (null where most never came there) and of the last loss, as shares of the
variance; and draws the curves of one rate.
"""

import argparse
import itertools
import json
import statistics
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from recsys_mtl.model.hypernetwork import Hypernetwork

_WIDTHS = (8, 32, 32, 32, 1)
_HIDDEN = (16, 64, 128)
_CODES, _ROWS = 32, 32
_CHECK_EVERY = 20
_LOSSES = (0.5, 0.2, 0.1, 0.05)
_MIXTURES = ("line", "circle")
_RATES = (1e-3, 3e-3)
_DRAWN_RATE = 1e-3
_KINDS = {"magnitude invariant": True, "plain": False}


class Task:
    """Two random networks, and rows with codes that mix them.

    Args:
        mixture: How.
        seed: Of both.
    """

    def __init__(self, mixture: str, seed: int) -> None:
        self._mixture = mixture
        self._rng = torch.Generator().manual_seed(seed)
        self._inner = torch.randn(2, _WIDTHS[0], 16, generator=self._rng) / 2
        self._outer = torch.randn(2, 16, 1, generator=self._rng) / 4

    def rows(self, codes: int, rows: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draw codes, and for each of them inputs and targets."""
        z = torch.rand(codes, 1, generator=self._rng)
        x = torch.randn(codes, rows, _WIDTHS[0], generator=self._rng)
        first, second = (
            (2 * x @ inner).tanh() @ outer
            for inner, outer in zip(self._inner, self._outer, strict=True)
        )
        if self._mixture == "line":
            return z, x, z[:, None] * first + (1 - z[:, None]) * second
        angle = 2 * torch.pi * z[:, None]
        return z, x, angle.cos() * first + angle.sin() * second


def start() -> list[Tensor]:
    """Draw the ordinary start of the predicted network: weight, bias, weight, ..."""
    tensors = []
    for fan_in, fan_out in pairwise(_WIDTHS):
        weight = nn.init.kaiming_normal_(torch.empty(fan_out, fan_in))
        tensors += [weight, torch.zeros(fan_out)]
    return tensors


def loss(network: nn.Module, z: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Mean squared error of what the predicted networks say."""
    tensors = network(z)
    for weight, bias in zip(tensors[::2], tensors[1::2], strict=True):
        said = torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))
        x = said.relu()
    return (said - y).square().mean()


def curve(task: Task, seed: int, steps: int, rate: float, kind: str) -> list[float]:
    """Train once; give the share of the variance left, at every check."""
    held_out = task.rows(64, 256)
    torch.manual_seed(seed)
    network = Hypernetwork(1, _HIDDEN, start(), invariant=_KINDS[kind])
    optimizer = torch.optim.Adam(network.parameters(), rate)
    left = []
    for step in range(steps + 1):
        if step % _CHECK_EVERY == 0:
            with torch.no_grad():
                left.append(float(loss(network, *held_out) / held_out[2].var()))
        optimizer.zero_grad()
        loss(network, *task.rows(_CODES, _ROWS)).backward()
        optimizer.step()
    return left


def steps_to(target: float, left: list[float]) -> float:
    """Find the first check at ``target`` or below; infinite if there is none."""
    found = (n * _CHECK_EVERY for n, value in enumerate(left) if value <= target)
    return next(found, float("inf"))


def summary(curves: list[list[float]]) -> dict:
    """Take medians over seeds."""
    steps = {
        str(target): statistics.median(steps_to(target, left) for left in curves)
        for target in _LOSSES
    }
    return {
        "steps_to_loss": {
            k: None if v == float("inf") else v for k, v in steps.items()
        },
        "last_loss": round(statistics.median(left[-1] for left in curves), 4),
    }


def draw(path: Path, drawn: dict[str, dict[str, list[list[float]]]]) -> None:
    """Draw the median curves of each kind, and the range over seeds, by mixture."""
    figure = Figure(figsize=(7.2, 2.8), layout="constrained")
    for axes, (mixture, curves) in zip(
        figure.subplots(1, len(drawn), sharey=True), drawn.items(), strict=True
    ):
        for (kind, runs), colour in zip(curves.items(), ("C0", "C1"), strict=True):
            values = np.array(runs)
            steps = np.arange(values.shape[1]) * _CHECK_EVERY
            low, middle, high = np.quantile(values, [0.0, 0.5, 1.0], axis=0)
            axes.fill_between(steps, low, high, color=colour, alpha=0.2, lw=0)
            axes.plot(steps, middle, color=colour, lw=1.4, label=kind)
        axes.set(title=mixture, yscale="log", xlabel="step")
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("share of the variance left")
    figure.axes[0].legend(frameon=False)
    figure.savefig(path, dpi=100, metadata={"Software": None})


def main() -> None:
    """Train all, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1_000)
    default = Path(__file__).parents[1] / "docs" / "hypernetwork.png"
    parser.add_argument("--plot", default=str(default), help="empty for none")
    options = parser.parse_args()
    torch.set_num_threads(1)
    drawn: dict[str, dict[str, list[list[float]]]] = {m: {} for m in _MIXTURES}
    for mixture, rate, kind in itertools.product(_MIXTURES, _RATES, _KINDS):
        runs = [
            curve(Task(mixture, seed), seed, options.steps, rate, kind)
            for seed in range(options.seeds)
        ]
        figures = {"mixture": mixture, "rate": rate, "kind": kind}
        print(json.dumps(figures | summary(runs)), flush=True)
        if rate == _DRAWN_RATE:
            drawn[mixture][kind] = runs
    if options.plot:
        draw(Path(options.plot), drawn)


if __name__ == "__main__":
    main()
