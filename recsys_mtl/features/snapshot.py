"""Users or items, encoded once: a request gathers rows instead of encoding cells.

Made with the featurizer that encodes everything else, so a gathered row is what the
featurizer would make of the stored cells.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal, final

import numpy as np
import pyarrow as pa

from recsys_mtl.errors import ArtifactError
from recsys_mtl.features.column import flat
from recsys_mtl.features.contract import HIT, TIME, event_column
from recsys_mtl.features.entity import EntityTable, key_type
from recsys_mtl.features.events import hits_before
from recsys_mtl.features.featurizer import Featurizer
from recsys_mtl.features.history import EventLog

__all__ = ["EncodedEntities", "RaggedIds", "StoredEvents", "encode_entities"]

Side = Literal["user", "item"]
_BLOCK: Final = 65_536


@final
@dataclass(frozen=True)
class RaggedIds:
    """A list of ids for each entity, one list after the other.

    Attributes:
        values: Of all entities, ``int32``.
        offsets: Where each entity's begin, and at last where they end.
    """

    values: np.ndarray
    offsets: np.ndarray


@final
@dataclass(frozen=True)
class StoredEvents:
    """The newest events of each entity, in order of time.

    Attributes:
        log: Which events are whose, and when; those without a time are left out.
        ids: Of a history, by encoded column, the id of each event, in as few bytes as
            hold them.
        hits_before: Of an aggregate, hits before each event.
    """

    log: EventLog
    ids: Mapping[str, np.ndarray]
    hits_before: np.ndarray | None = None


@final
@dataclass(frozen=True)
class EncodedEntities:
    """Features of users or of items, encoded; the last row is of whoever is unknown.

    Attributes:
        keyed: Whether features of the key are of the row's key; otherwise they are as
            if it were missing, since requests may write a key in several ways.
        id_columns: Columns of ``ids_EF``.
        ids_EF: Single ids, ``int32``.
        dense_columns: Columns of ``dense_EM``.
        dense_EM: Numbers, ``float32``.
        lists: By column, lists of ids.
        events: By history or aggregate.
    """

    keyed: bool
    id_columns: tuple[str, ...]
    ids_EF: np.ndarray
    dense_columns: tuple[str, ...]
    dense_EM: np.ndarray
    lists: Mapping[str, RaggedIds]
    events: Mapping[str, StoredEvents]

    def arrays(self) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Give arrays by name, and what else there is to tell, for a file."""
        found = {"ids": self.ids_EF, "dense": self.dense_EM}
        for column, ragged in self.lists.items():
            found[f"list/{column}/values"] = ragged.values
            found[f"list/{column}/offsets"] = ragged.offsets
        written: dict[int, str] = {}
        logs = {}
        # Sorted, since a file does not keep their order.
        for name, events in sorted(self.events.items()):
            # Histories and aggregates of one condition share their times.
            log = logs[name] = written.setdefault(id(events.log), name)
            if log == name:
                found[f"log/{name}/offsets"] = events.log.offsets
                found[f"log/{name}/time"] = events.log.time_us
            for column, ids in events.ids.items():
                found[f"event/{name}/{column}"] = ids
            if events.hits_before is not None:
                found[f"hits/{name}"] = events.hits_before
        about = {"keyed": str(int(self.keyed))}
        about |= {"ids": "\n".join(self.id_columns)}
        about |= {"dense": "\n".join(self.dense_columns)}
        about |= {f"log/{name}": log for name, log in logs.items()}
        return found, about

    @classmethod
    def of_arrays(
        cls, arrays: Mapping[str, np.ndarray], about: Mapping[str, str]
    ) -> "EncodedEntities":
        """Take what ``arrays`` gave.

        Raises:
            ArtifactError: Something is missing.
        """
        try:
            named = {name.removeprefix("log/"): of for name, of in about.items()}
            events = [name.removeprefix("log/") for name in about if "/" in name]
            logs = {
                name: EventLog(
                    arrays[f"log/{name}/offsets"],
                    arrays[f"log/{name}/time"],
                    rows=np.empty(0, np.int64),
                )
                for name in {named[event] for event in events}
            }
            columns = [n.split("/")[1] for n in arrays if n.endswith("/values")]
            return cls(
                keyed=about["keyed"] == "1",
                id_columns=tuple(filter(None, about["ids"].split("\n"))),
                ids_EF=arrays["ids"],
                dense_columns=tuple(filter(None, about["dense"].split("\n"))),
                dense_EM=arrays["dense"],
                lists={
                    column: RaggedIds(
                        arrays[f"list/{column}/values"],
                        arrays[f"list/{column}/offsets"],
                    )
                    for column in columns
                },
                events={
                    name: StoredEvents(
                        logs[named[name]],
                        {
                            array.split("/", 2)[2]: arrays[array]
                            for array in arrays
                            if array.startswith(f"event/{name}/")
                        },
                        arrays.get(f"hits/{name}"),
                    )
                    for name in events
                },
            )
        except KeyError as error:
            raise ArtifactError(
                f"encoded entities lack {error}; build the bundle again"
            ) from error


