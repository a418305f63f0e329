"""Rows for a store, checked before they are kept."""

import tracemalloc

import pytest

from recsys_mtl.entities import EntitySchema
from recsys_mtl.entities.row import EntityInput, read_rows
from recsys_mtl.errors import RequestError
from recsys_mtl.rank.card import InputColumn

SCHEMA = EntitySchema([InputColumn("age", "int", "user", "feature")], {})


def read(*rows):
    return read_rows("users", rows, range(len(rows)), [SCHEMA], "rows[{i}].")


def test_rows_keep_what_they_tell():
    told = read(EntityInput(features={"age": 3}), EntityInput())
    assert told == [("0", {"age": 3}), ("1", {})]


def test_unknown_columns_are_named_before_they_get_a_cell_in_every_row():
    last = EntityInput(features={f"unknown{n}": 0 for n in range(20_000)})
    rows = [EntityInput()] * 1_999
    tracemalloc.start()
    with pytest.raises(RequestError, match="unknown name 'unknown0'") as refused:
        read(*rows, last)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused.value.field == "rows[1999].features.unknown0"
    assert peak < 20_000_000
