"""What a run tells while it goes: a progress line, TensorBoard, ``history.json``."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import final

from torch.utils.tensorboard.writer import SummaryWriter

from recsys_mtl.progress import OnProgress, Progress
from recsys_mtl.train.state import Check

__all__ = ["Events", "Meter"]

_INTERVAL_S = 0.2
"""Between two signs of life; more would flicker and cost."""


@final
class Events:
    """Writes checks to ``<run_dir>/events`` and ``<run_dir>/history.json``.

    Args:
        run_dir: Of one run.
        step: Where the run goes on; later events of an interrupted run are dropped.
    """

    def __init__(self, run_dir: Path, step: int) -> None:
        self._history = run_dir / "history.json"
        run_dir.mkdir(parents=True, exist_ok=True)
        self._writer = SummaryWriter(run_dir / "events", purge_step=step + 1)

    def write(self, checks: Sequence[Check]) -> None:
        """Write the newest check, and the whole history beside it."""
        check = checks[-1]
        for task, loss in check.train_loss.items():
            self._writer.add_scalar(f"train_loss/{task}", loss, check.step)
        for task, metrics in check.metrics.items():
            for name, value in metrics.items():
                self._writer.add_scalar(f"valid/{task}.{name}", value, check.step)
        for task, others in check.gradient_cosines.items():
            for other, cosine in others.items():
                name = f"gradient_cosine/{task}.{other}"
                self._writer.add_scalar(name, cosine, check.step)
        for group, rate in enumerate(check.learning_rates):
            self._writer.add_scalar(f"learning_rate/{group}", rate, check.step)
        self._writer.add_scalar("rows_per_s", check.rows_per_s, check.step)
        self._writer.flush()
        temporary = self._history.with_suffix(".tmp")
        temporary.write_text(json.dumps([c.model_dump() for c in checks], indent=1))
        temporary.replace(self._history)

    def close(self) -> None:
        """Release the file."""
        self._writer.close()


@final
class Meter:
    """Turns steps into a few progress lines a second.

    Args:
        on_progress: Listener.
        total: Rows of all epochs; early stopping may leave some out.
    """

    def __init__(self, on_progress: OnProgress, total: int) -> None:
        self._on_progress = on_progress
        self._total = total
        self._start: tuple[float, int] | None = None
        self._last = 0.0

    def tell(self, rows: int, loss: Callable[[], Mapping[str, float]]) -> None:
        """Tell of ``rows`` read so far, if it is time or they are all."""
        now = time.monotonic()
        if self._start is None:
            self._start = now, rows
            return
        if now - self._last < _INTERVAL_S and rows < self._total:
            return
        self._last = now
        rate = (rows - self._start[1]) / max(now - self._start[0], 1e-9)
        left = round((self._total - rows) / rate) if rate > 0 else 0
        note = (
            f"loss {sum(loss().values()):.4f}, {rate:,.0f} rows/s, "
            f"{left // 60}:{left % 60:02d} left"
        )
        self._on_progress(Progress("train", rows, self._total, note))
