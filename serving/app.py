"""The ASGI app: routes, and faults as JSON."""

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from recsys_mtl.errors import DataError, RequestError
from recsys_mtl.rank.ranker import Ranker
from serving.fault import Code, HttpFault, error_response
from serving.gate import Gate
from serving.model_set import ModelSet
from serving.observability.observer import ObservedApp, Observer
from serving.openapi import describe
from serving.operation import route_of
from serving.routes import OPERATIONS
from serving.service import Service
from serving.settings import ServingSettings

__all__ = ["create_app"]

_CLIENT_LEFT = 499  # nginx's number; there is nobody left to read it


def create_app(
    models: Ranker | Mapping[str, Ranker] | ModelSet, settings: ServingSettings
) -> Starlette:
    """Build the app that both engines run.

    ``app.state.service.warm_up()`` makes it ready: engines call it once they can answer
    health checks.

    Args:
        models: One ranker, or several by name, of which the first answers requests
            that name none, or models with shares of the traffic.
        settings: Limits.
    """
    if isinstance(models, Ranker):
        models = {models.name: models}
    app = ObservedApp(
        routes=[route_of(operation) for operation in OPERATIONS],
        exception_handlers={
            HttpFault: _refused,
            RequestError: _refused,
            DataError: _refused,
            HTTPException: _no_route,
            ClientDisconnect: _client_left,
        },
        middleware=[Middleware(Gate, settings=settings, operations=OPERATIONS)],
    )
    app.state.service = service = Service(models, settings)
    app.state.observer = Observer(service, app)

    def document(models: ModelSet) -> None:
        described = describe(models.models, OPERATIONS, settings)
        app.state.openapi = msgspec.json.encode(described)

    document(service.models)
    service.watchers.append(document)
    return app


async def _refused(request: Request, fault: Exception) -> Response:
    path = request.url.path
    if isinstance(fault, HttpFault):
        return error_response(fault, path)
    field = fault.field if isinstance(fault, RequestError) else None
    message = fault.message if isinstance(fault, RequestError) else str(fault)
    return error_response(
        HttpFault(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", message, field), path
    )


async def _no_route(request: Request, fault: Exception) -> Response:
    assert isinstance(fault, HTTPException)
    code: Code
    match status := HTTPStatus(fault.status_code):
        case HTTPStatus.NOT_FOUND:
            code = "not_found"
            message = f"no route {request.url.path}; GET /docs lists them"
        case HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = (fault.headers or {}).get("Allow", "another method")
            code = "method_not_allowed"
            message = f"{request.url.path} takes {allowed}, not {request.method}"
        case _:  # the router has no other
            raise fault
    fault_of_route = HttpFault(status, code, message)
    response = error_response(fault_of_route, request.url.path)
    response.headers.update(fault.headers or {})
    return response


async def _client_left(request: Request, fault: Exception) -> Response:
    del request, fault
    return Response(status_code=_CLIENT_LEFT)
