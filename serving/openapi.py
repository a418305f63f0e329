"""The OpenAPI document, made from the very types that requests are decoded into."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from msgspec import Struct

from recsys_mtl import __version__
from recsys_mtl.rank.card import ModelCard, ModelList
from recsys_mtl.rank.request import (
    RankRequest,
    RankResponse,
    ScoreRequest,
    ScoreResponse,
)
from serving.fault import ErrorBody
from serving.model_set import ServedModel

__all__ = ["describe"]

_REF = "#/components/schemas/{name}"
_JSON_TYPE: dict[str, dict[str, Any]] = {
    "int": {"type": ["integer", "null"]},
    "float": {"type": ["number", "null"]},
    "string": {"type": ["string", "integer", "null"]},
    "int_list": {"type": ["array", "null"], "items": {"type": "integer"}},
    "float_list": {"type": ["array", "null"], "items": {"type": "number"}},
    "string_list": {
        "type": ["array", "string", "null"],
        "items": {"type": ["string", "integer"]},
    },
}
_TYPES = [RankRequest, RankResponse, ScoreRequest, ScoreResponse, ModelCard, ModelList]
_POST_FAULTS = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.INTERNAL_SERVER_ERROR,
)


def describe(models: Sequence[ServedModel]) -> dict[str, Any]:
    """Describe every route of a server with these models.

    The example requests are real: sent as they stand, they are answered.
    """
    _, components = msgspec.json.schema_components(
        [*_TYPES, ErrorBody], ref_template=_REF
    )
    for owner, field, origins in (
        ("UserInput", "features", ("user",)),
        ("ItemInput", "features", ("item", "context")),
        ("RankRequest", "context", ("context",)),
    ):
        components[owner]["properties"][field]["properties"] = {
            column.name: {
                **_JSON_TYPE[column.type],
                "description": f"{column.origin} {column.role}"
                + (f", in {column.unit}" if column.unit else ""),
            }
            for model in models
            for column in model.card.signature
            if column.origin in origins and column.role in ("feature", "timestamp")
        }
    first = models[0]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "recsys-mtl",
            "version": __version__,
            "description": "Ranks and scores for several tasks at once.",
        },
        "paths": {
            "/v1/rank": _post(
                "Order candidates for one user",
                RankRequest,
                RankResponse,
                _given(first.ranker.example()),
            ),
            "/v1/score": _post(
                "Score rows in the order given",
                ScoreRequest,
                ScoreResponse,
                _given(first.ranker.example_rows()),
            ),
            "/v1/models": _get("Served models", _content(ModelList)),
            "/v1/models/{name}": {
                **_get("A served model", _content(ModelCard), HTTPStatus.NOT_FOUND),
                "parameters": [
                    {
                        "name": "name",
                        "in": "path",
                        "required": True,
                        "schema": {"type": "string"},
                        "example": first.name,
                    }
                ],
            },
            "/healthz": _get("The process lives", _text("text/plain")),
            "/readyz": _get(
                "A warm-up request went through",
                _text("text/plain"),
                HTTPStatus.SERVICE_UNAVAILABLE,
            ),
            "/openapi.json": _get(
                "This document", {"application/json": {"schema": {"type": "object"}}}
            ),
            "/docs": _get("This document, to read and try out", _text("text/html")),
        },
        "components": {"schemas": components},
    }


def _post(
    summary: str, body: type[Struct], answer: type[Struct], example: Any
) -> dict[str, Any]:
    operation = _operation(summary, _content(answer), *_POST_FAULTS)
    content = _content(body)
    content["application/json"]["example"] = example
    operation["requestBody"] = {"required": True, "content": content}
    return {"post": operation}


def _get(summary: str, content: dict[str, Any], *faults: HTTPStatus) -> dict[str, Any]:
    return {"get": _operation(summary, content, *faults)}


def _operation(
    summary: str, content: dict[str, Any], *faults: HTTPStatus
) -> dict[str, Any]:
    responses = {"200": {"description": "OK", "content": content}}
    for status in faults:
        responses[str(int(status))] = {
            "description": status.phrase,
            "content": _content(ErrorBody),
        }
    return {"summary": summary, "responses": responses}


def _content(body: type[Struct]) -> dict[str, Any]:
    reference = _REF.format(name=body.__name__)
    return {"application/json": {"schema": {"$ref": reference}}}


def _text(media_type: str) -> dict[str, Any]:
    return {media_type: {"schema": {"type": "string"}}}


def _given(request: Struct) -> Any:
    """Leave out what the example leaves at its default."""
    builtins = msgspec.to_builtins(request)
    return {
        name: value
        for name, value in builtins.items()
        if value not in (None, {}, False)
    }
