"""Whatever is sent, the server answers, and never with 500: some of each kind.

``benchmarks/fuzz.py`` sends many more of the same, and counts.
"""

import json

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from mutation import arrow_bodies, json_bodies, meddled, mistaken, tensor_bodies
from openapi_fuzz import CHECKS, operations

# The server runs in a thread of this process, and draws numbers of its own meanwhile.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")

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
    max_examples=100,
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


@pytest.mark.parametrize("bodies", [arrow_bodies(), tensor_bodies(), json_bodies()])
def test_the_bodies_to_meddle_with_are_good_ones(client, bodies):
    answers = [client.post(p, content=b, headers=h) for p, b, h in bodies]
    bad = [a.text for a in answers if a.status_code != 200]
    assert all("compressed" in text for text in bad)
    assert len(bad) < len(answers)


@pytest.mark.parametrize(
    "bodies",
    [
        meddled(arrow_bodies()),
        meddled(tensor_bodies()),
        meddled(json_bodies()),
        mistaken(tensor_bodies()),
        mistaken(json_bodies()),
    ],
    ids=["arrow", "tensors", "json", "values of tensors", "values of json"],
)
def test_no_meddling_breaks_the_server(client, bodies):
    @settings(max_examples=80, deadline=None, database=None)
    @given(sent=bodies)
    def meddle(sent):
        path, body, headers = sent
        response = client.post(path, content=body, headers=headers, timeout=10)
        assert response.status_code in (200, 400, 404, 422), response.text
        if response.status_code != 200:
            assert response.json()["error"]

    meddle()


def test_the_server_is_what_its_openapi_document_says(url):
    for operation in operations(url):

        @settings(
            max_examples=4,
            deadline=None,
            phases=[Phase.generate],
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def conform(case):
            case.validate_response(case.call(timeout=10), checks=CHECKS)

        conform()
