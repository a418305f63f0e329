"""The OpenAPI document, made from the very types that requests are decoded into."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from msgspec import Struct

from recsys_mtl import __version__
from recsys_mtl.rank.request import RankRequest
from serving.model_set import ServedModel
from serving.operation import Content, Operation, Parameter, Schema
from serving.settings import ServingSettings

__all__ = ["describe"]

_REF = "#/components/schemas/{name}"
_JSON_TYPE: dict[str, Schema] = {
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
_HEADERS_OF = {
    HTTPStatus.UNAUTHORIZED: {"www-authenticate": "which way a key is sent"},
    HTTPStatus.TOO_MANY_REQUESTS: {"retry-after": "seconds after which to ask again"},
}
_SCHEMES: dict[str, Schema] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "api_key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
"""The ways to send a key; either will do."""


def describe(
    models: Sequence[ServedModel],
    operations: Sequence[Operation],
    settings: ServingSettings,
) -> dict[str, Any]:
    """Describe every route of a server with these models and settings.

    A server without keys asks nobody for one, and is described so. The example
    requests are real: sent as they stand, they are answered.
    """
    types = {
        content: None
        for operation in operations
        for contents in (operation.takes, operation.answers)
        for content in contents.values()
        if not isinstance(content, dict)
    }
    for operation in operations:
        types |= dict.fromkeys(operation.uses)
        if operation.faults or _faults_of_gate(operation, settings):
            types[operation.fault] = None
    # Arrow streams carry this one, wherever it is not a body of its own.
    _, schemas = msgspec.json.schema_components(
        [*types, *([] if RankRequest in types else [RankRequest])], ref_template=_REF
    )
    _name_columns(schemas, models)
    paths: dict[str, Any] = {}
    for operation in operations:
        path = paths.setdefault(operation.path, {})
        path[operation.method.lower()] = _operation(operation, models[0], settings)
    components: dict[str, Any] = {"schemas": schemas}
    if settings.auth.keys_file is not None:
        components["securitySchemes"] = _SCHEMES
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "recsys-mtl",
            "version": __version__,
            "description": "Ranks and scores for several tasks at once.",
        },
        "paths": paths,
        "components": components,
    }


def _name_columns(schemas: dict[str, Any], models: Sequence[ServedModel]) -> None:
    """Say which features there are, which the types leave to the bundles."""
    for owner, field, origins in (
        ("UserInput", "features", ("user",)),
        ("ItemInput", "features", ("item", "context")),
        ("RankRequest", "context", ("context",)),
    ):
        schemas[owner]["properties"][field]["properties"] = {
            column.name: {
                **_JSON_TYPE[column.type],
                "description": f"{column.origin} {column.role}"
                + (f", in {column.unit}" if column.unit else ""),
            }
            for model in models
            for column in model.card.signature
            if column.origin in origins and column.role in ("feature", "timestamp")
        }


def _faults_of_gate(
    operation: Operation, settings: ServingSettings
) -> list[HTTPStatus]:
    """Give what the gate answers before the route is asked."""
    if operation.access == "open":
        return []
    faults = []
    access = operation.access_of(settings.auth.public)
    if settings.auth.keys_file is not None and access != "open":
        faults.append(HTTPStatus.UNAUTHORIZED)
        if access != "any":
            faults.append(HTTPStatus.FORBIDDEN)
    if settings.overload.requests_per_s is not None:
        faults.append(HTTPStatus.TOO_MANY_REQUESTS)
    return faults


def _security(operation: Operation, settings: ServingSettings) -> list[dict[str, Any]]:
    """Say which keys open a route; the scope stands where OpenAPI 3.1 has roles."""
    match access := operation.access_of(settings.auth.public):
        case "open":
            return []
        case "any":
            return [{scheme: []} for scheme in _SCHEMES]
        case _:
            return [{scheme: [access]} for scheme in _SCHEMES]


def _operation(
    operation: Operation, model: ServedModel, settings: ServingSettings
) -> dict[str, Any]:
    told: dict[str, Any] = {"summary": operation.summary}
    if operation.description:
        told["description"] = operation.description
    if settings.auth.keys_file is not None:
        told["security"] = _security(operation, settings)
    if operation.parameters:
        told["parameters"] = [_parameter(p, model) for p in operation.parameters]
    if operation.takes:
        content = _content(operation.takes)
        for media_type, example in operation.examples.items():
            content[media_type]["example"] = _given(example(model))
        told["requestBody"] = {"required": True, "content": content}
    answer: dict[str, Any] = {
        "description": "OK",
        "content": _content(operation.answers),
    }
    if operation.headers:
        answer["headers"] = _headers(operation.headers)
    told["responses"] = {"200": answer}
    faults = {*operation.faults, *_faults_of_gate(operation, settings)}
    for status in sorted(faults):
        fault = {
            "description": status.phrase,
            "content": _content({"application/json": operation.fault}),
        }
        if status in _HEADERS_OF:
            fault["headers"] = _headers(_HEADERS_OF[status])
        told["responses"][str(int(status))] = fault
    return told


def _parameter(parameter: Parameter, model: ServedModel) -> dict[str, Any]:
    told = {
        "name": parameter.name,
        "in": parameter.where,
        "description": parameter.description,
        "required": parameter.required or parameter.where == "path",
        "schema": parameter.schema,
    }
    if parameter.example is not None:
        told["example"] = parameter.example(model)
    return told


def _headers(headers: Any) -> dict[str, Any]:
    return {
        name: {"description": description, "schema": {"type": "string"}}
        for name, description in headers.items()
    }


def _content(content: Content) -> dict[str, Any]:
    return {
        media_type: {
            "schema": body
            if isinstance(body, dict)
            else {"$ref": _REF.format(name=body.__name__)}
        }
        for media_type, body in content.items()
    }


def _given(example: Any) -> Any:
    """Leave out what the example leaves at its default."""
    if not isinstance(example, Struct):
        return example
    return {
        name: value
        for name, value in msgspec.to_builtins(example).items()
        if value not in (None, {}, False)
    }
