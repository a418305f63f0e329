"""Joined raw rows -> encoded columns: the one implementation, offline and online."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import assert_never, final

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from recsys_mtl.config.feature import (
    AggregateFeature,
    CategoricalFeature,
    CrossFeature,
    HashEncoder,
    HistoryFeature,
    ListFeature,
    NumericFeature,
    QuantileFeature,
    TimePartFeature,
)
from recsys_mtl.errors import ArtifactError, DataError
from recsys_mtl.features.cast import RawType, cast_column
from recsys_mtl.features.column import absent, contiguous, filled, flat
from recsys_mtl.features.contract import (
    TIME,
    TIME_KEY,
    USER_KEY,
    RawContract,
    aggregate_columns,
    column_of,
)
from recsys_mtl.features.counts import FeatureCounts
from recsys_mtl.features.encoded_schema import encoded_schema
from recsys_mtl.features.encoders._base import AbstractIds
from recsys_mtl.features.encoders.aggregate import Aggregate
from recsys_mtl.features.encoders.hashed import HashIds, crossed
from recsys_mtl.features.encoders.multi import encode_lists, id_lists
from recsys_mtl.features.encoders.numeric import Scale
from recsys_mtl.features.encoders.quantile import Quantiles
from recsys_mtl.features.encoders.time_part import time_part_ids
from recsys_mtl.features.encoders.vocabulary import Vocabulary
from recsys_mtl.features.hashing import seed_of
from recsys_mtl.features.history import gap_ids
from recsys_mtl.features.match import matching
from recsys_mtl.features.schema import (
    GAP,
    MISSING,
    UNSEEN,
    Artifact,
    RawColumn,
)
from recsys_mtl.features.time import NEVER, filled_time, to_micros

__all__ = ["Encoders", "Featurizer"]

_FORMAT = 1
_FILE = "featurizer.json"


@final
@dataclass(frozen=True)
class Encoders:
    """Fitted state by feature.

    Attributes:
        ids: Of categorical, list and quantile features.
        scales: Of numeric features.
        aggregates: Of aggregates.
    """

    ids: dict[str, AbstractIds] = field(default_factory=dict)
    scales: dict[str, Scale] = field(default_factory=dict)
    aggregates: dict[str, Aggregate] = field(default_factory=dict)


@final
class Featurizer:
    """Encodes tables and single requests with what was fitted on training rows.

    Args:
        contract: Features and the raw columns they read.
        encoders: Fitted state; ``FeaturizerFit`` makes it.
    """

    def __init__(self, contract: RawContract, encoders: Encoders) -> None:
        self.contract = contract
        self.encoders = encoders
        sizes = {name: ids.size for name, ids in encoders.ids.items()}
        self.schema = encoded_schema(contract.features, sizes)

    @property
    def signature(self) -> tuple[RawColumn, ...]:
        """Every raw column that is read, with type and origin."""
        return self.contract.signature

    def known(
        self, column: str, values: pa.Array | pa.ChunkedArray
    ) -> np.ndarray | None:
        """Whether training rows had each value of a raw column (often enough).

        Shape:
            - return: ``(values,)`` of ``bool``; ``None`` if no vocabulary reads it
        """
        for feature in self.contract.features:
            if isinstance(feature, CategoricalFeature) and column_of(feature) == column:
                encoder = self.encoders.ids[feature.name]
                if isinstance(encoder, Vocabulary):
                    kind = self.contract.type_of(column)
                    ids = encoder.ids(cast_column(values, kind).array)
                    known: np.ndarray = ids > UNSEEN
                    return known
        return None

    def encode(
        self,
        raw: pa.Table,
        histories: Mapping[str, pa.Table] | None = None,
        counts: FeatureCounts | None = None,
        *,
        canonical: bool = False,
    ) -> pa.Table:
        """Encode rows.

        Args:
            raw: Joined rows. Columns of the signature that are missing count as null.
                ``key.time`` is read where present, else made from the timestamp.
            histories: By history, one row per raw row with list columns: the raw
                columns of its fields, and ``time`` in microseconds, cut to the window.
            counts: Gains what was missing, unseen or unreadable.
            canonical: Whether ``raw`` is as ``RawContract.canonical`` leaves it.

        Returns:
            ``schema.columns``, in that order.

        Raises:
            DataError: A history is missing or has another number of rows.
        """
        # To count ids takes as long as to find them: only for whoever asks.
        asked, counts = counts, FeatureCounts() if counts is None else counts
        rows = raw if canonical else self.contract.canonical(raw, asked)
        time_B = self._time(rows)
        encoded: dict[str, pa.Array] = {}
        for feature in self.contract.features:
            name = feature.name
            match feature:
                case CategoricalFeature() | QuantileFeature():
                    if not feature.history_only:
                        values = self._typed(rows, feature, counts)
                        ids = self.encoders.ids[name].ids(values)
                        encoded[name] = _counted_ids(ids, name, asked)
                case NumericFeature():
                    values = self._typed(rows, feature, counts)
                    counts.add(name, missing=values.null_count)
                    encoded[name] = pa.array(self.encoders.scales[name].apply(values))
                case ListFeature():
                    cells = flat(rows.column(column_of(feature)))
                    lists = encode_lists(
                        cells, self.encoders.ids[name], feature.max_length
                    )
                    counts.add(name, missing=lists.missing, unseen=lists.unseen)
                    encoded[name] = lists.lists
                case TimePartFeature():
                    ids = time_part_ids(time_B, feature.part, feature.utc_offset_hours)
                    encoded[name] = _counted_ids(ids, name, asked)
                case CrossFeature():
                    columns = [flat(rows.column(c)) for c in feature.columns]
                    ids = crossed(columns, feature.buckets, name)
                    encoded[name] = _counted_ids(ids, name, asked)
                case HistoryFeature():
                    events = (histories or {}).get(name)
                    encoded |= self._history(feature, events, rows, time_B, counts)
                case AggregateFeature():
                    about = self.encoders.aggregates[name]
                    seen, hits = (flat(rows.column(c)) for c in aggregate_columns(name))
                    counts.add(name, missing=seen.null_count)
                    encoded[f"{name}.count"] = pa.array(about.counts(seen))
                    encoded[f"{name}.rate"] = pa.array(about.rates(seen, hits))
                case _:
                    assert_never(feature)
        return pa.table({name: encoded[name] for name in self.schema.columns})

    def only(self, names: Collection[str]) -> "Featurizer":
        """Keep some features; see ``RawContract.only``."""
        return Featurizer(self.contract.only(names), self.encoders)

    def event_ids(
        self, history: HistoryFeature, events: pa.Table
    ) -> dict[str, np.ndarray]:
        """Encode the events of a history, one list after the other.

        Args:
            history: Of the contract.
            events: List columns named like the raw columns of its fields.

        Shape:
            - return: by ``<history>.<field>``, ``(events,)`` of ``int32``
        """
        by_name = {feature.name: feature for feature in self.contract.features}
        encoded = {}
        for name in history.fields:
            feature = by_name[name]
            assert isinstance(feature, CategoricalFeature | QuantileFeature)
            cells = flat(events.column(column_of(feature)))
            kind: RawType = "float"
            if isinstance(feature, CategoricalFeature):
                kind = self.contract.type_of(column_of(feature))
            ids = _event_ids(self.encoders.ids[name], cells, kind)
            encoded[f"{history.name}.{name}"] = ids
        return encoded

    def save(self, folder: Path) -> None:
        """Write ``featurizer.json`` and one Arrow file per vocabulary."""
        folder.mkdir(parents=True, exist_ok=True)
        cuts = {}
        for name, encoder in self.encoders.ids.items():
            if isinstance(encoder, Vocabulary):
                table = pa.table({"value": encoder.values})
                path = str(_vocabulary_path(folder, name))
                size = max(1, table.num_rows)
                with (
                    pa.OSFile(path, "wb") as file,
                    pa.ipc.new_file(file, table.schema) as out,
                ):
                    out.write_table(table, max_chunksize=size)
            elif isinstance(encoder, Quantiles):
                cuts[name] = encoder.cuts
        saved = _Saved(
            format_version=_FORMAT,
            contract=self.contract,
            cuts=cuts,
            scales=self.encoders.scales,
            aggregates=self.encoders.aggregates,
        )
        (folder / _FILE).write_text(saved.model_dump_json(indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Featurizer":
        """Read what ``save`` wrote.

        Raises:
            ArtifactError: Files are missing, damaged, or of another format.
        """
        try:
            text = (folder / _FILE).read_text(encoding="utf-8")
            saved = _Saved.model_validate_json(text)
        except (OSError, ValidationError) as error:
            raise ArtifactError(
                f"{folder / _FILE} cannot be read ({error}); rebuild the feature tables"
            ) from error
        if saved.format_version != _FORMAT:
            raise ArtifactError(
                f"{folder / _FILE} has format {saved.format_version}, this version "
                f"reads {_FORMAT}; rebuild the feature tables"
            )
        ids: dict[str, AbstractIds] = {}
        for feature in saved.contract.features:
            name = feature.name
            if isinstance(feature, QuantileFeature):
                ids[name] = Quantiles(saved.cuts[name])
            elif isinstance(feature, CategoricalFeature | ListFeature):
                if isinstance(feature.encoder, HashEncoder):
                    ids[name] = HashIds(feature.encoder.buckets, seed_of(name))
                else:
                    ids[name] = Vocabulary.of(_values(_vocabulary_path(folder, name)))
        return cls(saved.contract, Encoders(ids, saved.scales, saved.aggregates))

    def _time(self, rows: pa.Table) -> np.ndarray:
        if TIME_KEY in rows.column_names:
            return filled_time(rows.column(TIME_KEY))
        spec = self.contract.timestamp
        if spec is None:
            return filled_time(pa.nulls(rows.num_rows, pa.int64()))
        return filled_time(to_micros(rows.column(spec.column), spec))

    def _typed(
        self,
        rows: pa.Table,
        feature: CategoricalFeature | QuantileFeature | NumericFeature,
        counts: FeatureCounts,
    ) -> pa.Array:
        """The column of a feature, as numbers if it wants numbers."""
        values = contiguous(rows.column(column_of(feature)))
        if isinstance(feature, CategoricalFeature) or pa.types.is_float64(values.type):
            return values
        cells = cast_column(values, "float")
        if cells.unreadable:
            counts.add(feature.name, unreadable=cells.unreadable)
        return cells.array

    def _history(
        self,
        history: HistoryFeature,
        events: pa.Table | None,
        rows: pa.Table,
        time_B: np.ndarray,
        counts: FeatureCounts,
    ) -> dict[str, pa.Array]:
        """Ids of a history's events, and of the time since each."""
        if events is None or events.num_rows != rows.num_rows:
            got = "none" if events is None else f"{events.num_rows} rows"
            raise DataError(
                f"history {history.name!r} must have {rows.num_rows} rows, as many as "
                f"the raw table, got {got}; assemble the rows first"
            )
        if history.match:
            events = matching(events, rows, self.contract.match_types(history))
        times = flat(events.column(TIME))
        count_B = filled(times.value_lengths(), 0)
        nowhere = time_B == NEVER
        if USER_KEY in rows.column_names:
            nowhere |= absent(flat(rows.column(USER_KEY)))
        counts.add(history.name, missing=int(nowhere.sum()))
        encoded = {}
        for column, ids in self.event_ids(history, events).items():
            _counted_ids(ids, column, counts)
            encoded[column] = id_lists(count_B, ids)
        if history.gaps:
            age = np.repeat(time_B, count_B) - filled_time(times.flatten())
            encoded[f"{history.name}.{GAP}"] = id_lists(count_B, gap_ids(age))
        return encoded


