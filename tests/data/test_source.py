import gzip
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_mtl.config.source import (
    ArrowSource,
    CsvSource,
    ParquetSource,
    SimulatorSource,
)
from recsys_mtl.data.source import BadLines, open_source, source_files, source_schema
from recsys_mtl.errors import DataError


def csv_source(path, **options):
    return CsvSource(kind="csv", path=str(path), **options)


def rows(fragments, bad_lines=None):
    tables = [t for f in fragments for t in f.read(bad_lines)]
    return pa.concat_tables(tables).to_pylist()


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,item,tag\nu1,i1,a\nu2,i2,b\n")
    return path


def test_csv_cells_stay_text_so_leading_zeros_survive(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("id,n\n007,1.50\n")
    assert rows(open_source(csv_source(path))) == [{"id": "007", "n": "1.50"}]


@pytest.mark.parametrize("text", ["", '""', "NA", "NaN", "null", "\\N", '"NA"'])
def test_each_spelling_of_missing_is_null(tmp_path, text):
    path = tmp_path / "log.csv"
    path.write_text(f"a,b\nx,{text}\n")
    assert rows(open_source(csv_source(path))) == [{"a": "x", "b": None}]


def test_blanks_are_stripped_only_when_asked(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("a, b\n x , NA\n")
    assert rows(open_source(csv_source(path))) == [{"a": " x ", " b": " NA"}]
    assert rows(open_source(csv_source(path, strip=True))) == [{"a": "x", "b": None}]


def test_gzip_text_reads_like_plain_text(tmp_path, log):
    packed = tmp_path / "log.csv.gz"
    packed.write_bytes(gzip.compress(log.read_bytes()))
    assert rows(open_source(csv_source(packed))) == rows(open_source(csv_source(log)))


def test_quoted_delimiters_and_line_ends_belong_to_the_value(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text('a,b\n"1,5","x\ny"\n')
    assert rows(open_source(csv_source(path))) == [{"a": "1,5", "b": "x\ny"}]


def test_names_can_be_given_for_a_file_without_header(tmp_path):
    path = tmp_path / "log.tsv"
    path.write_text("u1\ti1\nu2\ti2\n")
    spec = csv_source(path, delimiter="\t", column_names=("user", "item"))
    assert rows(open_source(spec, ["item"])) == [{"item": "i1"}, {"item": "i2"}]


def test_bad_lines_are_skipped_counted_and_located(tmp_path):
    path = tmp_path / "log.csv"
    good = "".join(f"u{i},i{i}\n" for i in range(200_000))
    path.write_text(f"user,item\n{good}u,i,extra\nlonely\nlast,one\n")
    bad = BadLines()
    got = rows(open_source(csv_source(path)), bad)
    assert len(got) == 200_001
    assert got[-1] == {"user": "last", "item": "one"}
    assert bad.count == 2
    assert bad.first == [
        f"{path} line 200002: 3 values for 2 columns",
        f"{path} line 200003: 1 values for 2 columns",
    ]


def test_bad_lines_of_a_file_without_header_have_the_right_number(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("u1,i1\noops\n")
    bad = BadLines()
    rows(open_source(csv_source(path, column_names=("user", "item"))), bad)
    assert bad.first == [f"{path} line 2: 1 values for 2 columns"]


def test_only_the_first_few_bad_lines_are_remembered():
    bad, other = BadLines(), BadLines()
    for i in range(9):
        bad.add(str(i))
        other.add(str(i))
    bad.merge(other)
    assert bad.count == 18
    assert bad.first == ["0", "1", "2", "3", "4"]


def test_bytes_that_are_no_utf8_become_replacement_characters(tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes(b"a,b\n\xff1,ok\nfine,ok\n")
    assert [r["a"] for r in rows(open_source(csv_source(path)))] == ["\ufffd1", "fine"]


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes(b"\xef\xbb\xbfa,b\n1,2\n")
    assert rows(open_source(csv_source(path), ["a"])) == [{"a": "1"}]


@pytest.mark.parametrize("kind", ["parquet", "arrow_file", "arrow_stream", "csv"])
def test_every_kind_hands_out_bounded_tables_in_order(tmp_path, kind):
    numbers = list(range(150_000))
    table = pa.table({"n": numbers, "unused": ["x"] * len(numbers)})
    path = tmp_path / kind
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=40_000)
        spec = ParquetSource(kind="parquet", path=str(path))
    elif kind == "csv":
        pa.csv.write_csv(table, path)
        spec = csv_source(path)
    else:
        new = pa.ipc.new_file if kind == "arrow_file" else pa.ipc.new_stream
        with new(path, table.schema) as writer:
            writer.write_table(table)
        spec = ArrowSource(kind="arrow", path=str(path))
    fragments = pickle.loads(pickle.dumps(open_source(spec, ["n"])))
    tables = [t for f in fragments for t in f.read()]
    assert max(t.num_rows for t in tables) <= 65_536
    assert [int(n) for t in tables for n in t["n"].to_pylist()] == numbers
    assert all(t.column_names == ["n"] for t in tables)


def test_simulated_rows_come_chunk_by_chunk():
    spec = SimulatorSource(kind="simulator", rows=140_000, num_users=100, num_items=50)
    fragments = open_source(spec, ["user_id", "is_click"])
    tables = [t for f in fragments for t in f.read()]
    assert len(fragments) == 3
    assert [f.size for f in fragments] == [t.num_rows for t in tables]
    assert sum(t.num_rows for t in tables) == 140_000
    assert tables[0].column_names == ["user_id", "is_click"]
    assert tables[0].schema == pa.schema(
        [source_schema(spec).field(n) for n in ("user_id", "is_click")]
    )


def test_dictionary_columns_come_as_their_values(tmp_path):
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"a": pa.array(["x", "y"]).dictionary_encode()}), path)
    spec = ParquetSource(kind="parquet", path=str(path))
    (fragment,) = open_source(spec)
    (table,) = fragment.read()
    assert table.schema == source_schema(spec) == pa.schema([("a", pa.string())])


def test_parquet_fragments_are_ranges_of_row_groups_that_cover_the_file(tmp_path):
    path = tmp_path / "log.parquet"
    table = pa.table({"n": range(700_000)})
    pq.write_table(table, path, row_group_size=100_000)
    fragments = open_source(ParquetSource(kind="parquet", path=str(path)))
    assert [f.row_groups for f in fragments] == [(0, 1, 2), (3, 4, 5), (6,)]
    assert sum(f.size for f in fragments) == table.num_rows


def test_globs_folders_and_lists_name_the_same_files(tmp_path, monkeypatch):
    for name in ("b.csv", "a.csv", "_hidden.csv", "other.json"):
        (tmp_path / name).write_text("x\n1\n")
    expected = [tmp_path / "a.csv", tmp_path / "b.csv"]
    monkeypatch.setenv("LOGS", str(tmp_path))
    for path in (
        str(tmp_path),
        str(tmp_path / "[ab].csv"),
        "${LOGS}/[ab].csv",
        [str(tmp_path / "a.csv"), str(tmp_path / "b.csv")],
    ):
        assert source_files(CsvSource(kind="csv", path=path)) == expected


def test_the_schema_of_csv_is_text_and_of_parquet_its_own(tmp_path, log):
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"n": [1]}), path)
    assert source_schema(csv_source(log)).types == [pa.string()] * 3
    spec = ParquetSource(kind="parquet", path=str(path))
    assert source_schema(spec) == pa.schema([("n", pa.int64())])


