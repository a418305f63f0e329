"""The OpenAPI document, and a page made from it."""

from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import Response

from serving.operation import Operation, text

__all__ = ["DOCUMENTATION"]


async def _openapi(request: Request) -> Response:
    return Response(request.app.state.openapi, media_type="application/json")


async def _docs(request: Request) -> Response:
    del request
    return get_swagger_ui_html(openapi_url="openapi.json", title="recsys-mtl")


DOCUMENTATION = (
    Operation(
        method="GET",
        path="/openapi.json",
        handle=_openapi,
        summary="This document",
        answers={"application/json": {"type": "object"}},
    ),
    Operation(
        method="GET",
        path="/docs",
        handle=_docs,
        summary="This document, to read and try out",
        answers=text("text/html"),
    ),
)
