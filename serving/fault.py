"""What goes wrong with a request, as the JSON that the caller sees."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Literal

import msgspec
from msgspec import Struct
from starlette.responses import Response

from serving.observability.record import note_fault, stage
from serving.tensor_message import InferError

__all__ = [
    "Code",
    "ErrorBody",
    "ErrorDetail",
    "HttpFault",
    "error_response",
    "json_response",
]


Code = Literal[
    "forbidden",
    "internal",
    "invalid",
    "malformed_arrow",
    "malformed_body",
    "malformed_json",
    "method_not_allowed",
    "not_found",
    "not_ready",
    "overloaded",
    "rate_limited",
    "read_only",
    "refused",
    "store_unavailable",
    "too_large",
    "too_late",
    "too_slow",
    "unauthorized",
    "unavailable",
    "unsupported",
]
"""Every reason there is to refuse a request."""


class ErrorDetail(Struct, frozen=True):
    """One refusal.

    Attributes:
        code: For programs.
        message: For people: what must hold, what was got, what to do.
        field: Path of the field inside the request; null where it is about none.
    """

    code: Code
    message: str
    field: str | None = None


class ErrorBody(Struct, frozen=True):
    """Body of every response that is no success."""

    error: ErrorDetail


class HttpFault(Exception):  # noqa: N818 - a refusal, told to the caller
    """A request that gets ``status``; ``headers`` go with it.

    ``reason`` is counted where a code has several.
    """

    def __init__(
        self,
        status: HTTPStatus,
        code: Code,
        message: str,
        field: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        reason: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.field = field
        self.headers = dict(headers or {})
        self.reason = reason


def error_response(fault: HttpFault, path: str = "") -> Response:
    """Tell the caller of ``fault``, as the protocol of ``path`` has it."""
    note_fault(fault.code, fault.reason)
    message = _cut(fault.message)
    field = None if fault.field is None else _cut(fault.field)
    body: Struct = ErrorBody(ErrorDetail(fault.code, message, field))
    if path == "/v2" or path.startswith("/v2/"):
        body = InferError(message if field is None else f"{field}: {message}")
    response = json_response(body, fault.status)
    response.headers.update(fault.headers)
    return response


def _cut(text: str) -> str:
    """Leave out the middle of what a caller may have made a megabyte long."""
    return text if len(text) <= _LONGEST else f"{text[:_KEPT]}...{text[-_KEPT:]}"


_LONGEST, _KEPT = 1_000, 400


def json_response(body: Struct, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """Encode ``body``."""
    with stage("serialise"):
        encoded = msgspec.json.encode(body)
    return Response(encoded, status_code=status, media_type="application/json")
