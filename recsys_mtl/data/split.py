"""Raw rows -> training, validation and test rows."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal, assert_never, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_mtl.config.data import (
    ColumnSplit,
    FileSplit,
    HashSplit,
    SplitSpec,
    TimeSplit,
)
from recsys_mtl.errors import DataError
from recsys_mtl.features.column import flat
from recsys_mtl.features.hashing import stable_hash

__all__ = [
    "DROPPED",
    "SPLITS",
    "AssignedRows",
    "SplitName",
    "TimeCuts",
    "TimeSample",
    "assign_split",
]

SplitName = Literal["train", "valid", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "valid", "test")
"""Names of the splits; a row's code is the position of its split here."""

DROPPED = -1
"""Code of a row that belongs to no split."""

_TRAIN, _VALID, _TEST = range(3)


@final
@dataclass(frozen=True)
class TimeCuts:
    """Where validation and test begin, in microseconds since 1970.

    A row at the very instant of a cut belongs to the later split.
    """

    valid_from: int
    test_from: int

    def assign(self, time_us_B: np.ndarray) -> np.ndarray:
        """Codes of rows by their time."""
        cuts = np.array([self.valid_from, self.test_from])
        return np.searchsorted(cuts, time_us_B, side="right").astype(np.int8)


@final
@dataclass
class TimeSample:
    """Timestamps from which the cuts of a time split are taken.

    All of them up to ``capacity`` rows, and beyond that the rows whose hash is least:
    an even sample that is the same however rows are dealt to tasks.

    Example:
        >>> sample = TimeSample()
        >>> sample.update(np.arange(10), row_B=np.arange(10))
        >>> sample.cuts(TimeSplit(kind="time", valid=0.1, test=0.2))
        TimeCuts(valid_from=7, test_from=8)
    """

    capacity: int = 1_000_000
    time_us: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    hashes: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))

    def update(self, time_us_B: np.ndarray, row_B: np.ndarray) -> None:
        """Add rows.

        Args:
            time_us_B: Microseconds since 1970.
            row_B: A number that tells every row of the source from all others.
        """
        hash_B = stable_hash(pa.array(row_B, pa.int64()))
        self._keep(
            np.concatenate([self.time_us, time_us_B]),
            np.concatenate([self.hashes, hash_B]),
        )

    def merge(self, other: "TimeSample") -> None:
        """Add the rows of another sample."""
        self._keep(
            np.concatenate([self.time_us, other.time_us]),
            np.concatenate([self.hashes, other.hashes]),
        )

    def cuts(self, split: TimeSplit) -> TimeCuts:
        """Place the cuts so that the declared fractions of rows lie behind them.

        Raises:
            DataError: No row has a time.
        """
        count = len(self.time_us)
        if count == 0:
            raise DataError(
                "no row has a readable timestamp, so none can be split by time; check "
                "data.timestamp.column and data.timestamp.unit"
            )
        ordered = np.sort(self.time_us)
        valid = count - round(count * (split.valid + split.test))
        test = count - round(count * split.test)
        return TimeCuts(
            int(ordered[min(valid, count - 1)]), int(ordered[min(test, count - 1)])
        )

    def _keep(self, time_us: np.ndarray, hashes: np.ndarray) -> None:
        if len(hashes) > self.capacity:
            kept = np.argpartition(hashes, self.capacity)[: self.capacity]
            time_us, hashes = time_us[kept], hashes[kept]
        self.time_us, self.hashes = time_us, hashes


@final
@dataclass(frozen=True)
class AssignedRows:
    """To which split each row belongs.

    Attributes:
        code_B: Position in ``SPLITS``, or ``DROPPED``.
        dropped: Rows that belong to no split, counted by reason.
    """

    code_B: np.ndarray
    dropped: Mapping[str, int]


def assign_split(
    split: SplitSpec,
    raw: pa.Table,
    *,
    file_name: str,
    time_us: pa.Array | None = None,
    cuts: TimeCuts | None = None,
) -> AssignedRows:
    """Say for every row to which split it belongs.

    Args:
        split: The recipe's rule.
        raw: Raw rows, with the column that the rule reads.
        file_name: Name of the file that has the rows.
        time_us: Microseconds since 1970; only a split by time reads them.
        cuts: Where a split by time cuts. While they are unknown, all rows that have a
            time count as training rows.

    Raises:
        DataError: A file matches the patterns of two splits.
    """
    num_rows = raw.num_rows
    match split:
        case TimeSplit():
            assert time_us is not None
            known_B = time_us.is_valid().to_numpy(zero_copy_only=False)
            filled_B = time_us.fill_null(0).to_numpy()
            code_B = (
                np.zeros(num_rows, np.int8) if cuts is None else cuts.assign(filled_B)
            )
            code_B[~known_B] = DROPPED
            reasons = Counter({"no readable timestamp": int((~known_B).sum())})
        case HashSplit():
            column = flat(raw.column(split.column))
            share_B = stable_hash(column, seed=split.seed) / 2.0**64
            code_B = np.full(num_rows, _TRAIN, np.int8)
            code_B[share_B < split.test + split.valid] = _VALID
            code_B[share_B < split.test] = _TEST
            missing_B = column.is_null(nan_is_null=True).to_numpy(zero_copy_only=False)
            code_B[missing_B] = DROPPED
            reasons = Counter({f"no value in {split.column!r}": int(missing_B.sum())})
        case ColumnSplit():
            code_B, reasons = _by_column(split, flat(raw.column(split.column)))
        case FileSplit():
            code = _by_file(split, file_name)
            code_B = np.full(num_rows, code, np.int8)
            unmatched = num_rows if code == DROPPED else 0
            reasons = Counter({f"file {file_name!r} matches no split": unmatched})
        case _:
            assert_never(split)
    return AssignedRows(code_B, {k: n for k, n in reasons.items() if n})


def _by_column(split: ColumnSplit, column: pa.Array) -> tuple[np.ndarray, Counter[str]]:
    text = column.cast(pa.string())
    names = pa.array([split.train, split.valid, split.test])
    code = pc.index_in(text, value_set=names).fill_null(DROPPED)
    code_B = code.to_numpy().astype(np.int8)
    known = ", ".join(map(repr, (split.train, split.valid, split.test)))
    missing = column.null_count
    reasons = Counter(
        {
            f"no value in {split.column!r}": missing,
            f"{split.column!r} is none of {known}": int((code_B == DROPPED).sum())
            - missing,
        }
    )
    return code_B, reasons


def _by_file(split: FileSplit, file_name: str) -> int:
    patterns = (split.train, split.valid, split.test)
    codes = [i for i, p in enumerate(patterns) if fnmatchcase(file_name, p)]
    if len(codes) > 1:
        named = " and ".join(f"{SPLITS[i]} ({patterns[i]!r})" for i in codes)
        raise DataError(
            f"file {file_name!r} matches the patterns of {named}; make data.split "
            "tell them apart"
        )
    return codes[0] if codes else DROPPED
