import numpy as np
import pyarrow as pa
import pytest

from recsys_mtl.features.match import matching
from tests.features.conftest import FEATURES, recipe_of

TYPES = {"shop": "string", "kind": "int"}


def draw(rows=60, seed=0):
    """Rows and their events, with holes; ``place`` tells events apart."""
    rng = np.random.default_rng(seed)
    shops, kinds = [None, "a", "b", "c"], [None, 1, 2]
    scored = {"shop": rng.choice(shops, rows).tolist(), "kind": rng.choice(kinds, rows)}
    counts = rng.integers(0, 6, rows)
    lists = {
        "shop": [rng.choice(shops, n).tolist() for n in counts],
        "kind": [rng.choice(kinds, n).tolist() for n in counts],
        "time": [list(range(n)) for n in counts],
        "place": [[100 * b + k for k in range(n)] for b, n in enumerate(counts)],
    }
    return pa.table(scored), pa.table(lists)


@pytest.mark.parametrize("names", [["shop"], ["kind"], ["shop", "kind"]])
def test_keeps_what_a_loop_keeps(names):
    rows, events = draw()
    found = matching(events, rows, {name: TYPES[name] for name in names})
    expected = [
        [
            place
            for k, place in enumerate(event["place"])
            if all(row[n] is not None and event[n][k] == row[n] for n in names)
        ]
        for row, event in zip(rows.to_pylist(), events.to_pylist(), strict=True)
    ]
    assert found["place"].to_pylist() == expected
    assert 0 < sum(map(len, expected)) < sum(map(len, events["place"].to_pylist()))


def test_dictionaries_and_text_of_numbers_make_no_difference():
    rows, events = draw()
    kinds = events["kind"].combine_chunks()
    coded = kinds.flatten().cast(pa.string()).dictionary_encode()
    other = events.set_column(
        events.column_names.index("kind"),
        "kind",
        pa.ListArray.from_arrays(kinds.offsets, coded),
    )
    found, same = (matching(e, rows, {"kind": "int"}) for e in (other, events))
    assert found["place"].equals(same["place"])


def test_no_rows_have_no_events():
    rows, events = draw()
    none = matching(events.slice(0, 0), rows.slice(0, 0), {"shop": "string"})
    assert none.num_rows == 0
    assert none.column_names == events.column_names


def test_a_history_has_only_events_of_the_rows_own_value(log):
    table = log.featurizer.encode(log.joined, log.histories)
    own, of_events = table["brand"].to_pylist(), table["alike.brand"].to_pylist()
    assert all(set(ids) <= {brand} for brand, ids in zip(own, of_events, strict=True))
    before = log.histories["alike"]["time"].to_pylist()
    assert 0 < sum(map(len, of_events)) < sum(map(len, before))
    # Missing brands are not like each other.
    assert not any(ids for brand, ids in zip(own, of_events, strict=True) if brand == 0)


def test_values_outside_the_vocabulary_are_told_apart():
    rows = pa.table({"item": [901, 902]})
    events = pa.table({"item": [[901, 902, 901]] * 2, "time": [[1, 2, 3]] * 2})
    found = matching(events, rows, {"item": "int"})
    assert found["time"].to_pylist() == [[1, 3], [2]]


@pytest.mark.parametrize("name", ["clicked", "city", "nothing"])
def test_what_cannot_be_compared_is_refused(name):
    features = [
        f | ({"match": [name]} if f["name"] == "alike" else {}) for f in FEATURES
    ]
    with pytest.raises(ValueError, match=r"match\[0\]: history 'alike' matches"):
        recipe_of(features)
