"""One rule for what a request gives and a store knows, in whatever form it comes."""

import asyncio
from contextlib import closing

import numpy as np
import pyarrow as pa
import pytest
from entity_app import BOTH, SLOW
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from rich_bundle import OWN_FEATURES, SEEN, SHARED_FEATURES, make, spec_of

from recsys_mtl.entities.row import EntityInput, read_rows
from recsys_mtl.export.bundle import load_bundle
from recsys_mtl.rank.ranker import Ranker
from recsys_mtl.rank.request import (
    ItemInput,
    RankRequest,
    RankTable,
    ScoreRequest,
    ScoreTable,
    UserInput,
)
from serving.entity_lookup import EntityLookup
from serving.entity_settings import LmdbSettings
from serving.model_set import ModelSet

AT = 1_700_000_040
USERS, ITEMS = ("u1", "nobody"), (101, 102, 999)
SEPARATORS = {"interests": ",", "tags": "|"}
HISTORIES = {"clicks": ("item_id", "brand"), "seen": ("item_id", "clicked")}
OF_USERS = ("city", "age", "interests", "user_ctr.rows", "user_ctr.hits")
OF_ITEMS = ("brand", "tags", "item_ctr.rows", "item_ctr.hits")


class Server:
    """A ranker and a store in front of it."""

    def __init__(self, ranker, lookup):
        self.ranker, self._lookup = ranker, lookup
        (self._model,) = ModelSet.of({"rich": ranker}).models

    def store(self, kind, cells_of):
        """Take the place of all that is stored of a kind."""
        schema = self._lookup.schema(self._model)
        self._lookup.store.delete_many(kind, [str(key) for key in cells_of])
        for checked in (schema.version, ""):
            rows = []
            for key, cells in cells_of.items():
                if cells is not None and bool(checked) == bool(len(cells) % 2):
                    row = EntityInput(features=cells)
                    rows += read_rows(kind, [row], [key], [schema], "")
            self._lookup.store.put_many(kind, rows, now_us=0, checked=checked)

    def ask(self, request):
        filled, _, degraded = asyncio.run(
            self._lookup.fill(request, self._model, time_s=60)
        )
        assert not degraded
        (outcome,) = self.ranker.respond([filled], now_us=0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rich")
    lists = {"interests": {"separator": SEPARATORS["interests"]}}
    features = [
        feature | lists.get(feature["name"], {})
        for feature in (*SHARED_FEATURES, *OWN_FEATURES, SEEN)
    ]
    spec = spec_of(features, items={"source": {"kind": "parquet", "path": "unused"}})
    ranker = Ranker(load_bundle(make(folder, spec).bundle))
    options = {"kind": "lmdb", "path": folder / "e"} | BOTH | SLOW
    with closing(EntityLookup(LmdbSettings.model_validate(options))) as lookup:
        yield Server(ranker, lookup)


words = st.lists(st.sampled_from("abcd"), max_size=3)
cells = {
    "city": st.sampled_from(["rome", "oslo", "new"]),
    "brand": st.sampled_from(["x", "y", "w"]),
    "age": st.integers(0, 90),
    "interests": words,
    "tags": words,
} | {
    f"{name}.{part}": st.integers(0, 60)
    for name in ("user_ctr", "item_ctr")
    for part in ("rows", "hits")
}
EVENTS = {
    "item_id": st.sampled_from([100, 101, 104, None]),
    "brand": st.sampled_from(["x", "z", None]),
    "clicked": st.sampled_from([0, 1, None]),
}


@st.composite
def histories(draw, *, nulls):
    """Some whole histories, the others left out or all of nulls."""
    found = {}
    for name, fields in HISTORIES.items():
        told = draw(st.lists(st.sampled_from(fields), unique=True))
        if draw(st.booleans()):
            times = draw(st.lists(st.integers(AT - 50, AT + 9), max_size=6))
            found[f"{name}.time"] = times
            for field in told:
                events = st.lists(
                    EVENTS[field], min_size=len(times), max_size=len(times)
                )
                column = "click" if field == "clicked" else field
                found[f"{name}.{column}"] = draw(events)
        elif nulls and draw(st.booleans()):
            found[f"{name}.time"] = None
            for field in told:
                column = "click" if field == "clicked" else field
                found[f"{name}.{column}"] = draw(st.sampled_from([None, []]))
    return found


@st.composite
def given_cells(draw, names):
    """Cells with a value, null, or left out."""
    found = {}
    for name in names:
        how = draw(st.sampled_from(["value", "null", "left out"]))
        if how != "left out":
            found[name] = draw(cells[name]) if how == "value" else None
    return found


@st.composite
def stored_cells(draw, names):
    """A row with some cells, its lists written as text or not; or no row."""
    if draw(st.integers(0, 3)) == 0:
        return None
    found = draw(given_cells(names))
    return {n: _as_text(n, c) if draw(st.booleans()) else c for n, c in found.items()}


def _as_text(name, cell):
    """Text for a list; a list of nothing is no text, which would be missing."""
    return SEPARATORS[name].join(cell) if name in SEPARATORS and cell else cell


@st.composite
def worlds(draw):
    """What is stored, and what a request gives."""
    stored_users = {}
    for user in USERS:
        row = draw(stored_cells(OF_USERS))
        stored_users[user] = row and row | draw(histories(nulls=False))
    stored_items = {item: draw(stored_cells(OF_ITEMS)) for item in ITEMS}
    users = {
        user: draw(given_cells(OF_USERS)) | draw(histories(nulls=True))
        for user in USERS
    }
    items = {item: draw(given_cells(OF_ITEMS)) for item in ITEMS}
    for name, given_of in (("interests", users), ("tags", items)):
        if draw(st.booleans()):  # lists of one column are all text, or none is
            for of in given_of.values():
                if name in of:
                    of[name] = _as_text(name, of[name]) or None
    return stored_users, stored_items, users, items


def over(mine, stored):
    """The rule, cell by cell; text is the list that it stands for."""
    merged = dict(mine)
    for name, cell in (stored or {}).items():
        history = name.split(".")[0]
        rules = f"{history}.time" if history in HISTORIES else name
        if mine.get(rules) is None:
            merged[name] = cell
            whole = [n for n in mine if n.startswith(f"{history}.")]
            if history in HISTORIES:
                merged |= {n: stored.get(n) for n in whole}
    for name, separator in SEPARATORS.items():
        if isinstance(merged.get(name), str):
            merged[name] = merged[name].split(separator)
    return merged


TEXTS = (
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.dictionary(pa.int8(), pa.string()),
    pa.dictionary(pa.int32(), pa.large_string()),
    "null in the dictionary",
)
NUMBERS = (pa.int8(), pa.uint16(), pa.int64(), pa.float32(), pa.float64())
WIDE_NUMBERS = (pa.int64(), pa.uint64(), pa.float64())


@st.composite
def typed(draw, column):
    """A column of cells, as one of the types that hold it."""
    values = [c for c in column if c is not None]
    if not values and draw(st.booleans()):
        return pa.nulls(len(column))
    if any(isinstance(value, list) for value in values):
        inner = [part for value in values for part in value if part is not None]
        if not inner:
            return pa.array(column, pa.list_(pa.null()))
        if isinstance(inner[0], str):
            kind = draw(st.sampled_from(TEXTS[:2]))
        elif min(inner) > AT - 99:
            kind = draw(st.sampled_from([pa.int64(), pa.timestamp("s")]))
        else:
            kind = draw(st.sampled_from([pa.int16(), pa.int64()]))
        return pa.array(column, draw(st.sampled_from([pa.list_, pa.large_list]))(kind))
    if any(isinstance(value, str) for value in values):
        kind = draw(st.sampled_from(TEXTS))
        if kind == "null in the dictionary":
            known = [None, *dict.fromkeys(values)]
            codes = [known.index(c) for c in column]
            return pa.DictionaryArray.from_arrays(
                pa.array(codes, pa.int8()), pa.array(known, pa.string())
            )
        return pa.array(column, kind)
    if not values:
        return pa.nulls(len(column))
    fitting = NUMBERS if max(values) < 127 else WIDE_NUMBERS
    return pa.array(column, draw(st.sampled_from(fitting)))


def columns_of(rows):
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def user_input(user, cells):
    features, told = {}, {}
    for name, cell in cells.items():
        history, _, column = name.partition(".")
        if history not in HISTORIES:
            features[name] = cell
        elif cells[f"{history}.time"] is not None:  # nor can a rank request say so
            told.setdefault(history, {})[column] = cell
    return UserInput(id=user, features=features, histories=told)


# Without shrinking, which would draw for minutes.
@settings(max_examples=40, phases=[Phase.reuse, Phase.generate])
@given(data=st.data())
def test_every_way_of_asking_takes_the_same_cells(server, data):
    stored_users, stored_items, users, items = data.draw(worlds())
    server.store("users", stored_users)
    server.store("items", stored_items)
    rows = [
        {"user_id": u, "item_id": i, "at": AT} | users[u] | items[i]
        for u in USERS
        for i in ITEMS
    ]
    whole = [
        row
        | over(users[row["user_id"]], stored_users[row["user_id"]])
        | over(items[row["item_id"]], stored_items[row["item_id"]])
        for row in rows
    ]
    wanted = server.ranker.answer(ScoreRequest(rows=whole), now_us=0).score
    columns = columns_of(rows)
    table = pa.table({n: data.draw(typed(c), label=n) for n, c in columns.items()})
    got = {
        "rows": server.ask(ScoreRequest(rows=rows)).score,
        "columns": server.ask(ScoreRequest(columns=columns)).score,
        "table": server.ask(ScoreTable(table=table)).score,
        "rank": [],
        "rank table": [],
    }
    candidates = [{"item_id": i} | items[i] for i in ITEMS]
    own = pa.table({n: data.draw(typed(c)) for n, c in columns_of(candidates).items()})
    for user in USERS:
        who, context = user_input(user, users[user]), {"at": AT}
        inputs = [ItemInput(id=i, features=items[i]) for i in ITEMS]
        for way, request in (
            ("rank", RankRequest(user=who, context=context, items=inputs)),
            ("rank table", RankTable(user=who, context=context, table=own)),
        ):
            score = {item.id: item.score for item in server.ask(request).items}
            got[way] += [score[i] for i in ITEMS]
    for way, scores in got.items():
        np.testing.assert_allclose(scores, wanted, rtol=1e-5, atol=1e-5, err_msg=way)