def test_a_missing_file_is_named_with_its_neighbour(log):
    with pytest.raises(
        DataError, match=r"lag\.csv does not exist; there is .*log\.csv"
    ):
        open_source(csv_source(log.with_name("lag.csv")))


def test_a_missing_column_is_named_with_the_nearest_and_all_others(log):
    with pytest.raises(
        DataError,
        match=r"log\.csv has no column 'usr'; did you mean 'user'\? It has user, item",
    ):
        open_source(csv_source(log), ["usr"])


def test_a_second_file_that_lacks_a_column_is_named(tmp_path, log):
    other = tmp_path / "other.csv"
    other.write_text("user,tag\nu,t\n")
    spec = CsvSource(kind="csv", path=(str(log), str(other)))
    with pytest.raises(DataError, match=r"other\.csv has no column 'item'"):
        open_source(spec)


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "log.csv").touch()
    with pytest.raises(DataError, match=r"log\.csv is empty"):
        open_source(csv_source(tmp_path / "log.csv"))


@pytest.mark.parametrize("spec", [ParquetSource, ArrowSource])
def test_a_file_of_another_kind_is_refused(log, spec):
    kind = "parquet" if spec is ParquetSource else "arrow"
    with pytest.raises(DataError, match=r"log\.csv is not an? \w+.* file"):
        open_source(spec(kind=kind, path=str(log)))


def test_a_damaged_gzip_file_is_named(tmp_path, log):
    packed = tmp_path / "log.csv.gz"
    packed.write_bytes(gzip.compress(log.read_bytes() * 1000)[:-60])
    with pytest.raises(DataError, match=r"log\.csv\.gz cannot be read"):
        rows(open_source(csv_source(packed)))


def test_an_unset_environment_variable_is_named(monkeypatch):
    monkeypatch.delenv("LOGS", raising=False)
    with pytest.raises(DataError, match="LOGS, which is not set"):
        open_source(csv_source("${LOGS}/log.csv"))


def test_a_column_named_twice_is_refused(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("a,a\n1,2\n")
    with pytest.raises(DataError, match="more than one column named 'a'"):
        open_source(csv_source(path))


def test_names_that_do_not_fit_the_first_line_are_refused(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("1;2\n")
    with pytest.raises(DataError, match=r"1 values in its first line.*gives 2 names"):
        open_source(csv_source(path, column_names=("a", "b")))
