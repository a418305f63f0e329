import pyarrow as pa
import pytest

from recsys_mtl.config.condition import Condition
from recsys_mtl.errors import DataError
from recsys_mtl.features.condition import holds

BIG = 2**53


@pytest.mark.parametrize(
    ("comparison", "cells", "expected"),
    [
        (
            {"equals": 1},
            pa.array(["1", "1.0", "0", "x", None, ""]),
            [1, 1, 0, None, None, None],
        ),
        ({"equals": 1}, pa.array([1, 0, None]), [1, 0, None]),
        ({"equals": 1}, pa.array([True, False]), [1, 0]),
        ({"equals": 0.5}, pa.array([0.5, 1.0, float("nan")]), [1, 0, None]),
        ({"equals": BIG + 1}, pa.array([BIG, BIG + 1]), [0, 1]),
        ({"equals": "1"}, pa.array([1, 2]), [1, 0]),
        ({"equals": "yes"}, pa.array(["yes", "no", None]), [1, 0, None]),
        ({"not_equals": 1}, pa.array(["1", "2", "x", None]), [0, 1, None, None]),
        ({"not_equals": "yes"}, pa.array(["yes", "no", None]), [0, 1, None]),
        ({"above": 2}, pa.array(["2", "2.5", "x"]), [0, 1, None]),
        ({"at_least": 2}, pa.array([1, 2, None]), [0, 1, None]),
    ],
)
def test_comparisons_are_true_false_or_unknown(comparison, cells, expected):
    answer = holds(Condition(column="c", **comparison), pa.table({"c": cells}))
    assert answer.holds_B.tolist() == [value == 1 for value in expected]
    assert answer.known_B.tolist() == [value is not None for value in expected]


def test_a_missing_column_is_named():
    with pytest.raises(DataError, match=r"'clik', which the rows do not have.*click"):
        holds(Condition(column="clik", equals=1), pa.table({"click": [1]}))
