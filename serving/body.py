"""The bytes of a request -> a typed request, or the reason why not."""

import asyncio
import json
import math
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from serving.fault import HttpFault
from serving.observability.record import stage
from serving.settings import LimitSettings

__all__ = ["decode", "read_body"]

T = TypeVar("T")


async def read_body(
    request: Request,
    limits: LimitSettings,
    hold: Callable[[int], None] = lambda _: None,
) -> bytes:
    """Read a body of bounded size in bounded time.

    Args:
        request: Whose.
        limits: Its bounds.
        hold: Called with the size of each part before it is kept; may refuse it.

    Raises:
        HttpFault: 413 as soon as more arrives than is allowed, whatever the headers
            say; 408 if it takes too long.
    """
    parts: list[bytes] = []
    size = 0
    try:
        with stage("receive"):
            async with asyncio.timeout(limits.body_timeout_s):
                more = True
                while more:
                    message = await request.receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnect
                    part = message.get("body", b"")
                    more = message.get("more_body", False)
                    size += len(part)
                    if size > limits.max_body_bytes:
                        raise _too_large(limits.max_body_bytes)
                    hold(len(part))
                    parts.append(part)
    except TimeoutError:
        raise HttpFault(
            HTTPStatus.REQUEST_TIMEOUT,
            "too_slow",
            f"the body must arrive within {limits.body_timeout_s:g} s, got {size:,} "
            "bytes of it",
            headers={"connection": "close"},
        ) from None
    return b"".join(parts)


def decode(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Read JSON into the decoder's type.

    Raises:
        HttpFault: 400 for what is no JSON; 422 for JSON of another shape, naming the
            field.
    """
    try:
        with stage("decode"):
            return decoder.decode(body)
    except (msgspec.ValidationError, msgspec.DecodeError) as fault:
        _refuse_infinite_numbers(body)
        if not isinstance(fault, msgspec.ValidationError):
            raise _malformed(str(fault)) from fault
        message, _, path = str(fault).partition(" - at `$")
        raise HttpFault(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "invalid",
            message,
            path.rstrip("`").lstrip(".") or None,
        ) from fault
    except UnicodeDecodeError as fault:
        raise _malformed(f"it is no UTF-8: {fault.reason}") from fault
    except RecursionError as fault:
        raise _malformed("it is nested too deeply") from fault


def _too_large(bound: int) -> HttpFault:
    return HttpFault(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "too_large",
        f"the body must be at most {bound:,} bytes; send fewer items a request, or "
        "raise limits.max_body_bytes of the server",
    )


def _malformed(reason: str) -> HttpFault:
    return HttpFault(
        HTTPStatus.BAD_REQUEST, "malformed_json", f"the body is no JSON: {reason}"
    )


def _refuse_infinite_numbers(body: bytes) -> None:
    """Name the field of a NaN or infinity, which JSON does not have but Python writes.

    Only for bodies that were refused already: the decoder cannot tell where it was.
    """
    try:
        loose = json.loads(body)
    except (ValueError, RecursionError):
        return
    found = _first_infinite(loose)
    if found is not None:
        path, value = found
        raise HttpFault(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "invalid",
            f"must be a finite number, got {value}; leave it out or send null where a "
            "value is missing",
            # Python's decoder lets half a surrogate pair through.
            path.lstrip(".").encode("utf-8", "replace").decode(),
        )


def _first_infinite(value: Any) -> tuple[str, float] | None:
    """Find a number and its path, which no other number has a copy of."""
    path: list[str] = []
    todo = [iter([("", value)])]
    while todo:
        step, part = next(todo[-1], ("", None))
        if isinstance(part, float) and not math.isfinite(part):
            return "".join([*path, step]), part
        if isinstance(part, dict | list):
            path.append(step)
            todo.append(_steps(part))
        elif part is None and not step:  # no member is called by nothing
            todo.pop()
            del path[-1:]
    return None


def _steps(value: dict[str, Any] | list[Any]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        return ((f".{key}", part) for key, part in value.items())
    return ((f"[{i}]", part) for i, part in enumerate(value))
