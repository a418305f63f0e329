"""Requests -> encoded rows: gathered where stored, encoded where given."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys_mtl.config.feature import HistoryFeature, TimePartFeature
from recsys_mtl.data.request_batch import RequestBatch
from recsys_mtl.export.encoded import EncodedStore
from recsys_mtl.features.column import present
from recsys_mtl.features.encoded_schema import encoded_columns
from recsys_mtl.features.entity import EntityTable
from recsys_mtl.features.featurizer import Featurizer
from recsys_mtl.features.join import FeatureStore
from recsys_mtl.features.time import NEVER
from recsys_mtl.rank.parts import RankParts
from recsys_mtl.rank.place_cache import PlaceCache
from recsys_mtl.rank.rows import Overlay, SideRows
from recsys_mtl.rank.slice import FeatureSlices

__all__ = ["EncodedRequest", "EncodedRequests", "RequestEncoder"]

_Rows = npt.NDArray[np.int64]
_KEPT: Final = 256


@final
@dataclass(frozen=True)
class EncodedRequest:
    """A request of which whatever differs from what is stored is encoded.

    Attributes:
        parts: As it was read.
        user_row: Number of its user in the table; -1 if unknown.
        item_row_N: Likewise of its candidates.
        shared: Given features of the user and of the context, for the one row.
        own: Given features of candidates, for the candidates named by each.
    """

    parts: RankParts
    user_row: int
    item_row_N: _Rows
    shared: tuple[pa.Table, ...]
    own: tuple[tuple[_Rows, pa.Table], ...]


@final
@dataclass(frozen=True)
class EncodedRequests:
    """Several requests, ready for the network.

    Attributes:
        batch: Their rows.
        known_user_R: Whether the bundle knows each request's user.
        known_item_N: Whether it knows each candidate, one request after the other.
    """

    batch: RequestBatch
    known_user_R: npt.NDArray[np.bool_]
    known_item_N: npt.NDArray[np.bool_]


@final
class RequestEncoder:
    """Encodes rank requests as the plain path does, without going through raw rows.

    A row of a known user or item is gathered from ``EncodedStore``; histories and
    aggregates are cut from stored events as of the request's time. Whatever a request
    gives itself goes through the featurizer: only the features that read it, once for
    what candidates share. What features read of both sides, as a cross of user and
    item or a history of events like the candidate, goes that way in every request.

    Args:
        featurizer: Of the bundle.
        store: Of the bundle.
        encoded: Of the same store.
    """

    def __init__(
        self, featurizer: Featurizer, store: FeatureStore, encoded: EncodedStore
    ) -> None:
        contract = featurizer.contract
        self._featurizer, self._store, self._encoded = featurizer, store, encoded
        self._slices = FeatureSlices(featurizer, store)
        self._user_key, self._item_key = contract.keys.user, contract.keys.item
        split = encoded.split
        # By feature, the raw columns it reads.
        self._shared_reads: dict[str, frozenset[str]] = {}
        self._own_reads: dict[str, frozenset[str]] = {}
        for feature in contract.features:
            if isinstance(feature, TimePartFeature):
                continue  # reads the time, which is never stored
            reads = frozenset(contract.reads(feature))
            if isinstance(feature, HistoryFeature):
                reads = reads.union(contract.match_types(feature))
            column = encoded_columns(feature)[0]
            if column in split.shared:
                self._shared_reads[feature.name] = reads
            elif column in split.own:
                self._own_reads[feature.name] = reads
        users = frozenset(() if store.users is None else store.users.columns)
        items = frozenset(() if store.items is None else store.items.columns)
        spec = contract.timestamp
        always = set() if spec is None else {spec.column}
        # Which of two tables fills a cell is for the plain path to know.
        self._divisible = not (users & items) - contract.stored_lists
        # Which events are like the scored row is told by raw values: never stored.
        matched = {h.name for h in contract.histories if h.match}
        self._shared_always = _readers(self._shared_reads, always)
        self._shared_always |= matched & self._shared_reads.keys()
        self._own_always = _readers(self._own_reads, {*always, self._user_key, *users})
        self._own_always |= matched & self._own_reads.keys()
        self._shared_by_key = _readers(self._shared_reads, {self._user_key})
        self._own_by_key = _readers(self._own_reads, {self._item_key})
        if not encoded.users.keyed:
            self._shared_always |= self._shared_by_key
        if not encoded.items.keyed and store.items is not None:
            self._own_always |= self._own_by_key
        self._users = None if store.users is None else PlaceCache(store.users)
        self._items = None if store.items is None else PlaceCache(store.items)
        self._touched = lru_cache(_KEPT)(self._features_touched)
        self._shared_rows = SideRows(featurizer, encoded.users, split, shared=True)
        self._own_rows = SideRows(featurizer, encoded.items, split, shared=False)

    def splits(self, parts: RankParts) -> bool:
        """Whether what candidates share can be encoded once in this request.

        It cannot where a column of the impression differs from item to item.
        """
        if not self._divisible:
            return False
        return not (parts.given_own and _readers(self._shared_reads, parts.given_own))

    def encode(self, parts: RankParts) -> EncodedRequest:
        """Look one request up, and encode what it gives itself.

        Raises:
            DataError: What it gives does not fit together.
        """
        user_row, item_row_N = -1, np.full(len(parts.ids), -1)
        user, item = self._user_key, self._item_key
        if user is not None and self._users is not None:
            user_row = int(self._users.find(parts.shared[user])[0])
        if item is not None and self._items is not None:
            item_row_N = self._items.find(parts.own[item])
        shared, own = self._touched(parts.given)
        shared_tables, own_tables = [], []
        if user_row < 0 and user is not None and parts.shared[user][0].is_valid:
            shared |= self._shared_by_key
        if shared:
            shared_tables.append(self._slices.of(shared).encode(parts.shared_table()))
        if own and len(parts.ids):
            part = self._slices.of(own)
            everyone = np.arange(len(parts.ids))
            own_tables.append((everyone, part.encode(parts.table_of(part.reads))))
        left = self._own_by_key - own
        if left and item is not None:
            unknown = np.flatnonzero((item_row_N < 0) & present(parts.own[item]))
            if len(unknown):
                keys = parts.own[item].take(pa.array(unknown))
                found = self._slices.of(left).encode(pa.table({item: keys}))
                own_tables.append((unknown, found))
        return EncodedRequest(
            parts, user_row, item_row_N, tuple(shared_tables), tuple(own_tables)
        )

    def together(self, requests: Sequence[EncodedRequest]) -> EncodedRequests:
        """Lay several requests out as one batch."""
        size_R = np.array([len(request.parts.ids) for request in requests], np.int64)
        start_R = np.cumsum(size_R) - size_R
        request_N = np.repeat(np.arange(len(requests), dtype=np.int64), size_R)
        times = [request.parts.time_us for request in requests]
        time_R = np.array([NEVER if t is None else t for t in times], np.int64)
        user_R = np.array([request.user_row for request in requests], np.int64)
        item_N = np.concatenate([request.item_row_N for request in requests])
        shared = [
            Overlay(np.array([r]), table)
            for r, request in enumerate(requests)
            for table in request.shared
        ]
        own = [
            Overlay(start + rows, table)
            for start, request in zip(start_R, requests, strict=True)
            for rows, table in request.own
        ]
        batch = RequestBatch(
            self._encoded.split,
            self._shared_rows.gather(user_R, time_R, shared),
            self._own_rows.gather(item_N, time_R[request_N], own),
            request_N,
        )
        parts = [request.parts for request in requests]
        user, item = self._user_key, self._item_key
        return EncodedRequests(
            batch,
            self._known(self._store.users, user, user_R, [p.shared for p in parts]),
            self._known(self._store.items, item, item_N, [p.own for p in parts]),
        )

    def _known(
        self,
        table: EntityTable | None,
        key: str | None,
        rows: _Rows,
        columns: Sequence[dict[str, pa.Array]],
    ) -> npt.NDArray[np.bool_]:
        if table is not None or key is None:
            return rows >= 0
        given = pa.concat_arrays([of[key] for of in columns])
        known = self._featurizer.known(key, given)
        if known is not None:
            return known
        return present(self._featurizer.contract.cast(key, given).array)

    def _features_touched(
        self, given: frozenset[str]
    ) -> tuple[frozenset[str], frozenset[str]]:
        """Features to encode anew, of either side, where these columns are given."""
        return (
            self._shared_always | _readers(self._shared_reads, given),
            self._own_always | _readers(self._own_reads, given),
        )


def _readers(
    reads: Mapping[str, frozenset[str]], columns: Collection[str | None]
) -> frozenset[str]:
    """Features that read any of some columns."""
    return frozenset(name for name, of in reads.items() if not of.isdisjoint(columns))
