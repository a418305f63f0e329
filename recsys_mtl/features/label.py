"""Raw columns -> labels."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_mtl.config.condition import Condition
from recsys_mtl.config.task import BinaryTask, TaskSpec, ValueTask
from recsys_mtl.errors import DataError
from recsys_mtl.features.cast import cast_column
from recsys_mtl.features.column import filled, flat
from recsys_mtl.features.condition import holds
from recsys_mtl.features.schema import label_column

__all__ = ["encode_labels"]


def encode_labels(
    tasks: Sequence[TaskSpec],
    raw: pa.Table,
    *,
    where: str = "the rows given",
    first_row: int = 0,
) -> pa.Table:
    """Read the labels of all tasks.

    A label is null, and the row has no part in the task, where the cell is missing or
    the row is outside the task's sample space. What stands in a label column outside
    the sample space is not looked at.

    Args:
        tasks: What is predicted.
        raw: Raw rows; labels may be numbers, truth values or text of numbers.
        where: File that has the rows, for messages.
        first_row: Number of the first row in that file.

    Shape:
        - return: a column ``label.<task>`` of ``float32`` per task

    Raises:
        DataError: A column is missing, a binary label is neither 0 nor 1, or an amount
            is negative, infinite or no number.

    Example:
        >>> task = BinaryTask(kind="binary", name="click", label="is_click")
        >>> encode_labels([task], pa.table({"is_click": ["1", "0", None]})).to_pydict()
        {'label.click': [1.0, 0.0, None]}
    """
    labels = {}
    for task in tasks:
        if isinstance(task.label, Condition):
            answer = holds(task.label, raw)
            value_B = answer.holds_B.astype(np.float64)
            known_B = answer.known_B.copy()
        else:
            value_B, known_B = _numbers(task.label, task.name, raw, where)
        if task.sample_space is not None:
            known_B = known_B & holds(task.sample_space, raw).holds_B
        match task:
            case BinaryTask():
                wrong_B = (value_B != 0.0) & (value_B != 1.0)
                must = "be 0 or 1"
            case ValueTask():
                wrong_B = ~((value_B >= 0.0) & (value_B <= np.finfo(np.float32).max))
                must = "be a finite number >= 0"
        _refuse(task, raw, wrong_B & known_B, must, where, first_row)
        labels[label_column(task.name)] = pa.array(
            np.where(known_B, value_B, 0.0).astype(np.float32), mask=~known_B
        )
    return pa.table(labels)


def _numbers(
    column: str, task: str, raw: pa.Table, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Values and which are known; what is no number is NaN, and known."""
    if column not in raw.column_names:
        raise DataError(
            f"task {task!r} reads label column {column!r}, which {where} lacks; there "
            f"are {', '.join(raw.column_names)}"
        )
    cells = flat(raw.column(column))
    numbers = cast_column(cells, "float").array
    missing = cells.is_null(nan_is_null=True)
    if numbers.null_count != pc.sum(missing).as_py():
        # Unreadable, unless it is one of the texts that mean "missing".
        blank = cast_column(cells, "string").array.is_null()
        infinite = pa.types.is_floating(cells.type)
        missing = missing if infinite else pc.or_(missing, blank)
    value_B = filled(numbers, np.nan)
    return value_B, ~missing.to_numpy(zero_copy_only=False)


def _refuse(
    task: TaskSpec,
    raw: pa.Table,
    wrong_B: np.ndarray,
    must: str,
    where: str,
    first_row: int,
) -> None:
    if not wrong_B.any():
        return
    row = int(np.argmax(wrong_B))
    assert isinstance(task.label, str)
    value = raw.column(task.label)[row].as_py()
    more = int(wrong_B.sum()) - 1
    also = f" and {more} more rows" if more else ""
    raise DataError(
        f"label {task.label!r} of task {task.name!r} must {must}, got {value!r} in row "
        f"{first_row + row} of {where}{also}; drop or correct it upstream, or declare "
        "a sample_space that leaves it out"
    )
