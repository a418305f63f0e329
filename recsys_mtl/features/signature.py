"""Which raw columns a recipe reads, from which table, and as what."""

import difflib
from collections.abc import Iterator
from typing import Literal, assert_never, final

import pyarrow as pa

from recsys_mtl.config.data import ColumnSplit, HashSplit
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
from recsys_mtl.config.task import SurvivalTask
from recsys_mtl.errors import DataError
from recsys_mtl.features.cast import RawType
from recsys_mtl.features.contract import (
    TIME,
    RawContract,
    aggregate_columns,
    column_of,
    event_column,
)
from recsys_mtl.features.schema import Artifact, RawColumn

__all__ = ["RawPlan", "plan_raw"]

_Origin = Literal["context", "user", "item"]
_Reading = Literal["id", "number", "list", "time"]
_LISTS: dict[RawType, RawType] = {
    "int": "int_list",
    "string": "string_list",
    "float": "float_list",
}


@final
class RawPlan(Artifact):
    """What to read of the raw tables.

    Attributes:
        signature: Columns that features read, with their canonical types.
        interactions: Columns to read of the log: those of features, labels,
            conditions, keys, time and split.
        users: Columns to read of the users, the key (under this table's name for it)
            included; empty without a table.
        items: Likewise of the items.
    """

    signature: tuple[RawColumn, ...]
    interactions: tuple[str, ...]
    users: tuple[str, ...] = ()
    items: tuple[str, ...] = ()


def plan_raw(
    recipe: Recipe,
    interactions: pa.Schema,
    users: pa.Schema | None = None,
    items: pa.Schema | None = None,
) -> RawPlan:
    """Find every column that ``recipe`` reads and decide its type, once.

    A column that several tables have is taken from the interactions, else from the
    users. Where the interactions and one entity table have it, a cell that is missing
    in the log, or left out of a request, is filled from that table. Ids are whole
    numbers where the table has them, or has real numbers (which is how whole numbers
    with holes are often written); otherwise they are text, so ids of CSV files are
    always text. A key whose type differs between two tables is text.

    Raises:
        DataError: Columns are missing or cannot be read as declared; all are named.
    """
    search = _Search(recipe, interactions, users, items)
    signature = search.signature()
    if search.faults:
        raise DataError("; ".join(dict.fromkeys(search.faults)))
    return RawPlan(
        signature=signature,
        interactions=tuple(search.wanted["context"]),
        users=tuple(search.wanted["user"]),
        items=tuple(search.wanted["item"]),
    )


