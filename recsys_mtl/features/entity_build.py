"""Raw rows of users or items, and their newest events -> one entity table."""

from collections.abc import Sequence
from typing import Literal

import pyarrow as pa

from recsys_mtl.errors import DataError
from recsys_mtl.features.column import flat
from recsys_mtl.features.contract import RawContract
from recsys_mtl.features.counts import FeatureCounts
from recsys_mtl.features.entity import EntityTable

__all__ = ["build_entities", "with_events"]


def build_entities(
    contract: RawContract,
    origin: Literal["user", "item"],
    table: pa.Table,
    *,
    key: str,
    counts: FeatureCounts | None = None,
) -> EntityTable:
    """Cast a raw table of users or items and sort it by key.

    The key column takes the interactions' name. A column that the interactions have
    too is kept, for the cells that they or a request lack.

    Args:
        contract: What features read.
        origin: Which of the two the rows are.
        table: Raw rows with the columns that ``plan_raw`` names.
        key: Name of the key column in ``table``.
        counts: Gains unreadable cells.

    Raises:
        DataError: There is no such key column.
    """
    name = getattr(contract.keys, origin)
    assert name is not None
    if key not in table.column_names:
        raise DataError(
            f"data.{origin}s has no key column {key!r}; there are "
            f"{', '.join(table.column_names)}"
        )
    origins = {column.name: column.origin for column in contract.signature}
    kept = {name: table.column(key)} | {
        column: table.column(column)
        for column in table.column_names
        if column not in (key, name)
        and origins.get(column, origin) in (origin, "context")
    }
    rows = contract.canonical(pa.table(kept), counts).select(list(kept))
    return EntityTable.build(rows, name)


def with_events(
    entities: EntityTable | None, newest: Sequence[pa.Table]
) -> EntityTable | None:
    """Add the newest events to a table of entities; entities without any have nulls.

    Args:
        entities: Their other columns, if there are any.
        newest: Tables of ``EventBlock.newest``, each with entities of its own.

    Returns:
        Entities of either source; ``None`` if there is no source.
    """
    if not newest:
        return entities
    events = pa.concat_tables(newest)
    key = events.column_names[0]
    by_key = EntityTable.build(events, key)
    if entities is None:
        return by_key
    new = entities.find(by_key.rows.column(key)) < 0
    keys = pa.concat_arrays(
        [
            flat(entities.rows.column(key)),
            flat(by_key.rows.column(key)).filter(pa.array(new)),
        ]
    )
    columns: dict[str, pa.Array | pa.ChunkedArray] = {key: keys}
    for table in (entities, by_key):
        rows, _ = table.lookup(keys)
        columns |= {name: rows.column(name) for name in rows.column_names}
    built = EntityTable.build(pa.table(columns), key)
    return EntityTable(
        key, built.rows, built.index, entities.duplicates, entities.keyless
    )
