import threading
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from feature_tables import SCHEMA, encoded_table, write_tables

from recsys_mtl.data.batch import EncodedRows, pooled_keys, sequence_keys, to_batch
from recsys_mtl.data.prefetch import prefetch
from recsys_mtl.data.reader import FeatureReader
from recsys_mtl.errors import ArtifactError, DataError
from recsys_mtl.features.manifest import FeatureManifest

TASKS = ("click", "stay")


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return write_tables(tmp_path_factory.mktemp("tables") / "tables", rows=600)


def read(tables, split="train", *, epoch=0, start=0, **options):
    options = {"batch_size": 50, "tasks": TASKS} | options
    reader = FeatureReader(tables, split, **options)
    return list(reader.epoch(epoch, start=start))


def cells(batches):
    """Every row as one tuple of all its cells, so rows can be compared as sets."""
    rows = []
    for batch in batches:
        columns = [batch.dense_BM.tolist(), batch.label_BT.tolist()]
        for part in (batch.pooled, batch.sequence):
            columns += [
                [bag.tolist() for bag in column.to_dense()]
                for column in part.to_dict().values()
            ]
        rows += [repr(row) for row in zip(*columns, strict=True)]
    return rows


def test_row_weights_are_relative_to_their_mean_and_1_where_missing(tmp_path):
    tables = write_tables(tmp_path / "tables", rows=120)
    rng = np.random.default_rng(0)
    for path in (tables / "train").glob("*.parquet"):
        table = pq.read_table(path)
        weight = pa.array(rng.choice([0.1, 0.4], table.num_rows), pa.float32())
        known = pa.array(rng.random(table.num_rows) < 0.8)
        column = pc.if_else(known, weight, None)
        pq.write_table(table.append_column("weight.stay", column), path)
    manifest = FeatureManifest.load(tables)
    train = manifest.tasks["stay"]["train"].model_copy(update={"weight_mean": 0.2})
    update = {"tasks": {**manifest.tasks, "stay": {"train": train}}}
    manifest.model_copy(update=update).save(tables)
    raw = whole(tables)["weight.stay"].to_numpy()
    expected_B = np.where(np.isnan(raw), 1.0, raw / 0.2)
    weight_BT = torch.cat([batch.weight_BT for batch in read(tables)])
    np.testing.assert_allclose(weight_BT[:, 1], expected_B, rtol=1e-6)
    assert (weight_BT[:, 0] == 1).all()
    shuffled = read(tables, shuffle_rows=1_000)
    pairs = [
        sorted(
            (row, weight)
            for batch in batches
            for row, weight in zip(
                batch.dense_BM.tolist(), batch.weight_BT[:, 1].tolist(), strict=True
            )
        )
        for batches in (shuffled, read(tables))
    ]
    assert pairs[0] == pairs[1]
    assert read(tables, "valid")[0].weight_BT is None
    assert read(tables)[0].to(torch.device("cpu")).weight_BT is not None


def whole(tables, split="train"):
    paths = sorted((tables / split).glob("*.parquet"))
    return pa.concat_tables([pq.read_table(path) for path in paths])


def same(one, other):
    for part in ("pooled", "sequence"):
        a, b = getattr(one, part), getattr(other, part)
        assert a.keys() == b.keys()
        assert torch.equal(a.values(), b.values())
        assert torch.equal(a.lengths(), b.lengths())
        assert a.length_per_key() == b.length_per_key()
    assert torch.equal(one.dense_BM, other.dense_BM)
    assert torch.equal(one.label_BT.nan_to_num(-1), other.label_BT.nan_to_num(-1))
    return True


def test_columns_are_laid_out_feature_by_feature():
    table = encoded_table(20, seed=3)
    batch = to_batch(table, SCHEMA, TASKS)
    for part, keys in (
        (batch.pooled, pooled_keys(SCHEMA)),
        (batch.sequence, sequence_keys(SCHEMA)),
    ):
        for key in keys:
            cells = table[key].to_pylist()
            bags = [cell if isinstance(cell, list) else [cell] for cell in cells]
            assert [v.tolist() for v in part[key].to_dense()] == bags
    assert batch.dense_BM[:, 0].tolist() == table["age"].to_pylist()
    stay = [np.nan if y is None else y for y in table["label.stay"].to_pylist()]
    np.testing.assert_array_equal(batch.label_BT[:, 1], np.float32(stay))


def test_a_slice_of_a_table_reads_as_its_own_rows():
    table = encoded_table(20, seed=3)
    copied = pa.table(table.slice(5, 7).to_pydict(), schema=table.schema)
    assert same(
        to_batch(table.slice(5, 7), SCHEMA, TASKS), to_batch(copied, SCHEMA, TASKS)
    )


def test_no_rows_make_an_empty_batch():
    batch = to_batch(encoded_table(20, seed=3).slice(0, 0), SCHEMA, TASKS)
    assert batch.num_rows == 0
    assert batch.pooled.values().numel() == 0


def test_histories_of_unequal_columns_are_refused():
    table = encoded_table(20, seed=3)
    shorter = pa.array([[1]] * 20, pa.list_(pa.int32()))
    broken = table.set_column(
        table.schema.get_field_index("seen.gap"), "seen.gap", shorter
    )
    with pytest.raises(DataError, match=r"'seen.item' and 'seen.gap'.* equally long"):
        EncodedRows.of(broken, SCHEMA)


