"""The OpenAPI document, and a page made from it."""

from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from serving.media import JSON
from serving.operation import Operation, text

__all__ = ["DOCUMENTATION"]

_PAGE: Final = (Path(__file__).parent / "docs.html").read_text(encoding="utf-8")
# The page asks this server alone: no code, font or picture comes from elsewhere.
_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)


async def _openapi(request: Request) -> Response:
    return Response(request.app.state.openapi, media_type=JSON)


async def _docs(request: Request) -> Response:
    del request
    return HTMLResponse(_PAGE, headers={"content-security-policy": _POLICY})


DOCUMENTATION = (
    Operation(
        method="GET",
        path="/openapi.json",
        handle=_openapi,
        access="any",
        summary="This document",
        answers={JSON: {"type": "object"}},
        page="docs",
    ),
    Operation(
        method="GET",
        path="/docs",
        handle=_docs,
        access="any",
        summary="This document, to read and try out",
        answers=text("text/html"),
        headers={"content-security-policy": "the page loads nothing from elsewhere"},
        page="docs",
    ),
)
