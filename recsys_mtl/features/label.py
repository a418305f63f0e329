"""Raw columns -> labels and row weights."""

from collections.abc import Sequence
from typing import NamedTuple, assert_never, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_mtl.config.condition import Condition
from recsys_mtl.config.task import (
    BeforeEnd,
    BinaryTask,
    OrdinalTask,
    SurvivalTask,
    TaskSpec,
    ValueTask,
)
from recsys_mtl.errors import DataError
from recsys_mtl.features.cast import cast_column
from recsys_mtl.features.column import filled, flat, present
from recsys_mtl.features.condition import holds
from recsys_mtl.features.schema import label_column, weight_column

__all__ = ["encode_labels"]


def encode_labels(
    tasks: Sequence[TaskSpec],
    raw: pa.Table,
    *,
    where: str = "the rows given",
    first_row: int = 0,
) -> pa.Table:
    """Read the labels of all tasks, and the row weights of those that have any.

    A label is null, and the row has no part in the task, where the cell is missing or
    the row is outside the task's sample space. What stands in a label column outside
    the sample space is not looked at.

    The label of an ordinal task is the number of the level, from 0. That of a survival
    task is a signed time: ``t`` if the event was seen at ``t``, ``-t`` if the row was
    watched until ``t`` without one; the sign bit counts, so 0 and -0.0 differ.

    Args:
        tasks: What is predicted.
        raw: Raw rows; labels may be numbers, truth values or text of numbers.
        where: File that has the rows, for messages.
        first_row: Number of the first row in that file.

    Shape:
        - return: a column ``label.<task>`` of ``float32`` per task, and a column
          ``weight.<task>`` of those with row weights

    Raises:
        DataError: A column is missing, a binary label or an event is neither 0 nor 1, a
            level is none of the task's, or an amount, time or weight is negative,
            infinite or no number.

    Example:
        >>> task = BinaryTask(kind="binary", name="click", label="is_click")
        >>> encode_labels([task], pa.table({"is_click": ["1", "0", None]})).to_pydict()
        {'label.click': [1.0, 0.0, None]}
    """
    columns = {}
    for task in tasks:
        read = _Reader(task, raw, where, first_row)
        known_B = np.ones(raw.num_rows, dtype=bool)
        if task.sample_space is not None:
            known_B = holds(task.sample_space, raw).holds_B
        label = read.label(known_B)
        columns[label_column(task.name)] = label.array()
        if task.row_weight is not None:
            weight = read.amounts("row weight", task.row_weight.column, label.known_B)
            clip = task.row_weight.clip
            clipped_B = np.minimum(weight.value_B, np.inf if clip is None else clip)
            columns[weight_column(task.name)] = _Cells(
                clipped_B, weight.known_B
            ).array()
    return pa.table(columns)


class _Cells(NamedTuple):
    """Values and which are known; what is no number is NaN, and known."""

    value_B: np.ndarray
    known_B: np.ndarray

    def array(self) -> pa.Array:
        """Null where unknown."""
        value_B = np.where(self.known_B, self.value_B, 0.0).astype(np.float32)
        return pa.array(value_B, mask=~self.known_B)


