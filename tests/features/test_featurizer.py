import pickle

import numpy as np
import pyarrow as pa
import pytest

from recsys_mtl.errors import ArtifactError, DataError
from recsys_mtl.features.counts import FeatureCounts
from recsys_mtl.features.events import EventBlock
from recsys_mtl.features.featurizer import Featurizer
from recsys_mtl.features.fit import FeaturizerFit
from recsys_mtl.features.join import FeatureStore
from recsys_mtl.features.signature import plan_raw


def encoded(log, featurizer=None, counts=None) -> pa.Table:
    featurizer = featurizer or log.featurizer
    return featurizer.encode(log.joined, log.histories, counts)


def rows_of(log, start: int, count: int) -> pa.Table:
    part = {name: table.slice(start, count) for name, table in log.histories.items()}
    return log.featurizer.encode(log.joined.slice(start, count), part)


def test_columns_are_those_of_the_schema_and_of_its_types(log):
    table, schema = encoded(log), log.featurizer.schema
    assert tuple(table.column_names) == schema.columns
    lists = {f.name for f in schema.ids if f.multi} | {
        column for history in schema.histories for column in history.columns
    }
    for name in table.column_names:
        kind = pa.float32() if name in schema.dense else pa.int32()
        expected = pa.list_(kind) if name in lists else kind
        assert table.schema.field(name).type == expected, name
        assert table[name].null_count == 0, name


def test_ids_lie_inside_their_tables(log):
    table, schema = encoded(log), log.featurizer.schema
    sizes = {field.name: field.size for field in schema.ids}
    for history in schema.histories:
        for field in history.fields:
            sizes[f"{history.name}.{field}"] = sizes[field]
    for name, size in sizes.items():
        if name in table.column_names:
            ids = table[name].combine_chunks()
            values = ids.flatten() if pa.types.is_list(ids.type) else ids
            assert 0 <= min(values.to_pylist()) <= max(values.to_pylist()) < size


def test_dense_columns_are_finite(log):
    table = encoded(log)
    for name in log.featurizer.schema.dense:
        assert np.isfinite(table[name].to_numpy()).all()


@pytest.mark.parametrize("size", [1, 7])
def test_rows_by_themselves_are_encoded_as_in_the_whole(log, size):
    whole = encoded(log)
    parts = [rows_of(log, start, size) for start in range(0, 98, size)]
    assert pa.concat_tables(parts).to_pylist() == whole.slice(0, 98).to_pylist()


def test_text_and_numbers_of_one_meaning_are_encoded_alike(log):
    """A CSV file or a JSON request has text where Parquet has numbers."""
    columns = {}
    for name in log.joined.column_names:
        cells = log.joined[name].combine_chunks()
        number = pa.types.is_integer(cells.type) or pa.types.is_floating(cells.type)
        columns[name] = (
            cells.cast(pa.string()) if number and not name.startswith("key.") else cells
        )
    as_text = log.featurizer.encode(pa.table(columns), log.histories)
    assert as_text.equals(encoded(log))


def test_histories_may_be_plain_lists(log):
    plain = {
        name: pa.table(
            {column: table[column].to_pylist() for column in table.column_names}
        )
        for name, table in log.histories.items()
    }
    assert (
        log.featurizer.encode(log.joined, plain).to_pylist() == encoded(log).to_pylist()
    )


def test_what_is_saved_encodes_identically(log, tmp_path):
    log.featurizer.save(tmp_path)
    loaded = Featurizer.load(tmp_path)
    assert loaded.schema == log.featurizer.schema
    assert loaded.signature == log.featurizer.signature
    assert encoded(log, loaded).equals(encoded(log))
    assert {file.suffix for file in tmp_path.iterdir()} == {".json", ".arrow"}


def test_a_featurizer_travels_between_processes(log):
    assert encoded(log, pickle.loads(pickle.dumps(log.featurizer))).equals(encoded(log))


@pytest.mark.parametrize("seed", [0, 1])
def test_blocks_fitted_apart_and_merged_in_any_order_are_the_whole(log, seed):
    fits = []
    for start in range(0, log.joined.num_rows, 37):
        fit = FeaturizerFit(log.recipe, log.plan.signature)
        fit.update(log.joined.slice(start, 37))
        fits.append(pickle.loads(pickle.dumps(fit)))
    np.random.default_rng(seed).shuffle(fits)
    first, *others = fits
    for other in others:
        first.merge(other)
    assert encoded(log, first.finish()).equals(encoded(log))


