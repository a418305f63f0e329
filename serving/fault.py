"""What goes wrong with a request, as the JSON that the caller sees."""

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from msgspec import Struct
from starlette.responses import Response

from serving.observability.record import note_fault, stage
from serving.tensor_message import InferError

__all__ = ["ErrorBody", "ErrorDetail", "HttpFault", "error_response", "json_response"]


class ErrorDetail(Struct, frozen=True):
    """One refusal.

    Attributes:
        code: For programs: ``malformed_json``, ``not_found``, ``method_not_allowed``,
            ``too_large``, ``invalid``, ``unauthorized``, ``forbidden``, ``too_slow``,
            ``rate_limited``, ``overloaded``, ``too_late``, ``not_ready``, ``refused``,
            ``unavailable`` or ``internal``.
        message: For people: what must hold, what was got, what to do.
        field: Path of the field inside the request; null where it is about none.
    """

    code: str
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
        code: str,
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