@final
class _Reader:
    """Reads columns for one task."""

    def __init__(
        self, task: TaskSpec, raw: pa.Table, where: str, first_row: int
    ) -> None:
        self.task = task
        self.raw = raw
        self.where = where
        self.first_row = first_row

    def label(self, exists_B: np.ndarray) -> _Cells:
        """Give the label where the task exists."""
        match self.task:
            case BinaryTask(label=label):
                return self.answer("label", label, exists_B)
            case ValueTask(label=label):
                return self.amounts("label", label, exists_B)
            case OrdinalTask():
                return self.levels(self.task, exists_B)
            case SurvivalTask():
                return self.signed_times(self.task, exists_B)
            case _:
                assert_never(self.task)

    def answer(self, what: str, of: str | Condition, exists_B: np.ndarray) -> _Cells:
        """Read zeros and ones."""
        if isinstance(of, Condition):
            answer = holds(of, self.raw)
            value_B = answer.holds_B.astype(np.float64)
            return _Cells(value_B, answer.known_B & exists_B)
        cells = self._numbers(what, of, exists_B)
        wrong_B = (cells.value_B != 0.0) & (cells.value_B != 1.0)
        self._refuse(what, of, wrong_B & cells.known_B, "be 0 or 1")
        return cells

    def amounts(self, what: str, column: str, exists_B: np.ndarray) -> _Cells:
        """Read numbers of at least 0."""
        cells = self._numbers(what, column, exists_B)
        most = np.finfo(np.float32).max
        wrong_B = ~((cells.value_B >= 0.0) & (cells.value_B <= most))
        self._refuse(what, column, wrong_B & cells.known_B, "be a finite number >= 0")
        return cells

    def signed_times(self, task: SurvivalTask, exists_B: np.ndarray) -> _Cells:
        """Read times, those without an event as negative ones."""
        if isinstance(task.event, BeforeEnd):
            end = self.amounts("end", task.event.before, exists_B)
            time_B, known_B = self.amounts("time", task.time, end.known_B)
            hit_B = time_B < end.value_B
            time_B = np.minimum(time_B, end.value_B)
        else:
            hit = self.answer("event", task.event, exists_B)
            time_B, known_B = self.amounts("time", task.time, hit.known_B)
            hit_B = hit.value_B == 1.0
        return _Cells(np.where(hit_B, time_B, -time_B), known_B)

    def levels(self, task: OrdinalTask, exists_B: np.ndarray) -> _Cells:
        """Read levels as their numbers from 0."""
        levels: Sequence[int | float | str] = (
            range(task.levels) if isinstance(task.levels, int) else task.levels
        )
        if isinstance(levels[0], str):
            cells = cast_column(self._column("label", task.label), "string").array
            value_B = filled(pc.index_in(cells, pa.array(levels, pa.string())), -1)
            known_B = present(cells) & exists_B
        else:
            number_B, known_B = self._numbers("label", task.label, exists_B)
            equal_BL = number_B[:, None] == np.array(levels, dtype=np.float64)
            value_B = np.where(equal_BL.any(axis=1), equal_BL.argmax(axis=1), -1)
        must = f"be one of {', '.join(map(repr, levels))}"
        self._refuse("label", task.label, (value_B < 0) & known_B, must)
        return _Cells(value_B.astype(np.float64), known_B)

    def _column(self, what: str, column: str) -> pa.Array:
        if column not in self.raw.column_names:
            raise DataError(
                f"task {self.task.name!r} reads {what} column {column!r}, which "
                f"{self.where} lacks; there are {', '.join(self.raw.column_names)}"
            )
        return flat(self.raw.column(column))

    def _numbers(self, what: str, column: str, exists_B: np.ndarray) -> _Cells:
        cells = self._column(what, column)
        numbers = cast_column(cells, "float").array
        missing = cells.is_null(nan_is_null=True)
        if numbers.null_count != pc.sum(missing).as_py():
            # Unreadable, unless it is one of the texts that mean "missing".
            blank = cast_column(cells, "string").array.is_null()
            infinite = pa.types.is_floating(cells.type)
            missing = missing if infinite else pc.or_(missing, blank)
        value_B = filled(numbers, np.nan)
        return _Cells(value_B, ~missing.to_numpy(zero_copy_only=False) & exists_B)

    def _refuse(self, what: str, column: str, wrong_B: np.ndarray, must: str) -> None:
        if not wrong_B.any():
            return
        row = int(np.argmax(wrong_B))
        value = self.raw.column(column)[row].as_py()
        more = int(wrong_B.sum()) - 1
        also = f" and {more} more rows" if more else ""
        remedy = (
            ""
            if what == "row weight"
            else (", or declare a sample_space that leaves it out")
        )
        raise DataError(
            f"{what} {column!r} of task {self.task.name!r} must {must}, got {value!r} "
            f"in row {self.first_row + row} of {self.where}{also}; drop or correct it "
            f"upstream{remedy}"
        )