def test_permuting_equals_reading_permuted_rows():
    table = encoded_table(40, seed=3)
    order = np.random.default_rng(0).permutation(40)[:30]
    rows = EncodedRows.of(table, SCHEMA, TASKS)
    rows.permute(order)
    assert same(rows.batch(10, 25), to_batch(table.take(order[10:25]), SCHEMA, TASKS))


def test_in_order_the_reader_equals_the_whole_table(tables):
    table = whole(tables)
    for number, batch in enumerate(read(tables)):
        expected = table.slice(number * 50, 50)
        assert same(batch, to_batch(expected, SCHEMA, TASKS))


@pytest.mark.parametrize("shuffle_rows", [1, 130, 10_000])
def test_mixing_keeps_every_row_exactly_once(tables, shuffle_rows):
    batches = read(tables, shuffle_rows=shuffle_rows, batch_size=37)
    assert [b.num_rows for b in batches] == [37] * 16 + [8]
    assert sorted(cells(batches)) == sorted(cells(read(tables)))


def test_epochs_differ_and_each_repeats_itself(tables):
    first, again = (cells(read(tables, shuffle_rows=200, epoch=1)) for _ in range(2))
    assert first == again
    assert first != cells(read(tables, shuffle_rows=200, epoch=2))
    assert first != cells(read(tables, shuffle_rows=200, epoch=1, seed=1))


def test_a_large_buffer_mixes_rows_of_all_parts(tables):
    place = {row: n for n, row in enumerate(cells(read(tables)))}
    mixed = [place[row] for row in cells(read(tables, shuffle_rows=10_000))]
    assert abs(np.corrcoef(mixed, np.arange(600))[0, 1]) < 0.2


def test_starting_later_skips_exactly_the_earlier_steps(tables):
    batches = read(tables, shuffle_rows=200)
    rest = read(tables, shuffle_rows=200, start=5)
    assert len(rest) == len(batches) - 5
    assert all(map(same, batches[5:], rest))


@pytest.mark.parametrize("world", [2, 3, 7])
def test_workers_share_mixed_rows_and_drop_only_the_remainder(tables, world):
    options = {"shuffle_rows": 150, "batch_size": 24, "world": world}
    readers = [
        FeatureReader(tables, "valid", tasks=TASKS, rank=rank, **options)
        for rank in range(world)
    ]
    shares = [list(reader.epoch(0)) for reader in readers]
    assert {len(share) for share in shares} == {readers[0].steps_per_epoch}
    for step in zip(*shares, strict=True):
        assert len({batch.num_rows for batch in step}) == 1
    rows = [row for share in shares for row in cells(share)]
    assert len(rows) == 300 - readers[0].dropped_rows
    assert readers[0].dropped_rows < world
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("batch_size", [24, 1000])
def test_workers_in_order_merge_to_the_whole_split(tables, world, batch_size):
    readers = [
        FeatureReader(
            tables, "valid", batch_size=batch_size, tasks=TASKS, rank=rank, world=world
        )
        for rank in range(world)
    ]
    parts = [np.concatenate([b.dense_BM for b in r.epoch(0)]) for r in readers]
    assert readers[0].dropped_rows == 0
    expected = np.stack([whole(tables, "valid")[m] for m in SCHEMA.dense], axis=1)
    np.testing.assert_array_equal(readers[0].merge(parts), expected)


def test_users_are_numbered_across_parts(tables):
    numbers = FeatureReader(tables, "train", batch_size=10, tasks=TASKS).users()
    names = whole(tables)["key.user"].to_pylist()
    assert len(set(zip(numbers, names, strict=True))) == len(set(names))


def test_a_split_without_rows_is_refused(tables):
    with pytest.raises(ArtifactError, match="must have part"):
        FeatureReader(tables, "elsewhere", batch_size=10, tasks=TASKS)


def test_a_broken_part_is_named(tmp_path):
    tables = write_tables(tmp_path / "tables", rows=100)
    part = tables / "train" / "part-0001.parquet"
    part.write_bytes(b"PAR1 no more")
    with pytest.raises(ArtifactError, match=r"part-0001\.parquet"):
        FeatureReader(tables, "train", batch_size=10, tasks=TASKS)


def test_stopping_early_ends_the_thread(tables):
    before = threading.active_count()
    batches = FeatureReader(tables, "train", batch_size=5, tasks=TASKS).epoch(0)
    assert len(list(islice(batches, 2))) == 2
    batches.close()
    assert threading.active_count() == before


def test_a_fault_while_reading_ahead_reaches_the_consumer():
    def items():
        yield 1
        raise DataError("row 7")

    batches = prefetch(items(), depth=2)
    assert next(batches) == 1
    with pytest.raises(DataError, match="row 7"):
        next(batches)


def test_reading_ahead_is_bounded():
    made = []

    def items():
        for number in range(100):
            made.append(number)
            yield number

    batches = prefetch(items(), depth=3)
    assert next(batches) == 0
    batches.close()
    # One with the consumer, three in the queue, one in the thread's hand.
    assert len(made) <= 5


def test_workers_merge_what_has_no_columns(tables):
    reader = FeatureReader(tables, "train", batch_size=50, tasks=TASKS, world=2)
    assert reader.merge([np.empty((300, 0))] * 2).shape == (600, 0)
