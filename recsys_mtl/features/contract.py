"""What features ask of raw rows, and how rows are made to keep it."""

from collections.abc import Collection, Iterator
from functools import cached_property
from typing import assert_never, final

import pyarrow as pa

from recsys_mtl.config.data import KeysSpec, TimestampSpec
from recsys_mtl.config.feature import (
    AggregateFeature,
    CategoricalFeature,
    CrossFeature,
    FeatureSpec,
    HistoryFeature,
    ListFeature,
    NumericFeature,
    QuantileFeature,
    TimePartFeature,
)
from recsys_mtl.config.recipe import Recipe
from recsys_mtl.features.cast import ARROW_TYPES, Cast, RawType, cast_column, coded_text
from recsys_mtl.features.column import flat
from recsys_mtl.features.counts import FeatureCounts
from recsys_mtl.features.schema import Artifact, RawColumn

__all__ = [
    "HIT",
    "ITEM_KEY",
    "TIME",
    "TIME_KEY",
    "USER_KEY",
    "RawContract",
    "aggregate_columns",
    "column_of",
    "event_column",
]

USER_KEY, ITEM_KEY, TIME_KEY = "key.user", "key.item", "key.time"
"""Columns of feature tables that say who saw what and when."""

TIME = "time"
"""Last part of the name of a history's column of times."""

HIT = "hit"
"""Last part of the name of an aggregate's stored list of outcomes."""


def column_of(
    feature: CategoricalFeature | NumericFeature | QuantileFeature | ListFeature,
) -> str:
    """Raw column that a feature reads."""
    return feature.column or feature.name


def event_column(history: str, column: str) -> str:
    """Name of the list column with one raw column of a history's events."""
    return f"{history}.{column}"


def aggregate_columns(aggregate: str) -> tuple[str, str]:
    """Raw columns that hold an aggregate: earlier rows, and hits among them."""
    return f"{aggregate}.rows", f"{aggregate}.hits"