class _Saved(Artifact):
    format_version: int
    contract: RawContract
    cuts: dict[str, tuple[float, ...]]
    scales: dict[str, Scale]
    aggregates: dict[str, Aggregate]


def _counted_ids(ids: np.ndarray, name: str, counts: FeatureCounts | None) -> pa.Array:
    if counts is not None:
        missing, unseen = (int(np.count_nonzero(ids == n)) for n in (MISSING, UNSEEN))
        counts.add(name, missing=missing, unseen=unseen)
    return pa.array(ids, pa.int32())


def _event_ids(encoder: AbstractIds, cells: pa.Array, kind: RawType) -> np.ndarray:
    """Ids of the elements of lists; a dictionary's values are encoded once."""
    values = cells.flatten()
    if not pa.types.is_dictionary(values.type):
        return encoder.ids(cast_column(values, kind).array)
    if len(values) == 0:
        return np.empty(0, np.int32)
    known = encoder.ids(cast_column(values.dictionary, kind).array)
    places = filled(values.indices, -1)
    ids: np.ndarray = np.append(known, np.int32(MISSING))[places]
    return ids


def _vocabulary_path(folder: Path, feature: str) -> Path:
    return folder / f"{feature}.arrow"


def _values(path: Path) -> pa.Array:
    try:
        with pa.memory_map(str(path)) as file:
            column = pa.ipc.open_file(file).read_all().column("value")
    except (OSError, pa.ArrowInvalid) as error:
        raise ArtifactError(
            f"{path} is no readable vocabulary ({error}); rebuild the feature tables"
        ) from error
    return flat(column)
