import pyarrow as pa
import pytest

from recsys_mtl.errors import DataError
from recsys_mtl.features.signature import plan_raw

TEXT = pa.string()


def types_of(plan) -> dict:
    return {column.name: column.type for column in plan.signature}


def small(make_recipe, features, **data):
    nothing = {"users": None, "items": None, "timestamp": None}
    return make_recipe(
        features, split={"kind": "hash", "column": "user"}, **nothing | data
    )


@pytest.mark.parametrize(
    ("kind", "as_id", "as_number", "as_both"),
    [
        (pa.int32(), "int", "float", "int"),
        (pa.bool_(), "int", "float", "int"),
        (pa.float64(), "int", "float", "string"),
        (TEXT, "string", "float", "string"),
        (pa.uint64(), "string", "float", "string"),
        (pa.dictionary(pa.int8(), pa.int64()), "int", "float", "int"),
        (pa.dictionary(pa.int8(), TEXT), "string", "float", "string"),
        (pa.date32(), "string", "float", "string"),
    ],
)
def test_the_source_and_the_use_decide_the_type(
    make_recipe, kind, as_id, as_number, as_both
):
    schema = pa.schema({"user": TEXT, "item": TEXT, "click": TEXT, "c": kind})
    as_category = {"kind": "categorical", "name": "a", "column": "c"}
    as_numeric = {"kind": "numeric", "name": "b", "column": "c"}
    for features, expected in (
        ([as_category], as_id),
        ([as_numeric], as_number),
        ([as_category, as_numeric], as_both),
    ):
        assert types_of(plan_raw(small(make_recipe, features), schema))["c"] == expected


def test_columns_are_found_where_they_are_and_typed(log):
    columns = {c.name: (c.type, c.origin, c.history_only) for c in log.plan.signature}
    assert columns == {
        "user": ("string", "context", False),
        "item": ("int", "context", False),
        "at": ("int", "context", False),
        "city": ("string", "user", False),
        "brand": ("int", "item", False),
        "age": ("float", "user", False),
        "price": ("float", "item", False),
        "stay": ("float", "context", True),
        "click": ("int", "context", True),
        "tags": ("string_list", "item", False),
        "clicks.item": ("int_list", "user", False),
        "clicks.brand": ("int_list", "user", False),
        "clicks.stay": ("float_list", "user", False),
        "clicks.time": ("int_list", "user", False),
        "seen.item": ("int_list", "user", False),
        "seen.click": ("int_list", "user", False),
        "seen.time": ("int_list", "user", False),
        "alike.click": ("int_list", "user", False),
        "alike.brand": ("int_list", "user", False),
        "alike.time": ("int_list", "user", False),
        "user_ctr.rows": ("float", "user", False),
        "user_ctr.hits": ("float", "user", False),
        "item_ctr.rows": ("float", "item", False),
        "item_ctr.hits": ("float", "item", False),
    }


def test_the_plan_reads_no_more_than_is_needed(log):
    schema = log.raw.schema.append(pa.field("unused", TEXT))
    plan = plan_raw(log.recipe, schema, log.users.schema, log.items.schema)
    assert set(plan.interactions) == {"user", "item", "at", "click", "stay"}
    assert set(plan.users) == {"uid", "city", "age"}
    assert set(plan.items) == {"item", "brand", "price", "tags"}


def test_a_column_of_several_tables_is_that_of_the_interactions(log):
    schema = log.raw.schema.append(pa.field("brand", TEXT))
    plan = plan_raw(log.recipe, schema, log.users.schema, log.items.schema)
    origin = {c.name: (c.type, c.origin) for c in plan.signature}
    assert origin["brand"] == ("string", "context")
    # The items still have it: for cells that the log or a request lacks.
    assert "brand" in plan.items


def test_a_label_of_the_log_is_never_taken_from_a_table(log):
    items = log.items.schema.append(pa.field("click", TEXT))
    plan = plan_raw(log.recipe, log.raw.schema, log.users.schema, items)
    assert "click" not in plan.items


@pytest.mark.parametrize(
    ("in_log", "in_users"), [(pa.int64(), TEXT), (TEXT, pa.int64())]
)
def test_a_key_of_two_types_is_text(log, in_log, in_users):
    schema = log.raw.schema.set(0, pa.field("user", in_log))
    users = log.users.schema.set(0, pa.field("uid", in_users))
    plan = plan_raw(log.recipe, schema, users, log.items.schema)
    assert types_of(plan)["user"] == "string"


@pytest.mark.parametrize(
    ("unit", "kind", "expected"),
    [
        ("ms", pa.int64(), "int"),
        ("s", pa.float64(), "float"),
        ("ms", TEXT, "string"),
        ("iso8601", TEXT, "string"),
        ("ms", pa.timestamp("us"), "int"),
        ("iso8601", pa.timestamp("us"), "string"),
    ],
)
def test_times_keep_the_form_they_have(make_recipe, unit, kind, expected):
    recipe = small(
        make_recipe,
        [{"kind": "time_part", "name": "hour", "part": "hour"}],
        timestamp={"column": "at", "unit": unit},
    )
    schema = pa.schema({"user": TEXT, "item": TEXT, "click": TEXT, "at": kind})
    assert types_of(plan_raw(recipe, schema))["at"] == expected


def test_labels_and_conditions_of_entity_tables_are_read_but_no_features(make_recipe):
    recipe = make_recipe(
        [{"kind": "categorical", "name": "item"}],
        tasks=[
            {
                "kind": "binary",
                "name": "pay",
                "label": {"column": "paid", "above": 0},
                "sample_space": {"column": "country", "equals": "it"},
            }
        ],
    )
    plan = plan_raw(
        recipe,
        pa.schema({"user": TEXT, "item": TEXT, "at": pa.int64(), "paid": TEXT}),
        pa.schema({"uid": TEXT, "country": TEXT}),
        pa.schema({"item": TEXT}),
    )
    assert set(plan.interactions) == {"user", "item", "at", "paid"}
    assert set(plan.users) == {"uid", "country"}
    assert {"country", "paid"}.isdisjoint(types_of(plan))


def test_all_faults_are_told_at_once(make_recipe):
    recipe = small(
        make_recipe,
        [
            {"kind": "categorical", "name": "colour"},
            {"kind": "list", "name": "tags"},
            {"kind": "cross", "name": "x", "columns": ["user", "tags"], "buckets": 9},
            {"kind": "numeric", "name": "n", "column": "clik"},
        ],
    )
    schema = pa.schema({"user": TEXT, "item": TEXT, "click": TEXT, "tags": TEXT})
    with pytest.raises(DataError) as caught:
        plan_raw(recipe, schema)
    message = str(caught.value)
    assert "feature 'colour' reads column 'colour': not in interactions" in message
    assert "'clik': not in interactions; did you mean 'click'?" in message
    assert "'tags' is read both as a list and as a single value" in message
    assert "declare the `separator`" in message


def test_a_key_missing_from_a_table_is_told(log):
    users = log.users.schema.set(0, pa.field("id", TEXT))
    with pytest.raises(DataError, match=r"data\.users reads column 'uid'"):
        plan_raw(log.recipe, log.raw.schema, users, log.items.schema)