@final
class RawContract(Artifact):
    """Features together with the raw columns they read.

    Attributes:
        features: Of the recipe.
        keys: Of the recipe.
        timestamp: Of the recipe.
        signature: Every raw column with its type and origin, decided when the encoders
            were fitted.
    """

    features: tuple[FeatureSpec, ...]
    keys: KeysSpec
    timestamp: TimestampSpec | None
    signature: tuple[RawColumn, ...]

    @classmethod
    def of(cls, recipe: Recipe, signature: tuple[RawColumn, ...]) -> "RawContract":
        """Take what concerns features out of a recipe."""
        data = recipe.data
        return cls(
            features=recipe.features,
            keys=data.keys,
            timestamp=data.timestamp,
            signature=signature,
        )

    @cached_property
    def histories(self) -> tuple[HistoryFeature, ...]:
        """Features of kind ``history``."""
        return tuple(f for f in self.features if isinstance(f, HistoryFeature))

    @cached_property
    def aggregates(self) -> tuple[AggregateFeature, ...]:
        """Features of kind ``aggregate``."""
        return tuple(f for f in self.features if isinstance(f, AggregateFeature))

    def event_columns(self, history: HistoryFeature) -> tuple[str, ...]:
        """Raw columns of a history's fields, each once, in their order."""
        by_name = {feature.name: feature for feature in self.features}
        columns = []
        for name in history.fields:
            field = by_name[name]
            assert isinstance(field, CategoricalFeature | QuantileFeature)
            columns.append(column_of(field))
        return tuple(dict.fromkeys(columns))

    def match_types(self, history: HistoryFeature) -> dict[str, RawType]:
        """Raw columns in which a history's events are as the scored row, with types."""
        by_name = {feature.name: feature for feature in self.features}
        types = {}
        for name in history.match:
            field = by_name[name]
            assert isinstance(field, CategoricalFeature)
            types[column_of(field)] = self.type_of(column_of(field))
        return types

    def reads(self, feature: FeatureSpec) -> tuple[str, ...]:
        """Raw columns of a row that a feature reads."""
        match feature:
            case (
                CategoricalFeature()
                | NumericFeature()
                | QuantileFeature()
                | ListFeature()
            ):
                return (column_of(feature),)
            case CrossFeature():
                return feature.columns
            case TimePartFeature():
                return () if self.timestamp is None else (self.timestamp.column,)
            case HistoryFeature():
                return tuple(
                    event_column(feature.name, column)
                    for column in (*self.event_columns(feature), TIME)
                )
            case AggregateFeature():
                return aggregate_columns(feature.name)
            case _:
                assert_never(feature)

    def only(self, names: Collection[str]) -> "RawContract":
        """Keep some features, and of the signature what these read.

        The fields of a history stay with it, for its events alone. Keys and timestamp
        always stay.
        """
        histories = [h for h in self.histories if h.name in names]
        fields = {field for history in histories for field in history.fields}
        features: list[FeatureSpec] = []
        for feature in self.features:
            if feature.name in names:
                features.append(feature)
            elif feature.name in fields:
                features.append(feature.model_copy(update={"history_only": True}))
        spec = self.timestamp
        scored = {self.keys.user, self.keys.item, spec and spec.column}
        scored |= {
            column for history in histories for column in self.match_types(history)
        }
        scored |= {
            column
            for feature in features
            if not getattr(feature, "history_only", False)
            for column in self.reads(feature)
        }
        of_events = {c for history in histories for c in self.event_columns(history)}
        return RawContract(
            features=tuple(features),
            keys=self.keys,
            timestamp=spec,
            signature=tuple(
                column
                if column.name in scored
                else column.model_copy(update={"history_only": True})
                for column in self.signature
                if column.name in scored or column.name in of_events
            ),
        )

    def type_of(self, column: str) -> RawType:
        """Type that the signature gives a raw column."""
        return self._types[column]

    def cast(self, column: str, cells: pa.Array | pa.ChunkedArray) -> Cast:
        """Cast cells of one raw column to the signature's type.

        Times in a column of Arrow timestamps stay: they bring their own unit.
        """
        if self._is_time(column) and pa.types.is_temporal(cells.type):
            return Cast(flat(cells), 0)
        return cast_column(cells, self.type_of(column), self._separators.get(column))

    def canonical(
        self,
        raw: pa.Table,
        counts: FeatureCounts | None = None,
        *,
        keep_codes: bool = False,
    ) -> pa.Table:
        """Cast the signature's columns to their types.

        Columns that ``raw`` lacks are added as nulls, but for those that only histories
        read. Other columns pass. A table that is canonical already stays as it is.

        Args:
            raw: Rows from a file or a request.
            counts: Gains the unreadable cells.
            keep_codes: Whether texts, keys aside, may stay dictionaries; see
                ``coded_text``.
        """
        present = set(raw.column_names)
        columns = {name: raw.column(name) for name in raw.column_names}
        for column in self.signature:
            name = column.name
            coded = None
            if keep_codes and name in present and column.type == "string":
                coded = coded_text(columns[name])
            if coded is not None and name not in (self.keys.user, self.keys.item):
                columns[name] = coded
            elif name in present:
                cells = self.cast(name, columns[name])
                columns[name] = cells.array
                if cells.unreadable and counts is not None:
                    for reader in self._readers(name):
                        counts.add(reader, unreadable=cells.unreadable)
            elif not column.history_only and name not in self._event_names:
                columns[name] = pa.nulls(raw.num_rows, ARROW_TYPES[column.type])
        return pa.table(columns)

    @cached_property
    def stored_lists(self) -> frozenset[str]:
        """Columns of entity tables that are lists of events, no columns of a row."""
        return self._event_names | {
            event_column(aggregate.name, part)
            for aggregate in self.aggregates
            for part in (TIME, HIT)
        }

    @cached_property
    def _event_names(self) -> frozenset[str]:
        return frozenset(
            event_column(history.name, column)
            for history in self.histories
            for column in (*self.event_columns(history), TIME)
        )

    @cached_property
    def _separators(self) -> dict[str, str | None]:
        return {
            column_of(f): f.separator
            for f in self.features
            if isinstance(f, ListFeature)
        }

    @cached_property
    def _types(self) -> dict[str, RawType]:
        return {column.name: column.type for column in self.signature}

    def _is_time(self, name: str) -> bool:
        return self.timestamp is not None and name == self.timestamp.column

    def _readers(self, name: str) -> Iterator[str]:
        """Names under which unreadable cells of a column count."""
        if name == self.keys.user:
            yield USER_KEY
        if name == self.keys.item:
            yield ITEM_KEY
        if self._is_time(name):
            yield TIME_KEY
        for feature in self.features:
            if not isinstance(feature, TimePartFeature) and name in self.reads(feature):
                yield feature.name
