import gzip

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from pipelines.score import score_table
from recsys_mtl.errors import ArtifactError, DataError
from recsys_mtl.export.bundle import load_bundle
from recsys_mtl.rank.ranker import Ranker

COLUMNS = ["user_id", "item_id", "ts", "click", "watch", "score"]
COLUMNS += ["known_user", "known_item"]


@pytest.fixture(scope="module")
def rows(tiny):
    """Impressions, some of users and items that nobody knows."""
    rows = tiny.interactions(200)
    users = rows["user_id"].to_pylist()
    users[3], users[50] = "stranger", None
    items = rows["item_id"].to_pylist()
    items[7] = 9_999
    return rows.set_column(0, "user_id", pa.array(users)).set_column(
        1, "item_id", pa.array(items)
    )


@pytest.fixture(scope="module")
def expected(tiny, rows):
    return Ranker(load_bundle(tiny.bundle)).score(rows)


def check(table, rows, expected):
    assert table.column_names == COLUMNS
    assert table["user_id"].to_pylist() == rows["user_id"].to_pylist()
    prediction_BT = np.stack([table["click"], table["watch"]], axis=1)
    np.testing.assert_allclose(prediction_BT, expected.prediction_BT, rtol=1e-5)
    np.testing.assert_allclose(table["score"], expected.score_B, rtol=1e-5)
    assert table["known_user"].to_pylist() == expected.known_user_B.tolist()
    assert table["known_item"].to_pylist() == expected.known_item_B.tolist()


def test_a_table_scores_as_the_ranker_does_in_the_order_given(
    tiny, rows, expected, tmp_path
):
    # Two files of several row groups, named so that their order is known.
    folder = tmp_path / "input"
    folder.mkdir()
    pq.write_table(rows.slice(0, 120), folder / "a.parquet", row_group_size=50)
    pq.write_table(rows.slice(120), folder / "b.parquet", row_group_size=50)
    told = []
    count = score_table(
        tiny.bundle, folder, tmp_path / "out.parquet", on_progress=told.append
    )
    assert count == rows.num_rows
    check(pq.read_table(tmp_path / "out.parquet"), rows, expected)
    assert (told[-1].done, told[-1].total) == (200, 200)


def test_text_scores_like_typed_columns_and_a_folder_gets_parts(
    tiny, rows, expected, tmp_path
):
    pa.csv.write_csv(rows, tmp_path / "rows.csv")
    packed = tmp_path / "rows.csv.gz"
    packed.write_bytes(gzip.compress((tmp_path / "rows.csv").read_bytes()))
    score_table(tiny.bundle, packed, tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["part-00000.parquet"]
    check(pq.read_table(tmp_path / "out"), rows, expected)


def test_a_line_that_cannot_be_read_is_refused_and_leaves_nothing(tiny, rows, tmp_path):
    pa.csv.write_csv(rows, tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open("a") as file:
        file.write("one,two\n")
    with pytest.raises(DataError, match="line 202: 2 values for 4 columns"):
        score_table(tiny.bundle, tmp_path / "rows.csv", tmp_path / "out.parquet")
    assert [p.name for p in tmp_path.iterdir()] == ["rows.csv"]


@pytest.mark.parametrize("column", ["user_id", "item_id", "ts", "position"])
def test_a_column_of_the_impression_must_be_there(tiny, rows, tmp_path, column):
    pq.write_table(rows.drop_columns([column]), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=f"has no column '{column}'"):
        score_table(tiny.bundle, tmp_path / "rows.parquet", tmp_path / "out.parquet")


def test_an_input_of_unknown_kind_is_refused(tiny, tmp_path):
    (tmp_path / "rows.xlsx").touch()
    with pytest.raises(DataError, match="of no known kind"):
        score_table(tiny.bundle, tmp_path / "rows.xlsx", tmp_path / "out.parquet")


def test_a_folder_that_is_no_bundle_is_refused(rows, tmp_path):
    pq.write_table(rows, tmp_path / "rows.parquet")
    with pytest.raises(ArtifactError):
        score_table(tmp_path, tmp_path / "rows.parquet", tmp_path / "out.parquet")


def test_details_are_columns_beside_the_prediction(tiny_kinds, tmp_path):
    rows = tiny_kinds.interactions(50)
    pq.write_table(rows, tmp_path / "in.parquet")
    score_table(tiny_kinds.bundle, tmp_path / "in.parquet", tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    scored = Ranker(load_bundle(tiny_kinds.bundle)).score(rows, details=True)
    leave, rating = scored.details["leave"], scored.details["rating"]
    assert table.column_names[3:] == [
        "leave",
        *(f"leave.{name}" for name in leave),
        "rating",
        *(f"rating.{name}" for name in rating),
        "click",
        *COLUMNS[-3:],
    ]
    for name, detail_B in leave.items():
        np.testing.assert_allclose(table[f"leave.{name}"], detail_B, rtol=1e-5)
