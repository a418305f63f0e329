"""The training loop on several workers, with Ray Train."""

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from ray.exceptions import RayError
from ray.train import RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.exceptions import WorkerGroupError
from ray.util.queue import Empty, Queue

from pipelines.ray_session import ray_session
from recsys_mtl.config.recipe import Recipe
from recsys_mtl.errors import EnvironmentFault, RecsysError
from recsys_mtl.progress import OnProgress, Progress, silent
from recsys_mtl.train.checkpoint import read_state
from recsys_mtl.train.loop import TrainResult, train

__all__ = ["train_on_workers"]


def train_on_workers(
    recipe: Recipe,
    tables: Path,
    run_dir: Path,
    workers: int,
    *,
    on_progress: OnProgress = silent,
) -> TrainResult:
    """Run ``recsys_mtl.train.train`` on ``workers`` processes with sharded tables.

    A step has ``batch_size`` rows on each worker. A run that stops continues from its
    last check, also on another number of workers.

    Args:
        recipe: What to fit, and how.
        tables: Feature tables of this recipe, where every worker can read them.
        run_dir: Of this run alone, where every worker can write.
        workers: Processes, each with a core, and a GPU if there are enough.
        on_progress: Told of rows read.

    Raises:
        RecsysError: As in one process.
        EnvironmentFault: There are fewer cores than workers, or a worker was killed.
    """
    with (
        ray_session(max(workers, os.cpu_count() or 1)) as cores,
        tempfile.TemporaryDirectory() as storage,
        _listening(on_progress) as messages,
    ):
        if cores < workers:
            raise EnvironmentFault(
                f"{workers} workers need as many cores, and Ray has {cores}; ask for "
                f"--workers {cores} or a larger cluster"
            )
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        use_gpu = resources.get("GPU", 0) >= workers
        trainer = TorchTrainer(
            _work,
            train_loop_config={
                "recipe": recipe.model_dump(mode="json"),
                # Ray moves workers to a folder of its own.
                "tables": str(tables.resolve()),
                "run_dir": str(run_dir.resolve()),
                "messages": messages,
            },
            torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu),
            run_config=RunConfig(name="train", storage_path=storage),
        )
        try:
            trainer.fit()
        except TrainingFailedError as error:
            raise _cause(error) from error
    return TrainResult.of(read_state(run_dir))


def _work(config: dict[str, object]) -> None:
    messages = config["messages"]
    assert isinstance(messages, Queue)

    def tell(progress: Progress) -> None:
        messages.put(progress, block=False)

    train(
        Recipe.model_validate(config["recipe"]),
        Path(str(config["tables"])),
        Path(str(config["run_dir"])),
        on_progress=tell,
    )


@contextmanager
def _listening(on_progress: OnProgress) -> Iterator[Queue]:
    """Pass on what is put into the queue, in the order it comes."""
    messages = Queue()
    stopped = threading.Event()

    def drain(timeout_s: float) -> None:
        with contextlib.suppress(Empty, RayError):
            while True:
                on_progress(messages.get(timeout=timeout_s))

    def listen() -> None:
        while not stopped.is_set():
            drain(timeout_s=0.2)
        drain(timeout_s=0.0)

    thread = threading.Thread(target=listen, name="progress", daemon=True)
    thread.start()
    try:
        yield messages
    finally:
        stopped.set()
        thread.join()
        messages.shutdown()


def _cause(error: TrainingFailedError) -> RecsysError:
    """What a worker raised on purpose; the others then fail for want of it."""
    failures = (
        list(error.worker_failures.values())
        if isinstance(error, WorkerGroupError)
        else []
    )
    for failure in failures:
        found: BaseException | None = failure
        while found is not None:
            if isinstance(found, RecsysError):
                return found
            inner = getattr(found, "_base_exc", None) or getattr(found, "cause", None)
            found = inner or found.__cause__
    last = str(failures[0] if failures else error).strip().split("\n")[-1]
    return EnvironmentFault(
        f"a training worker stopped: {last}; if it was killed, give it more memory or "
        "use fewer workers, and run again to continue from the last check"
    )
