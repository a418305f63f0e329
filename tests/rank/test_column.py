import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_mtl.errors import RequestError
from recsys_mtl.rank.column import unknown_name, whole_column

KINDS = ["int", "string", "float", "string_list", "int_list", "float_list"]


def typed(cell, kind):
    return whole_column([cell], kind, lambda i: f"cells[{i}]").to_pylist()[0]


@pytest.mark.parametrize("kind", KINDS)
def test_null_is_missing_in_every_type(kind):
    assert typed(None, kind) is None


@pytest.mark.parametrize(
    ("cell", "kind", "value"),
    [
        (3, "int", 3),
        (3.0, "int", 3),
        (True, "int", 1),
        (3, "float", 3.0),
        ("a", "string", "a"),
        (3, "string", "3"),
        ([1, None], "int_list", [1, None]),
        (["a", 3], "string_list", ["a", "3"]),
        ([0.5, 1], "float_list", [0.5, 1.0]),
        ([], "int_list", []),
        ("a|b", "string_list", "a|b"),
    ],
)
def test_values_of_the_type_come_through(cell, kind, value):
    assert typed(cell, kind) == value


@pytest.mark.parametrize(
    ("cell", "kind", "reason"),
    [
        ("3", "int", "a whole number, got '3'"),
        (3.5, "int", "a whole number, got 3.5"),
        (2.0**60, "int", "a whole number"),
        (2**63, "int", "64 bits"),
        (-(2**63) - 1, "string", "64 bits"),
        (10**4000, "float", "below 1.8e308"),
        ("3", "float", "a number, got '3'"),
        (True, "float", "got true"),
        (False, "string", "got false"),
        (math.nan, "float", "finite"),
        (-math.inf, "int", "finite"),
        ({}, "string", "an object"),
        ([], "string", "a list"),
        (3, "int_list", "a list, got 3"),
        ("x" * 500, "int", "x..."),
    ],
)
def test_other_values_are_refused_with_their_place(cell, kind, reason):
    with pytest.raises(RequestError) as caught:
        typed(cell, kind)
    assert caught.value.field == "cells[0]"
    assert reason in caught.value.message
    assert len(caught.value.message) < 200


def test_an_element_of_a_list_is_refused_by_its_own_place():
    with pytest.raises(RequestError) as caught:
        typed([1, 2, "x"], "int_list")
    assert caught.value.field == "cells[0][2]"


cells = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner),
    max_leaves=4,
)


@given(st.lists(cells, max_size=4), st.sampled_from(KINDS))
def test_any_json_is_typed_or_refused_and_never_anything_else(column, kind):
    try:
        array = whole_column(column, kind, str)
    except RequestError:
        return
    assert len(array) == len(column)


def test_a_misspelt_name_points_at_the_nearest():
    fault = unknown_name("user.features.agee", "agee", ["age", "gender"])
    assert fault.message == "unknown name 'agee'; did you mean 'age'?"


def test_a_foreign_name_lists_what_there_is():
    assert "there are age, sex" in unknown_name("x", "zzz", ["sex", "age"]).message
    assert "there are none" in unknown_name("x", "zzz", []).message
