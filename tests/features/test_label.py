import numpy as np
import pyarrow as pa
import pytest
from pydantic import TypeAdapter

from recsys_mtl.config.task import TaskSpec
from recsys_mtl.errors import DataError
from recsys_mtl.features.label import encode_labels

NAN = float("nan")


def task(kind: str = "binary", **fields) -> TaskSpec:
    spec = {"kind": kind, "name": "t", "label": "y"} | fields
    return TypeAdapter(TaskSpec).validate_python(spec)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (pa.array([1, 0, None]), [1, 0, None]),
        (pa.array(["1", "0.0", "", None]), [1, 0, None, None]),
        (pa.array([1.0, NAN]), [1, None]),
        (pa.array([True, False]), [1, 0]),
    ],
)
def test_binary_labels_are_0_or_1_or_missing(cells, expected):
    labels = encode_labels([task()], pa.table({"y": cells}))
    assert labels.schema.field("label.t").type == pa.float32()
    assert labels["label.t"].to_pylist() == expected


def test_amounts_keep_their_value():
    labels = encode_labels([task("value")], pa.table({"y": ["2.5", None, "0"]}))
    assert labels["label.t"].to_pylist() == [2.5, None, 0.0]


def test_a_condition_is_a_label_and_unknown_where_the_cell_is():
    above = task(label={"column": "y", "above": 0})
    labels = encode_labels([above], pa.table({"y": [3.0, 0.0, None]}))
    assert labels["label.t"].to_pylist() == [1, 0, None]


def test_rows_outside_the_sample_space_have_no_label():
    within = task(sample_space={"column": "click", "equals": 1})
    raw = pa.table({"y": [1, 1, 0, 1], "click": [1, 0, 1, None]})
    assert encode_labels([within], raw)["label.t"].to_pylist() == [1, None, 0, None]


def test_what_lies_outside_the_sample_space_may_be_anything():
    within = task("value", sample_space={"column": "click", "equals": 1})
    raw = pa.table({"y": ["3", "-1", "n/a"], "click": [1, 0, 0]})
    assert encode_labels([within], raw)["label.t"].to_pylist() == [3, None, None]


@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        ("binary", pa.array([1.0, 2.0])),
        ("binary", pa.array(["1", "yes"])),
        ("binary", pa.array([0.0, float("inf")])),
        ("value", pa.array([1.0, -3.0])),
        ("value", pa.array([1.0, float("inf")])),
        ("value", pa.array([1.0, 1e300])),
        ("value", pa.array(["1", "much"])),
    ],
)
def test_an_impossible_label_is_refused_by_value_column_and_row(kind, bad):
    with pytest.raises(DataError) as caught:
        encode_labels(
            [task(kind)], pa.table({"y": bad}), where="part-7.csv", first_row=1_000
        )
    message = str(caught.value)
    assert message.startswith("label 'y' of task 't' must be ")
    assert f"got {bad[1].as_py()!r} in row 1001 of part-7.csv;" in message


def test_a_missing_column_is_told_with_those_there_are():
    with pytest.raises(
        DataError, match=r"task 't' reads label column 'y'.*there are x"
    ):
        encode_labels([task()], pa.table({"x": [1]}))


def test_shuffled_rows_have_shuffled_labels():
    rng = np.random.default_rng(0)
    raw = pa.table({"y": rng.integers(0, 2, 50), "click": rng.integers(0, 2, 50)})
    order = pa.array(rng.permutation(50))
    spec = [task(sample_space={"column": "click", "equals": 1})]
    whole, shuffled = (encode_labels(spec, rows) for rows in (raw, raw.take(order)))
    assert whole.take(order).equals(shuffled)