def test_gaps_tell_the_time_since_each_event(log):
    table, times = encoded(log), log.histories["clicks"]["time"].to_pylist()
    now = log.joined["key.time"].to_pylist()
    for n, gaps in enumerate(table["clicks.gap"].to_pylist()):
        seconds = [(now[n] - then) // 1_000_000 for then in times[n]]
        assert gaps == [2 + (1 + s).bit_length() - 1 for s in seconds]
        assert all(s > 0 for s in seconds)


def test_shuffled_rows_are_encoded_shuffled(log):
    order = pa.array(np.random.default_rng(0).permutation(log.joined.num_rows))
    histories = {name: table.take(order) for name, table in log.histories.items()}
    shuffled = log.featurizer.encode(log.joined.take(order), histories)
    assert shuffled.to_pylist() == encoded(log).take(order).to_pylist()


def test_unseen_and_missing_have_ids_of_their_own_and_are_counted(log):
    raw = pa.table(
        {
            "user": ["u1", "stranger", None],
            "brand": [None, "77", "x"],
            "age": ["30", "nan", "old"],
            "tags": [["1", None, "new"], [], None],
        }
    )
    none = pa.table(
        {
            name: pa.array([[]] * 3, pa.list_(pa.int64()))
            for name in ("item", "brand", "time")
        }
        | {
            name: pa.array([[]] * 3, pa.list_(pa.float64()))
            for name in ("stay", "click")
        }
    )
    counts = FeatureCounts()
    histories = dict.fromkeys(("clicks", "seen", "alike"), none)
    table = log.featurizer.encode(raw, histories, counts)
    assert [n > 1 for n in table["user"].to_pylist()] == [True, False, False]
    assert table["user"].to_pylist()[1:] == [1, 0]
    assert table["brand"].to_pylist() == [0, 1, 0]
    assert table["age"].to_pylist()[1:] == [0.0, 0.0]
    assert [len(ids) for ids in table["tags"].to_pylist()] == [2, 0, 0]
    assert table["tags"].to_pylist()[0][1] == 1
    assert table["hour"].to_pylist() == [0, 0, 0]
    assert table["user_ctr.count"].to_pylist() == [0.0, 0.0, 0.0]
    by = counts.as_dict()
    assert by["user"] == {"missing": 1, "unseen": 1, "unreadable": 0}
    assert by["brand"] == {"missing": 2, "unseen": 1, "unreadable": 1}
    assert by["age"] == {"missing": 2, "unseen": 0, "unreadable": 1}
    assert by["tags"] == {"missing": 2, "unseen": 1, "unreadable": 0}
    assert by["clicks"]["missing"] == 3


def test_counts_of_parts_add_up_to_those_of_the_whole(log):
    whole, parts = FeatureCounts(), FeatureCounts()
    encoded(log, counts=whole)
    for start in range(0, log.joined.num_rows, 50):
        part = FeatureCounts()
        log.featurizer.encode(
            log.joined.slice(start, 50),
            {name: t.slice(start, 50) for name, t in log.histories.items()},
            part,
        )
        parts = parts + part
    assert parts == whole


def test_only_training_rows_shape_the_encoders(log):
    fit = FeaturizerFit(log.recipe, log.plan.signature)
    fit.update(log.joined.slice(0, 100))
    featurizer = fit.finish()
    later = set(log.joined["item"].slice(100).to_pylist())
    early = log.joined["item"].slice(0, 100).to_pylist()
    once = later - {item for item in early if early.count(item) >= 2}
    assert once
    ids = featurizer.encoders.ids["item"].ids(pa.array(sorted(once)))
    assert set(ids.tolist()) == {1}


def test_known_tells_what_a_vocabulary_has(log):
    known = log.featurizer.known("user", pa.array(["u1", "stranger", None]))
    assert known.tolist() == [True, False, False]
    assert log.featurizer.known("city", pa.array(["rome"])) is None


def test_no_rows_are_encoded_to_no_rows(log):
    assert rows_of(log, 0, 0).num_rows == 0


def test_histories_must_fit_the_rows(log):
    with pytest.raises(
        DataError, match=r"history 'clicks' must have 300 rows.*got none"
    ):
        log.featurizer.encode(log.joined, {})
    short = {name: table.slice(1) for name, table in log.histories.items()}
    with pytest.raises(DataError, match=r"must have 300 rows.*got 299 rows"):
        log.featurizer.encode(log.joined, short)


def test_a_fit_without_a_column_says_which(log):
    fit = FeaturizerFit(log.recipe, log.plan.signature)
    with pytest.raises(DataError, match="feature 'stay' reads column 'stay'"):
        fit.update(log.joined.drop_columns(["stay"]))


def test_damaged_and_foreign_folders_are_refused(log, tmp_path):
    with pytest.raises(ArtifactError, match="cannot be read"):
        Featurizer.load(tmp_path)
    log.featurizer.save(tmp_path)
    (tmp_path / "user.arrow").write_bytes(b"?")
    with pytest.raises(ArtifactError, match=r"user\.arrow is no readable vocabulary"):
        Featurizer.load(tmp_path)
    log.featurizer.save(tmp_path)
    file = tmp_path / "featurizer.json"
    text = file.read_text()
    file.write_text(text.replace('"format_version": 1', '"format_version": 9'))
    with pytest.raises(ArtifactError, match="has format 9, this version reads 1"):
        Featurizer.load(tmp_path)


def test_an_aggregate_counts_only_rows_of_its_condition(make_recipe):
    recipe = make_recipe(
        [
            {
                "kind": "aggregate",
                "name": "long_ctr",
                "by": "user",
                "rate_of": {"column": "click", "equals": 1},
                "where": {"column": "stay", "above": 5},
            }
        ],
        users=None,
        items=None,
    )
    log = pa.table(
        {
            "user": ["a"] * 6,
            "item": [1] * 6,
            "at": [1, 2, 3, 4, 5, 6],
            "click": [1, 1, 0, None, 0, 1],
            "stay": [9, 1, 9, 9, None, 9],
        }
    )
    signature = plan_raw(recipe, log.schema).signature
    fit = FeaturizerFit(recipe, signature)
    contract = fit.contract
    joined = FeatureStore(contract).join(log)
    fit.update(joined)
    assert fit.finish().encoders.aggregates["long_ctr"].mean == pytest.approx(2 / 3)
    counted = EventBlock(contract, joined, "user").aggregates()
    assert counted["long_ctr.rows"].to_pylist() == [0, 1, 1, 2, 2, 2]
    assert counted["long_ctr.hits"].to_pylist() == [0, 1, 1, 1, 1, 1]
