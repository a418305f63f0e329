import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner)
    ),
    max_leaves=6,
)


names = st.sampled_from(
    [
        "user_id",
        "item_id",
        "ts",
        "age",
        "price",
        "tags",
        "clicks.time",
        "clicks.item_id",
    ]
)


columns = st.dictionaries(names, json_values, max_size=4)


requests = st.one_of(
    json_values,
    st.fixed_dictionaries(
        {},
        optional={
            "user": st.fixed_dictionaries(
                {},
                optional={
                    "id": json_values,
                    "features": columns,
                    "histories": st.dictionaries(
                        st.sampled_from(["clicks", "views"]), columns, max_size=2
                    ),
                },
            ),
            "context": columns,
            "items": st.lists(
                st.fixed_dictionaries({}, optional={"id": json_values}), max_size=3
            ),
            "item_ids": json_values,
            "rows": st.lists(columns, max_size=3),
            "columns": columns,
            "top_k": json_values,
            "tasks": json_values,
        },
    ),
)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(path=st.sampled_from(["/v1/rank", "/v1/score"]), body=requests)
def test_no_json_breaks_the_server(client, path, body):
    response = client.post(path, content=json.dumps(body))
    assert response.status_code in (200, 400, 404, 422), response.text
    if response.status_code != 200:
        assert response.json()["error"]["message"]


@settings(max_examples=50, deadline=None)
@given(body=st.binary(max_size=200))
def test_no_bytes_break_the_server(client, body):
    response = client.post("/v1/rank", content=body)
    assert response.status_code in (400, 422), response.text
