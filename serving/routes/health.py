"""Whether the process lives, and whether it is ready to be asked."""

from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from serving.fault import HttpFault
from serving.operation import Operation, service_of, text

__all__ = ["HEALTH"]


async def _healthz(request: Request) -> Response:
    del request
    return PlainTextResponse("ok")


async def _readyz(request: Request) -> Response:
    if service_of(request).ready:
        return PlainTextResponse("ready")
    raise HttpFault(
        HTTPStatus.SERVICE_UNAVAILABLE, "not_ready", "warming up; ask again in a second"
    )


HEALTH = (
    Operation(
        method="GET",
        path="/healthz",
        handle=_healthz,
        access="open",
        summary="The process lives",
        answers=text("text/plain"),
    ),
    Operation(
        method="GET",
        path="/readyz",
        handle=_readyz,
        access="open",
        summary="A warm-up request went through",
        answers=text("text/plain"),
        faults=(HTTPStatus.SERVICE_UNAVAILABLE,),
    ),
)