def encode_entities(
    featurizer: Featurizer,
    table: EntityTable | None,
    by: Side,
    features: Collection[str],
) -> EncodedEntities:
    """Encode all users, or all items.

    Args:
        featurizer: Fitted.
        table: Their stored columns; without one there is the unknown row alone.
        by: Which of the two they are.
        features: Names of features to encode, of kinds that one row decides: no
            histories, aggregates or parts of time. Raw columns that ``table`` lacks
            count as missing.
    """
    contract = featurizer.contract
    key = contract.keys.user if by == "user" else contract.keys.item
    part = featurizer.only(features)
    schema = part.schema
    keyed = False
    stored: list[str] = []
    if table is not None:
        stored = [name for name in table.columns if name not in contract.stored_lists]
        kind = key_type(table.rows.schema.field(table.key).type)
        keyed = key is not None and contract.type_of(key) == kind
        if keyed:
            stored.append(table.key)
    read = {column.name for column in part.signature}
    stored = [name for name in stored if name in read]
    blocks = []
    if table is not None:
        for start in range(0, table.rows.num_rows, _BLOCK):
            rows = table.rows.slice(start, _BLOCK)
            blocks.append(part.encode(_with_rows(rows.select(stored), rows.num_rows)))
    # Who is unknown has no cells.
    blocks.append(part.encode(pa.table({"": pa.nulls(1)})))
    encoded = pa.concat_tables(blocks)
    num_rows = 1 if table is None else 1 + table.rows.num_rows
    single = tuple(f.name for f in schema.ids if not (f.multi or f.history_only))
    return EncodedEntities(
        keyed=keyed,
        id_columns=single,
        ids_EF=_matrix(encoded, single, num_rows, np.int32),
        dense_columns=schema.dense,
        dense_EM=_matrix(encoded, schema.dense, num_rows, np.float32),
        lists={
            field.name: _ragged(encoded.column(field.name))
            for field in schema.ids
            if field.multi
        },
        events=_stored_events(featurizer, table, by),
    )


def _with_rows(table: pa.Table, num_rows: int) -> pa.Table:
    """A table without columns forgets how many rows it has."""
    return table if table.num_columns else pa.table({"": pa.nulls(num_rows)})


def _matrix(
    table: pa.Table, columns: tuple[str, ...], num_rows: int, kind: type
) -> np.ndarray:
    # Asked for, since a table of no columns forgets how many rows it has.
    matrix: np.ndarray = np.empty((num_rows, len(columns)), kind)
    for place, name in enumerate(columns):
        matrix[:, place] = table.column(name).to_numpy()
    return matrix


def _ragged(column: pa.ChunkedArray) -> RaggedIds:
    lists = flat(column)
    lengths = lists.value_lengths().to_numpy()
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return RaggedIds(lists.flatten().to_numpy(), offsets)


def _narrow(ids: np.ndarray, size: int) -> np.ndarray:
    """Ids below ``size`` in as few bytes as hold them."""
    return ids.astype(np.min_scalar_type(max(size, 2) - 1))


def _stored_events(
    featurizer: Featurizer, table: EntityTable | None, by: Side
) -> dict[str, StoredEvents]:
    contract = featurizer.contract
    found: dict[str, StoredEvents] = {}
    logs: list[EventLog] = []
    sizes = {field.name: field.size for field in featurizer.schema.ids}
    for history in contract.histories:
        if by != "user" or history.match:
            continue  # which events are like a candidate, raw values tell
        columns = contract.event_columns(history)
        lists = _event_lists(table, history.name, (*columns, TIME))
        if lists is None:
            continue
        log = EventLog.from_lists(lists.column(TIME))
        ids = {
            column: _narrow(
                ids[log.rows], sizes[column.removeprefix(f"{history.name}.")]
            )
            for column, ids in featurizer.event_ids(history, lists).items()
        }
        found[history.name] = StoredEvents(_shared(log, logs), ids)
    for aggregate in contract.aggregates:
        if aggregate.by != by:
            continue
        lists = _event_lists(table, aggregate.name, (TIME, HIT))
        if lists is None:
            continue
        log = EventLog.from_lists(lists.column(TIME))
        hit_E = flat(lists.column(HIT)).flatten().to_numpy()[log.rows]
        found[aggregate.name] = StoredEvents(_shared(log, logs), {}, hits_before(hit_E))
    return found


def _event_lists(
    table: EntityTable | None,
    feature: str,
    parts: tuple[str, ...],
) -> pa.Table | None:
    """Lists of a history or an aggregate by part of their name, if they are stored."""
    if table is None or event_column(feature, TIME) not in table.columns:
        return None
    return pa.table(
        {part: table.rows.column(event_column(feature, part)) for part in parts}
    )


def _shared(log: EventLog, logs: list[EventLog]) -> EventLog:
    """The log already there that says the same, so that it is searched once."""
    for other in logs:
        if np.array_equal(other.offsets, log.offsets) and np.array_equal(
            other.time_us, log.time_us
        ):
            return other
    logs.append(log)
    return log
