import numpy as np
import pyarrow.parquet as pq
import pytest
from feature_tables import write_tables

from recsys_mtl.data.sample import read_groups, sample_rows
from recsys_mtl.errors import ArtifactError

TASKS = ("click", "stay")


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return write_tables(tmp_path_factory.mktemp("sample") / "tables")


def ages(tables):
    return pq.read_table(tables / "train", columns=["age"])["age"].to_numpy()


def test_all_rows_come_in_file_order_if_there_are_no_more(tables):
    rows = sample_rows(tables, "train", tasks=TASKS, limit=10_000)
    np.testing.assert_array_equal(rows.dense_NM[:, 0], ages(tables))


def test_a_draw_is_of_different_rows_of_all_parts_and_repeats_itself(tables):
    first, again = (
        sample_rows(tables, "train", tasks=TASKS, limit=200).dense_NM[:, 0]
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, again)
    places = np.flatnonzero(np.isin(ages(tables), first))
    assert len(places) == len(first) == 200
    # Every part of the file has about its share.
    assert np.histogram(places, 3, (0, 600))[0].min() > 40
    other = sample_rows(tables, "train", tasks=TASKS, limit=200, seed=1)
    assert set(other.dense_NM[:, 0]) != set(first)


def test_row_groups_are_read_one_by_one(tables):
    sizes = [table.num_rows for table in read_groups(tables / "train", ["age"])]
    assert sum(sizes) == 600
    assert max(sizes) == 64


def test_a_split_without_rows_is_told(tmp_path):
    with pytest.raises(ArtifactError, match="with rows, got none"):
        list(read_groups(tmp_path, ["age"]))
    (tmp_path / "part-0.parquet").write_text("no table")
    with pytest.raises(ArtifactError, match="no readable Parquet file"):
        list(read_groups(tmp_path, ["age"]))
