"""The training loop: epochs of steps, and checks that steer them."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from operator import add
from pathlib import Path
from types import FrameType
from typing import final

import torch
import torch.distributed as dist

from recsys_mtl.config.recipe import Recipe
from recsys_mtl.data.batch import Batch
from recsys_mtl.data.reader import FeatureReader
from recsys_mtl.evaluate.metric import evaluate_tasks
from recsys_mtl.features.manifest import FeatureManifest
from recsys_mtl.model.network import Network
from recsys_mtl.progress import OnProgress, silent
from recsys_mtl.train.checkpoint import Checkpointer, build
from recsys_mtl.train.device import DeviceName, check_precision, find_device
from recsys_mtl.train.events import Events, Meter
from recsys_mtl.train.heap import steady_heap, trim_heap
from recsys_mtl.train.optimizer import Optimizer
from recsys_mtl.train.predict import predict
from recsys_mtl.train.probe import Probe
from recsys_mtl.train.quiet import quiet
from recsys_mtl.train.schedule import Schedule
from recsys_mtl.train.shard import process_group, shard
from recsys_mtl.train.state import Check, RunState, run_digest
from recsys_mtl.train.step import Stepper

__all__ = ["TrainResult", "train"]


@dataclass(frozen=True)
class TrainResult:
    """What a run came to.

    Attributes:
        checks: In order.
        best: The check whose weights were kept.
        dropped_rows: Rows an epoch left out; see ``FeatureReader``.
    """

    checks: tuple[Check, ...]
    best: Check
    dropped_rows: int

    @classmethod
    def of(cls, state: RunState) -> "TrainResult":
        """Sum up a finished run."""
        best = next(check for check in reversed(state.checks) if check.best)
        return cls(tuple(state.checks), best, state.dropped_rows)


def train(
    recipe: Recipe,
    tables: Path,
    run_dir: Path,
    *,
    on_progress: OnProgress = silent,
    device: DeviceName = "auto",
) -> TrainResult:
    """Fit the recipe's network to a feature-table folder.

    Inside a process group this is one worker of many, and a step has ``batch_size``
    rows a worker; else it is the only one. Writes ``checkpoint/`` with the best
    weights, ``events/`` for TensorBoard and ``history.json`` under ``run_dir``. A run
    that was stopped continues from its checkpoint, and comes to the same weights as if
    it had not been stopped.

    Args:
        recipe: What to fit, and how.
        tables: Feature tables of this recipe.
        run_dir: Of this run alone.
        on_progress: Told of rows read, on the first worker.
        device: Where to compute.

    Raises:
        ArtifactError: ``run_dir`` holds another unfinished run, or tables are broken.
        DataError: A loss is not finite, or the metric of early stopping is undefined.
        EnvironmentFault: There is no such device, or it has no bf16.
        KeyboardInterrupt: Once the checkpoint is written.
    """
    place = find_device(device)
    check_precision(recipe.train.precision, place)
    threads = _threads(recipe.train.num_threads)
    with quiet(), steady_heap(), process_group(place), threads:
        return _Run(recipe, tables, run_dir, on_progress, place).finish()


@final
class _Run:
    """One run, from its checkpoint or from the start."""

    def __init__(
        self,
        recipe: Recipe,
        tables: Path,
        run_dir: Path,
        on_progress: OnProgress,
        device: torch.device,
    ) -> None:
        spec = recipe.train
        self._recipe = recipe
        self._spec = spec
        self._device = device
        names = tuple(task.name for task in recipe.tasks)
        world, rank = dist.get_world_size(), dist.get_rank()
        self._reader = FeatureReader(
            tables,
            "train",
            batch_size=spec.batch_size,
            tasks=names,
            shuffle_rows=spec.shuffle_rows,
            seed=spec.seed,
            rank=rank,
            world=world,
        )
        self._valid = FeatureReader(
            tables,
            "valid",
            batch_size=spec.batch_size,
            tasks=names,
            rank=rank,
            world=world,
        )
        metric = spec.early_stopping.metric
        self._group_B = self._valid.users() if metric.endswith(".gauc") else None
        self._checkpointer = Checkpointer(run_dir / "checkpoint")
        digest = run_digest(recipe, tables)
        old = self._checkpointer.unfinished(digest)
        self._state = old or RunState.start(digest, len(names))
        self._state.spread(world, self._reader.steps_per_epoch)
        self._state.dropped_rows = self._reader.dropped_rows

        torch.manual_seed(spec.seed)
        manifest = FeatureManifest.load(tables)
        network = build(recipe, manifest, device=torch.device("meta"))
        self._model = shard(
            network, spec.embedding_optimizer, device=device, seed=spec.seed
        )
        core = self._model.module
        assert isinstance(core, Network)
        self._core = core
        self._probe = Probe(tables, names, device=device)
        self._optimizer = Optimizer(self._model, spec)
        if old is not None:
            self._checkpointer.restore(self._model, self._optimizer)
        self._schedule = Schedule(spec.warmup_steps, spec.schedule, spec.early_stopping)
        for check in self._state.checks:
            self._schedule.observe(check.metrics)
        self._step = Stepper(
            self._model,
            self._optimizer,
            tasks=recipe.tasks,
            bf16=spec.precision == "bf16",
            seed=spec.seed,
        )
        total = spec.epochs * self._reader.num_rows
        self._meter = Meter(on_progress if rank == 0 else silent, total)
        self._events = Events(run_dir, self._state.step) if rank == 0 else None

    def finish(self) -> TrainResult:
        """Do what is left to do."""
        state = self._state
        with _interruptible() as interrupted:
            while state.epoch < self._spec.epochs and not self._schedule.exhausted:
                self._epoch(interrupted)
        state.finished = True
        self._checkpointer.finish(self._model, state)
        if self._events is not None:
            self._events.close()
        return TrainResult.of(state)

    def _epoch(self, interrupted: threading.Event) -> None:
        state = self._state
        steps = self._reader.steps_per_epoch
        checks = min(self._spec.checks_per_epoch, steps)
        check_at = {-(-steps * (k + 1) // checks) for k in range(checks)}
        self._model.train()
        batches = self._reader.epoch(state.epoch, start=state.epoch_step)
        with closing(batches):
            self._steps(batches, check_at, interrupted)

    def _steps(
        self,
        batches: Iterator[Batch],
        check_at: set[int],
        interrupted: threading.Event,
    ) -> None:
        state = self._state
        last = self._reader.steps_per_epoch
        clock = _clock()
        for batch in batches:
            self._optimizer.set_rates(
                self._schedule.factor(state.step), self._schedule.floor
            )
            sums, counts = self._step(batch.to(self._device), state.step)
            state.loss_sum = list(map(add, state.loss_sum, sums))
            state.loss_count = list(map(add, state.loss_count, counts))
            state.step += 1
            state.epoch_step += 1
            state.rows += batch.num_rows * self._reader.world
            before, clock = clock, _clock()
            state.seconds += clock[0] - before[0]
            state.cpu_seconds += clock[1] - before[1]
            self._meter.tell(self._rows_done(), self._loss)
            if state.epoch_step in check_at:
                if state.epoch_step == last:
                    state.epoch, state.epoch_step = state.epoch + 1, 0
                self._check()
                clock = _clock()
                if self._schedule.exhausted:
                    return
            if interrupted.is_set():
                self._checkpointer.save(self._model, self._optimizer, state, best=False)
                raise KeyboardInterrupt

    def _check(self) -> None:
        state = self._state
        predicted = predict(self._model, self._valid, device=self._device)
        metrics = evaluate_tasks(
            self._recipe.tasks,
            predicted.label_BT,
            predicted.prediction_BT,
            self._group_B,
            curves=predicted.curves,
        )
        best = self._schedule.observe(metrics)
        self._optimizer.set_rates(
            self._schedule.factor(state.step), self._schedule.floor
        )
        check = Check(
            epoch=state.epoch + (state.epoch_step > 0),
            step=state.step,
            train_loss=self._loss(everywhere=True),
            metrics=metrics,
            gradient_cosines=self._probe(self._core),
            learning_rates=tuple(self._optimizer.rates),
            seconds=state.seconds,
            cpu_seconds=state.cpu_seconds,
            rows_per_s=state.rows / max(state.seconds, 1e-9),
            best=best,
        )
        state.checks.append(check)
        state.loss_sum = [0.0] * len(state.loss_sum)
        state.loss_count = [0.0] * len(state.loss_count)
        state.seconds, state.cpu_seconds, state.rows = 0.0, 0.0, 0
        self._checkpointer.save(self._model, self._optimizer, state, best=best)
        if self._events is not None:
            self._events.write(state.checks)
        self._model.train()
        trim_heap()

    def _loss(self, *, everywhere: bool = False) -> dict[str, float]:
        """Mean loss of each task since the last check, of this worker or of all."""
        sums = torch.tensor(
            [self._state.loss_sum, self._state.loss_count], dtype=torch.float64
        )
        if everywhere and self._reader.world > 1:
            sums = sums.to(self._device)
            dist.all_reduce(sums)
        losses = (sums[0] / sums[1].where(sums[1] > 0, 1.0)).tolist()
        names = (task.name for task in self._recipe.tasks)
        return dict(zip(names, losses, strict=True))

    def _rows_done(self) -> int:
        state = self._state
        size = self._spec.batch_size * self._reader.world
        partial = min(state.epoch_step * size, self._reader.num_rows)
        return state.epoch * self._reader.num_rows + partial


def _clock() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Set the event at the first Ctrl-C, so a step is never left half taken.

    A second Ctrl-C interrupts at once. Outside the main thread nothing changes.
    """
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        del number, frame
        interrupted.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)