class _Search:
    """Gathers columns and faults while it walks through the recipe."""

    def __init__(
        self,
        recipe: Recipe,
        interactions: pa.Schema,
        users: pa.Schema | None,
        items: pa.Schema | None,
    ) -> None:
        self.recipe = recipe
        self.tables: dict[_Origin, pa.Schema] = {"context": interactions}
        self.faults: list[str] = []
        # Dictionaries as ordered sets.
        self.wanted: dict[_Origin, dict[str, None]] = {
            "context": {},
            "user": {},
            "item": {},
        }
        data = recipe.data
        self.entity_keys: dict[_Origin, tuple[str, str]] = {}
        entities: tuple[
            tuple[_Origin, pa.Schema | None, str | None, str | None], ...
        ] = (
            ("user", users, data.keys.user, data.users.key if data.users else None),
            ("item", items, data.keys.item, data.items.key if data.items else None),
        )
        for origin, schema, key, own_key in entities:
            if schema is None:
                continue
            assert key is not None
            self.tables[origin] = schema
            self.entity_keys[origin] = key, own_key or key
            self.wanted[origin][own_key or key] = None
            if (own_key or key) not in schema.names:
                self._missing(f"data.{origin}s", own_key or key, (origin,))

    def signature(self) -> tuple[RawColumn, ...]:
        readings: dict[str, set[_Reading]] = {}
        scored: set[str] = set()
        features = {feature.name: feature for feature in self.recipe.features}
        data = self.recipe.data
        for key in (data.keys.user, data.keys.item):
            if key is not None:
                readings.setdefault(key, set()).add("id")
                scored.add(key)
                self._find("data.keys", key, only_log=True)
        if data.timestamp is not None:
            readings.setdefault(data.timestamp.column, set()).add("time")
            scored.add(data.timestamp.column)
            self._find("data.timestamp", data.timestamp.column, only_log=True)
        for feature in features.values():
            for column, reading in _read(feature):
                readings.setdefault(column, set()).add(reading)
                if not getattr(feature, "history_only", False):
                    scored.add(column)
                    self._fill_from_entity(column)
                if self._find(f"feature {feature.name!r}", column) is None:
                    del readings[column]
        for what, column in self._other_columns():
            self._find(what, column)
        signature = [
            RawColumn(
                name=column,
                type=self._type(column, kinds),
                origin=self._origin(column) or "context",
                history_only=column not in scored,
            )
            for column, kinds in readings.items()
        ]
        return (*signature, *self._event_columns(signature))

    def _event_columns(self, scalars: list[RawColumn]) -> Iterator[RawColumn]:
        types = {column.name: column.type for column in scalars}
        contract = RawContract.of(self.recipe, ())
        for history in contract.histories:
            assert contract.timestamp is not None
            for column in (*contract.event_columns(history), TIME):
                source = contract.timestamp.column if column == TIME else column
                if source in types:
                    yield RawColumn(
                        name=event_column(history.name, column),
                        type=_LISTS[types[source]],
                        origin="user",
                    )
        for aggregate in contract.aggregates:
            for column in aggregate_columns(aggregate.name):
                yield RawColumn(name=column, type="float", origin=aggregate.by)

    def _other_columns(self) -> Iterator[tuple[str, str]]:
        """Columns that no encoder reads, and who wants them."""
        for task in self.recipe.tasks:
            for column in task.label_columns:
                yield f"label of task {task.name!r}", column
            if isinstance(task, SurvivalTask) and task.end_column is not None:
                yield f"event of task {task.name!r}", task.end_column
            if task.sample_space is not None:
                yield f"sample space of task {task.name!r}", task.sample_space.column
            if task.row_weight is not None:
                yield f"row weight of task {task.name!r}", task.row_weight.column
        for feature in self.recipe.features:
            if isinstance(feature, HistoryFeature | AggregateFeature):
                if feature.where is not None:
                    yield f"feature {feature.name!r}", feature.where.column
                if isinstance(feature, AggregateFeature):
                    yield f"feature {feature.name!r}", feature.rate_of.column
        split = self.recipe.data.split
        if isinstance(split, ColumnSplit | HashSplit):
            yield "data.split", split.column

    def _find(self, what: str, column: str, only_log: bool = False) -> _Origin | None:
        origin = self._origin(column)
        if only_log and column not in self.tables["context"].names:
            origin = None
        if origin is None:
            tables: tuple[_Origin, ...] = (
                ("context",) if only_log else tuple(self.tables)
            )
            self._missing(what, column, tables)
        else:
            self.wanted[origin][column] = None
        return origin

    def _fill_from_entity(self, column: str) -> None:
        """Want a column of the log of the one entity that has it as well."""
        data = self.recipe.data
        of_the_log = {data.keys.user, data.keys.item}
        if data.timestamp is not None:
            of_the_log.add(data.timestamp.column)
        entities = [o for o in self.entity_keys if column in self.tables[o].names]
        in_log = column in self.tables["context"].names
        if in_log and len(entities) == 1 and column not in of_the_log:
            self.wanted[entities[0]][column] = None

    def _origin(self, column: str) -> _Origin | None:
        for origin, schema in self.tables.items():
            if column in schema.names:
                return origin
        return None

    def _missing(self, what: str, column: str, tables: tuple[_Origin, ...]) -> None:
        names = [name for origin in tables for name in self.tables[origin].names]
        near = difflib.get_close_matches(column, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
        shown = {"context": "interactions", "user": "users", "item": "items"}
        where = " nor ".join(shown[origin] for origin in tables)
        neither = "neither " if len(tables) > 1 else "not in "
        have = " have it" if len(tables) > 1 else ""
        self.faults.append(
            f"{what} reads column {column!r}: {neither}{where}{have}; {hint}"
        )

    def _type(self, column: str, kinds: set[_Reading]) -> RawType:
        origin = self._origin(column) or "context"
        field = self.tables[origin].field(column).type
        if "list" in kinds:
            return self._list_type(column, kinds, field)
        ids = [_id_type(field)]
        for entity, (key, own_key) in self.entity_keys.items():
            if key == column and own_key in self.tables[entity].names:
                ids.append(_id_type(self.tables[entity].field(own_key).type))
        if "id" in kinds:
            real = pa.types.is_floating(_plain(field))
            # As both id and number a fraction must survive, which text lets it.
            fraction = real and "number" in kinds
            return "string" if fraction or "string" in ids else "int"
        if "number" in kinds:
            return "float"
        assert self.recipe.data.timestamp is not None
        if self.recipe.data.timestamp.unit == "iso8601":
            return "string"
        if pa.types.is_floating(_plain(field)):
            return "float"
        return "int" if pa.types.is_temporal(_plain(field)) else _id_type(field)

    def _list_type(
        self, column: str, kinds: set[_Reading], field: pa.DataType
    ) -> RawType:
        if len(kinds) > 1:
            self.faults.append(
                f"column {column!r} is read both as a list and as a single value; "
                "give the list a column of its own"
            )
        separators = {
            f.separator
            for f in self.recipe.features
            if isinstance(f, ListFeature) and column_of(f) == column
        }
        if len(separators) > 1:
            self.faults.append(
                f"column {column!r} is split by several separators "
                f"({', '.join(map(repr, separators))}); declare one"
            )
        field = _plain(field)
        if hasattr(field, "value_type"):
            return _LISTS[_id_type(field.value_type)]
        if separators == {None}:
            self.faults.append(
                f"list column {column!r} has cells of type {field}, not lists; declare "
                "the `separator` that splits its text"
            )
        return "string_list"


def _read(feature: FeatureSpec) -> Iterator[tuple[str, _Reading]]:
    """Raw columns that a feature reads of a row."""
    match feature:
        case CategoricalFeature():
            yield column_of(feature), "id"
        case NumericFeature() | QuantileFeature():
            yield column_of(feature), "number"
        case ListFeature():
            yield column_of(feature), "list"
        case CrossFeature():
            for column in feature.columns:
                yield column, "id"
        case TimePartFeature() | HistoryFeature() | AggregateFeature():
            return
        case _:
            assert_never(feature)


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _id_type(kind: pa.DataType) -> Literal["int", "string"]:
    kind = _plain(kind)
    if pa.types.is_uint64(kind):
        return "string"  # may exceed what a signed number holds
    whole = (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
    )
    return "int" if whole else "string"
