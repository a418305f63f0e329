"""Rows of users or items as arrays: gathered by number, and overlaid where given."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys_mtl.config.feature import AggregateFeature, HistoryFeature, TimePartFeature
from recsys_mtl.data.batch import EncodedRows, pooled_keys, sequence_keys
from recsys_mtl.data.request_batch import SchemaSplit
from recsys_mtl.features.column import flat
from recsys_mtl.features.encoded_schema import encoded_columns
from recsys_mtl.features.encoders.time_part import time_part_ids
from recsys_mtl.features.featurizer import Featurizer
from recsys_mtl.features.history import Windows, gap_ids
from recsys_mtl.features.schema import GAP
from recsys_mtl.features.snapshot import EncodedEntities
from recsys_mtl.rank.stored_rates import Cuts, StoredRates

__all__ = ["Overlay", "SideRows"]

_Ints = npt.NDArray[np.integer]
_Rows = npt.NDArray[np.int64]


@final
@dataclass(frozen=True)
class Overlay:
    """Encoded columns that stand in for the gathered ones of some rows.

    Attributes:
        rows: Which rows, ascending.
        table: A row for each of them, with some of the columns.
    """

    rows: _Rows
    table: pa.Table

    @property
    def places(self) -> _Rows | slice:
        """The rows, as a slice where none is between them: much faster to write to."""
        rows = self.rows
        if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
            return slice(int(rows[0]), int(rows[-1]) + 1)
        return rows


@final
class SideRows:
    """Gathers what candidates share, or what each has.

    Args:
        featurizer: Of the bundle.
        entities: Encoded users for what is shared, items for the rest.
        split: Which columns are on which side.
        shared: Which side this is.
    """

    def __init__(
        self,
        featurizer: Featurizer,
        entities: EncodedEntities,
        split: SchemaSplit,
        *,
        shared: bool,
    ) -> None:
        columns = frozenset(split.shared if shared else split.own)
        self._entities = entities
        self._pooled = tuple(k for k in pooled_keys(split.schema) if k in columns)
        self._sequence = tuple(k for k in sequence_keys(split.schema) if k in columns)
        dense = split.shared_dense if shared else split.own_dense
        self._place = {name: place for place, name in enumerate(dense)}
        self._stored_places = _spaced([self._place[n] for n in entities.dense_columns])
        features = [
            feature
            for feature in featurizer.contract.features
            if encoded_columns(feature)[0] in columns
        ]
        self._histories = [f for f in features if isinstance(f, HistoryFeature)]
        aggregates = [f for f in features if isinstance(f, AggregateFeature)]
        about = [featurizer.encoders.aggregates[f.name] for f in aggregates]
        self._rates = StoredRates(aggregates, about, entities.events)
        self._has_rates = bool(aggregates)
        self._count_places, self._rate_places = (
            _spaced([self._place[f"{f.name}.{part}"] for f in aggregates])
            for part in ("count", "rate")
        )
        self._time_parts = [f for f in features if isinstance(f, TimePartFeature)]

    def gather(
        self, entity_B: _Rows, time_B: _Rows, overlays: Sequence[Overlay]
    ) -> EncodedRows:
        """Encode rows.

        Args:
            entity_B: Number of each row's user or item; -1 for whoever is unknown.
            time_B: Microseconds since 1970, or ``NEVER``.
            overlays: What was given.

        Shape:
            - entity_B, time_B: ``(rows,)``
            - return: as many rows
        """
        entities = self._entities
        # Place -1 is the last row, which is that of the unknown.
        ids_BF = entities.ids_EF[entity_B]
        ids: dict[str, _Ints] = {
            name: ids_BF[:, place] for place, name in enumerate(entities.id_columns)
        }
        for part in self._time_parts:
            ids[part.name] = time_part_ids(time_B, part.part, part.utc_offset_hours)
        dense_BM = np.empty((len(entity_B), len(self._place)), np.float32)
        dense_BM[:, self._stored_places] = entities.dense_EM[entity_B]
        cuts = Cuts(entity_B, time_B)
        if self._has_rates:
            count_AB, rate_AB = self._rates.of(cuts, len(entity_B))
            dense_BM[:, self._count_places] = count_AB.T
            dense_BM[:, self._rate_places] = rate_AB.T
        rows = EncodedRows(
            pooled=self._pooled,
            sequence=self._sequence,
            ids=ids,
            lists={},
            starts={},
            lengths={},
            dense_NM=dense_BM,
            label_NT=None,
        )
        row_B = np.where(entity_B < 0, len(entities.ids_EF) - 1, entity_B)
        for name, ragged in entities.lists.items():
            start_B = ragged.offsets[row_B]
            rows.lists[name] = ragged.values
            rows.starts[name] = start_B
            rows.lengths[name] = ragged.offsets[row_B + 1] - start_B
        for history in self._histories:
            self._history(history, cuts, rows)
        for overlay in overlays:
            self._overlay(overlay, rows)
        return rows

    def _history(self, history: HistoryFeature, cuts: Cuts, rows: EncodedRows) -> None:
        stored = self._entities.events.get(history.name)
        columns = [f"{history.name}.{field}" for field in history.fields]
        found: dict[str, _Ints]
        if stored is None:
            nothing = np.zeros(rows.num_rows, np.int64)
            found = {column: np.empty(0, np.int32) for column in columns}
            gap, start_B, length_B = np.empty(0, np.int32), nothing, nothing
        else:
            windows = cuts.of(stored.log, history.length)
            found = {column: windows.take(stored.ids[column]) for column in columns}
            length_B = windows.lengths_B
            start_B = np.cumsum(length_B) - length_B
            age = np.repeat(cuts.time_B, length_B) - windows.take(stored.log.time_us)
            gap = gap_ids(age)
        if history.gaps:
            found[f"{history.name}.{GAP}"] = gap
        for column, ids in found.items():
            rows.lists[column] = ids
            rows.starts[column], rows.lengths[column] = start_B, length_B

    def _overlay(self, overlay: Overlay, rows: EncodedRows) -> None:
        laid: dict[int, tuple[_Ints, _Ints]] = {}
        places = overlay.places
        for name, column in zip(
            overlay.table.column_names, overlay.table.columns, strict=True
        ):
            cells = flat(column)
            if name in self._place:
                rows.dense_NM[places, self._place[name]] = cells.to_numpy()
            elif pa.types.is_list(cells.type):
                self._overlay_lists(name, overlay.rows, cells, rows, laid)
            else:
                rows.ids[name][places] = cells.to_numpy()

    def _overlay_lists(
        self,
        name: str,
        places: _Rows,
        cells: pa.ListArray,
        rows: EncodedRows,
        laid: dict[int, tuple[_Ints, _Ints]],
    ) -> None:
        """Append lists to the values, and point their rows there.

        Columns of one history share their starts and lengths, and still do afterwards.
        """
        starts = rows.starts[name]
        values = rows.lists[name]
        if name in self._entities.lists and values is self._entities.lists[name].values:
            # A mapped file: only what is read of it may be copied.
            lengths = rows.lengths[name]
            events = Windows(starts, starts + lengths).events
            values, starts = values[events], np.cumsum(lengths) - lengths
        given = cells.flatten().to_numpy()
        if id(rows.starts[name]) not in laid:
            new_starts, new_lengths = starts.copy(), rows.lengths[name].copy()
            offsets = cells.offsets.to_numpy()
            new_starts[places] = len(values) + offsets[:-1] - offsets[0]
            new_lengths[places] = np.diff(offsets)
            laid[id(rows.starts[name])] = new_starts, new_lengths
        known = laid[id(rows.starts[name])]
        rows.lists[name] = np.concatenate([values, given])
        rows.starts[name], rows.lengths[name] = known


def _spaced(places: list[int]) -> slice | _Rows:
    """Places as a slice where they are evenly spaced: much faster to write to."""
    steps = set(np.diff(places).tolist()) or {1}
    if places and len(steps) == 1 and (step := steps.pop()) > 0:
        return slice(places[0], places[-1] + 1, step)
    return np.array(places, np.int64)
