"""What a body is sent as, and what an answer is wanted as."""

from http import HTTPStatus
from typing import Final, Literal

from starlette.requests import Request

from serving.fault import HttpFault

__all__ = ["ARROW", "JSON", "MediaType", "refuse_compressed", "sent_as", "wanted_as"]

MediaType = Literal["application/json", "application/vnd.apache.arrow.stream"]

JSON: Final = "application/json"
ARROW: Final = "application/vnd.apache.arrow.stream"

# What tools put there for whoever names nothing: curl -d, fetch with text, httpx.
_AS_JSON = {"", JSON, "text/plain", "application/x-www-form-urlencoded", "text/json"}


def refuse_compressed(request: Request) -> None:
    """Refuse a compressed body, of which a small one may be large.

    Raises:
        HttpFault: 415.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise HttpFault(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "unsupported",
            f"bodies must not be compressed, got {encoding[:40]!r}; send it plain",
            "content-encoding",
        )


def sent_as(request: Request) -> MediaType:
    """Read what the body is.

    Raises:
        HttpFault: 415 for neither JSON nor Arrow, and for compressed bodies.
    """
    refuse_compressed(request)
    given = request.headers.get("content-type", "")
    kind = given.partition(";")[0].strip().lower()
    if kind == ARROW:
        return ARROW
    if kind in _AS_JSON or kind.endswith("+json"):
        return JSON
    raise HttpFault(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "unsupported",
        f"the body must be {JSON} or {ARROW}, got {given[:80]!r}",
        "content-type",
    )


def wanted_as(request: Request) -> MediaType:
    """Read what the answer is to be: Arrow where that is asked for, else JSON.

    Of both, the one with the higher ``q``; JSON where they are equal.
    """
    quality = {JSON: 0.0, ARROW: 0.0}
    for part in request.headers.get("accept", "").split(","):
        kind, *rest = (piece.strip().lower() for piece in part.split(";"))
        weight = next((piece[2:] for piece in rest if piece.startswith("q=")), "1")
        if kind in quality:
            try:
                quality[kind] = float(weight)
            except ValueError:
                continue
    return ARROW if quality[ARROW] > quality[JSON] else JSON
