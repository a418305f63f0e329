"""Which events of a history are like the row that is scored."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from recsys_mtl.features.cast import RawType, cast_column
from recsys_mtl.features.column import filled, flat
from recsys_mtl.features.contract import TIME

__all__ = ["matching"]


def matching(
    events: pa.Table, rows: pa.Table, types: Mapping[str, RawType]
) -> pa.Table:
    """Keep, of each row's events, those with the row's own values.

    Raw values are compared, so values outside a vocabulary are told apart. A missing
    value is like none, not even like another missing one.

    Args:
        events: List columns, one row per scored row; ``time`` is one of them.
        rows: The scored rows, canonical.
        types: Of the raw columns that are compared.

    Returns:
        The columns of ``events``, with shorter lists in the same order.

    References:
        Pi et al., "Search-based User Interest Modeling with Lifelong Sequential
        Behavior Data for Click-Through Rate Prediction", CIKM 2020,
        doi:10.1145/3340531.3412744; there it is the hard search.

    Example:
        >>> events = pa.table({"shop": [["a", "b", "a"]], "time": [[1, 2, 3]]})
        >>> matching(events, pa.table({"shop": ["a"]}), {"shop": "string"}).to_pylist()
        [{'shop': ['a', 'a'], 'time': [1, 3]}]
    """
    count_B = filled(flat(events.column(TIME)).value_lengths(), 0)
    row_N = np.repeat(np.arange(len(count_B)), count_B)
    alike_N = np.ones(len(row_N), bool)
    for column, kind in types.items():
        cells = flat(events.column(column)).flatten()
        own_B, event_N = _codes(flat(rows.column(column)), cells, kind)
        alike_N &= (event_N >= 0) & (event_N == own_B[row_N])
    kept = np.flatnonzero(alike_N)
    count_B = np.bincount(row_N[kept], minlength=len(count_B))
    offsets = pa.array(np.concatenate([[0], np.cumsum(count_B)]).astype(np.int32))
    places = pa.array(kept)
    return pa.table(
        {
            name: pa.ListArray.from_arrays(
                offsets, flat(events.column(name)).flatten().take(places)
            )
            for name in events.column_names
        }
    )


def _codes(
    own: pa.Array, cells: pa.Array, kind: RawType
) -> tuple[np.ndarray, np.ndarray]:
    """Number the values of rows and of events alike; -1 is missing."""
    if pa.types.is_dictionary(cells.type):
        known, places = cells.dictionary, filled(cells.indices, -1)
    else:
        known, places = cells, np.arange(len(cells))
    known = cast_column(known, kind).array
    both = pa.concat_arrays([own, known]).dictionary_encode()
    codes = filled(both.indices, -1)
    return codes[: len(own)], np.append(codes[len(own) :], -1)[places]
