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


def survival(**fields) -> TaskSpec:
    spec = {"kind": "survival", "name": "t", "time": "s", "event": "e"} | fields
    return TypeAdapter(TaskSpec).validate_python(spec)


def test_a_survival_label_is_a_time_whose_sign_bit_says_whether_it_ended():
    raw = pa.table(
        {"s": ["3", "4", "0", "0", None, "5"], "e": ["1", "0", "1", "0", "1", None]}
    )
    label_B = encode_labels([survival()], raw)["label.t"]
    assert label_B.to_pylist() == [3, -4, 0, 0, None, None]
    signs_B = np.signbit(label_B.slice(0, 4).to_numpy())
    assert signs_B.tolist() == [False, True, False, True]


def test_a_condition_says_whether_it_ended():
    raw = pa.table({"s": [3.0, 4.0, 5.0], "e": ["left", "stayed", None]})
    ended = survival(event={"column": "e", "equals": "left"})
    assert encode_labels([ended], raw)["label.t"].to_pylist() == [3, -4, None]


def test_what_did_not_end_before_its_bound_is_censored_there():
    raw = pa.table({"s": [3.0, 9.0, 5.0, 0.0, None], "long": [4.0, 5.0, 5.0, 0.0, 1.0]})
    labels = encode_labels([survival(event={"before": "long"})], raw)["label.t"]
    assert labels.to_pylist() == [3, -5, -5, 0, None]
    assert np.signbit(labels[3].as_py())


def test_two_terms_are_two_tasks_over_one_label():
    raw = pa.table({"s": [2.0, 9.0, 5.0], "e": [1, 1, 0]})
    wear_out = survival(sample_space={"column": "s", "above": 3})
    assert encode_labels([wear_out], raw)["label.t"].to_pylist() == [None, 9, -5]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"s": [1.0, -2.0], "e": [1, 1]}, "time 's' of task 't' must be a finite"),
        ({"s": [1.0, 2.0], "e": [1, 2]}, "event 'e' of task 't' must be 0 or 1, got 2"),
        ({"s": [1.0, 2.0]}, "task 't' reads event column 'e'"),
    ],
)
def test_impossible_times_and_events_are_refused(raw, message):
    with pytest.raises(DataError, match=message):
        encode_labels([survival()], pa.table(raw))


@pytest.mark.parametrize(
    ("levels", "cells", "expected"),
    [
        (3, pa.array([0, 2, None, 1]), [0, 2, None, 1]),
        (3, pa.array(["0", "2.0", "", "1"]), [0, 2, None, 1]),
        ([1, 2.5, 9], pa.array([9, 2.5, 1.0]), [2, 1, 0]),
        (["low", "high"], pa.array(["high", "low", None]), [1, 0, None]),
    ],
)
def test_levels_become_their_numbers(levels, cells, expected):
    labels = encode_labels([task("ordinal", levels=levels)], pa.table({"y": cells}))
    assert labels["label.t"].to_pylist() == expected


@pytest.mark.parametrize(
    ("levels", "cells"),
    [(3, [0, 3]), (3, [1, 0.5]), (["a", "b"], ["a", "c"]), (["1", "2"], [1, 3])],
)
def test_what_is_no_level_is_refused(levels, cells):
    with pytest.raises(
        DataError, match=r"must be one of .* in row 1 of the rows given"
    ):
        encode_labels([task("ordinal", levels=levels)], pa.table({"y": cells}))


def test_row_weights_are_clipped_and_null_where_they_or_the_label_are_missing():
    weighted = task(row_weight={"column": "ctr", "clip": 0.5})
    raw = pa.table({"y": [1, 0, None, 1], "ctr": ["0.25", "0.9", "0.1", None]})
    labels = encode_labels([weighted], raw)
    assert labels["weight.t"].to_pylist() == [0.25, 0.5, None, None]
    assert labels["label.t"].to_pylist() == [1, 0, None, 1]


def test_a_negative_row_weight_is_refused():
    weighted = task(row_weight={"column": "ctr"})
    with pytest.raises(DataError, match="row weight 'ctr' of task 't' must be a fin"):
        encode_labels([weighted], pa.table({"y": [1], "ctr": [-0.1]}))


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
