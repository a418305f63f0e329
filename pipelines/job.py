"""One function over many tasks, on Ray Data."""

import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import ray

__all__ = ["run_tasks"]

Task = TypeVar("Task")
Result = TypeVar("Result")


def run_tasks(
    function: Callable[[Task], Result], tasks: Sequence[Task]
) -> Iterator[Result]:
    """Apply ``function`` to every task, as many at once as there are cores.

    Needs a running Ray; see ``pipelines.ray_session``. Only the results wait in memory,
    so tasks read their rows from files and write them to files.

    Args:
        function: Takes one task; runs in another process.
        tasks: Small picklable descriptions of work.

    Returns:
        The results in the order of the tasks, each as soon as those before are there.
    """

    def call(batch: Any) -> dict[str, np.ndarray]:
        (number,) = batch["task"].tolist()
        return {"result": np.array([pickle.dumps(function(tasks[number]))], object)}

    numbers = [{"task": i} for i in range(len(tasks))]
    jobs = ray.data.from_items(numbers, override_num_blocks=max(len(tasks), 1))
    for row in jobs.map_batches(call, batch_size=1).iter_rows():
        yield pickle.loads(row["result"])
