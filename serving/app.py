"""The ASGI app: routes, and faults as JSON."""

import logging
import uuid
from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from recsys_mtl.errors import DataError, RequestError
from recsys_mtl.rank.card import ModelList
from recsys_mtl.rank.ranker import Ranker
from recsys_mtl.rank.request import RankRequest, ScoreRequest
from serving.body import decode, read_body
from serving.fault import HttpFault, error_response, json_response
from serving.model_set import ModelSet
from serving.openapi import describe
from serving.service import Service
from serving.settings import ServingSettings

__all__ = ["create_app"]

logger = logging.getLogger(__name__)

_RANK = msgspec.json.Decoder(RankRequest)
_SCORE = msgspec.json.Decoder(ScoreRequest)
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
    app = Starlette(
        routes=[
            Route("/v1/rank", _rank, methods=["POST"]),
            Route("/v1/score", _score, methods=["POST"]),
            Route("/v1/models", _models),
            Route("/v1/models/{name}", _model),
            Route("/healthz", _healthz),
            Route("/readyz", _readyz),
            Route("/openapi.json", _openapi),
            Route("/docs", _docs),
        ],
        exception_handlers={
            HttpFault: _refused,
            RequestError: _refused,
            DataError: _refused,
            HTTPException: _no_route,
            ClientDisconnect: _client_left,
            Exception: _unexpected,
        },
    )
    app.state.service = service = Service(models, settings)
    app.state.openapi = msgspec.json.encode(describe(service.models.models))
    return app


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _rank(request: Request) -> Response:
    service = _service(request)
    with service.admitted(), service.holding() as hold:
        body = await read_body(request, service.settings.limits, hold)
        ask = decode(body, _RANK)
    return json_response(await service.rank(ask, leaves=request.receive))


async def _score(request: Request) -> Response:
    service = _service(request)
    with service.admitted(), service.holding() as hold:
        body = await read_body(request, service.settings.limits, hold)
        ask = decode(body, _SCORE)
    return json_response(await service.score(ask, leaves=request.receive))


async def _models(request: Request) -> Response:
    models = _service(request).models.models
    return json_response(ModelList([model.card for model in models]))


async def _model(request: Request) -> Response:
    return json_response(_service(request).model(request.path_params["name"]).card)


async def _healthz(request: Request) -> Response:
    del request
    return PlainTextResponse("ok")


async def _readyz(request: Request) -> Response:
    if _service(request).ready:
        return PlainTextResponse("ready")
    raise HttpFault(
        HTTPStatus.SERVICE_UNAVAILABLE, "not_ready", "warming up; ask again in a second"
    )


async def _openapi(request: Request) -> Response:
    return _json(request.app.state.openapi)


async def _docs(request: Request) -> Response:
    del request
    return get_swagger_ui_html(openapi_url="openapi.json", title="recsys-mtl")


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


async def _refused(request: Request, fault: Exception) -> Response:
    del request
    if isinstance(fault, HttpFault):
        return error_response(fault)
    field = fault.field if isinstance(fault, RequestError) else None
    message = fault.message if isinstance(fault, RequestError) else str(fault)
    return error_response(
        HttpFault(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", message, field)
    )


async def _no_route(request: Request, fault: Exception) -> Response:
    assert isinstance(fault, HTTPException)
    status = HTTPStatus(fault.status_code)
    match status:
        case HTTPStatus.NOT_FOUND:
            message = f"no route {request.url.path}; GET /docs lists them"
        case HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = (fault.headers or {}).get("Allow", "another method")
            message = f"{request.url.path} takes {allowed}, not {request.method}"
        case _:
            message = fault.detail
    response = error_response(HttpFault(status, status.name.lower(), message))
    response.headers.update(fault.headers or {})
    return response


async def _client_left(request: Request, fault: Exception) -> Response:
    del request, fault
    return Response(status_code=_CLIENT_LEFT)


async def _unexpected(request: Request, fault: Exception) -> Response:
    number = uuid.uuid4().hex
    logger.error("%s failed, id %s", request.url.path, number, exc_info=fault)
    message = f"the server failed; its log has the reason under id {number}"
    return error_response(
        HttpFault(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", message)
    )
