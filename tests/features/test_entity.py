import numpy as np
import pyarrow as pa
import pytest

from recsys_mtl.errors import ArtifactError, DataError
from recsys_mtl.features.entity import EntityTable


def table_of(keys: pa.Array) -> pa.Table:
    number = pa.array(range(len(keys)))
    lists = pa.array([[n] * (n % 3) for n in range(len(keys))], pa.list_(pa.int64()))
    return pa.table({"id": keys, "number": number, "events": lists})


KEYS = [
    pa.array([5, 3, 2**53 + 1, 3, None, -4, 2**53]),
    pa.array(["b", "a", "long key of many words", "a", None, "", "c"]),
]


@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("saved", [False, True])
def test_every_key_finds_its_last_row(keys, saved, tmp_path):
    entities = EntityTable.build(table_of(keys), "id")
    if saved:
        entities.save(tmp_path / "e.arrow")
        entities = EntityTable.load(tmp_path / "e.arrow")
    last = {key: n for n, key in enumerate(keys.to_pylist()) if key not in (None, "")}
    wanted = [*last, None, *last]
    rows, known_B = entities.lookup(pa.array(wanted, keys.type))
    expected = [last.get(key) for key in wanted]
    assert rows["number"].to_pylist() == expected
    assert rows["events"].to_pylist() == [
        None if n is None else [n] * (n % 3) for n in expected
    ]
    assert known_B.tolist() == [n is not None for n in expected]
    assert entities.columns == ("number", "events")


def test_duplicates_and_rows_without_key_are_counted(tmp_path):
    entities = EntityTable.build(table_of(KEYS[0]), "id")
    assert (entities.duplicates, entities.keyless) == (1, 1)
    entities.save(tmp_path / "e.arrow")
    loaded = EntityTable.load(tmp_path / "e.arrow")
    assert (loaded.duplicates, loaded.keyless) == (1, 1)


def test_unknown_keys_give_nulls():
    rows, known_B = EntityTable.build(table_of(KEYS[0]), "id").lookup(pa.array([99]))
    assert rows.to_pylist() == [{"number": None, "events": None}]
    assert not known_B.any()


def test_keys_of_another_type_are_found():
    whole = EntityTable.build(table_of(KEYS[0]), "id")
    assert whole.lookup(pa.array(["5", "x"]))[1].tolist() == [True, False]
    assert whole.lookup(pa.array([5.0, 5.5]))[1].tolist() == [True, False]
    text = EntityTable.build(table_of(pa.array(["5", "x"])), "id")
    assert text.lookup(pa.array([5, 6]))[1].tolist() == [True, False]


def test_many_rows_are_found_in_any_order():
    keys = np.random.default_rng(0).permutation(5_000) * 1_000_003
    entities = EntityTable.build(table_of(pa.array(keys)), "id")
    wanted = np.random.default_rng(1).choice(keys, 2_000)
    rows, known_B = entities.lookup(pa.array(wanted))
    assert known_B.all()
    np.testing.assert_array_equal(keys[rows["number"].to_numpy()], wanted)


def test_a_table_without_rows_knows_nobody(tmp_path):
    EntityTable.build(table_of(pa.array([], pa.int64())), "id").save(tmp_path / "e")
    rows, known_B = EntityTable.load(tmp_path / "e").lookup(pa.array([1]))
    assert rows.num_rows == 1
    assert known_B.tolist() == [False]


def test_loading_maps_the_file_instead_of_reading_it(tmp_path):
    entities = EntityTable.build(table_of(pa.array(range(200_000))), "id")
    entities.save(tmp_path / "e.arrow")
    before = pa.total_allocated_bytes()
    loaded = EntityTable.load(tmp_path / "e.arrow")
    assert pa.total_allocated_bytes() - before < 10_000
    assert loaded.index.dense is None
    assert loaded.lookup(pa.array([77]))[0]["number"].to_pylist() == [77]


def test_a_missing_key_column_is_named():
    with pytest.raises(DataError, match="'uid' is missing; there are id, number"):
        EntityTable.build(table_of(KEYS[0]), "uid")


def test_damaged_missing_and_foreign_files_are_refused(tmp_path):
    (tmp_path / "bad").write_bytes(b"ARROW1 but no more")
    with pytest.raises(ArtifactError, match="no readable entity table"):
        EntityTable.load(tmp_path / "bad")
    with pytest.raises(ArtifactError, match="no readable entity table"):
        EntityTable.load(tmp_path / "none")
    foreign = pa.table({"a": [1]})
    with pa.ipc.new_file(str(tmp_path / "foreign"), foreign.schema) as out:
        out.write_table(foreign)
    with pytest.raises(ArtifactError, match="has format None, this version reads 1"):
        EntityTable.load(tmp_path / "foreign")
