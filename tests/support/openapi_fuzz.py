"""The operations of a server's OpenAPI document, to draw requests from."""

import json

import schemathesis
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)


@schemathesis.serializer("application/vnd.apache.arrow.stream", "application/x-ndjson")
def as_bytes(ctx, value):
    """What is no stream is sent all the same: the server has to see through it."""
    try:
        return value if isinstance(value, bytes) else json.dumps(value).encode()
    except TypeError:
        return str(value).encode("utf-8", "replace")


def no_failure(ctx, response, case):
    """503 and 504 are answers: a deadline of nothing is always missed."""
    assert response.status_code != 500, response.text


CHECKS = (
    no_failure,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
)


def operations(url):
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    return [result.ok() for result in schema.get_all_operations()]
