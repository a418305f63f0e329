"""What every request passes first: who asks, how often, and no trace gets out."""

import logging
import time
import uuid
from http import HTTPStatus
from typing import Final, Literal, final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.fault import HttpFault, error_response
from serving.keys import ApiKey, KeyRing
from serving.keys import Scope as KeyScope
from serving.rate import RateLimit
from serving.settings import ServingSettings

__all__ = ["Gate", "scope_of"]

logger = logging.getLogger(__name__)

_ANYBODY: Final = frozenset(
    {"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"}
)
_PAGES: Final = {
    "/docs": "docs",
    "/openapi.json": "docs",
    "/metrics": "metrics",
}
_SCOPES: Final[tuple[tuple[str, KeyScope], ...]] = (
    ("/v1/rank", "rank"),
    ("/v1/score", "rank"),
    ("/v1/feedback", "feedback"),
    ("/v2/models/", "rank"),
)
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_PRIVATE: Final = "/v1/entities/"
"""What is known of a person is not for everybody who may ask for a ranking."""


def scope_of(method: str, path: str) -> KeyScope | Literal["any"]:
    """Say which scope a key needs.

    What changes something and is not listed needs ``admin``, so that a new route is
    closed until somebody opens it; what only reads needs any good key, but for what is
    stored of users and items.

    Example:
        >>> scope_of("POST", "/v1/rank"), scope_of("PUT", "/v1/entities/user/7")
        ('rank', 'admin')
        >>> scope_of("GET", "/v1/models"), scope_of("GET", "/v1/entities/users/7")
        ('any', 'admin')
    """
    if method in _READS and not path.startswith(_PRIVATE):
        return "any"
    for prefix, scope in _SCOPES:
        if path.startswith(prefix):
            return scope
    return "admin"


@final
class Gate:
    """ASGI middleware: keys, rates, and the last stop of what goes wrong.

    Health routes are open. Without a keys file all others are as well; the caller then
    is the client's address.

    Args:
        app: What is behind it.
        settings: Who may ask, and how often.

    Raises:
        ConfigError: The keys file cannot be used.
    """

    def __init__(self, app: ASGIApp, settings: ServingSettings) -> None:
        auth, overload = settings.auth, settings.overload
        self._app = app
        self._keys = None if auth.keys_file is None else KeyRing(auth.keys_file)
        self._public = frozenset(auth.public)
        self._rates = (
            None
            if overload.requests_per_s is None
            else RateLimit(overload.requests_per_s, overload.burst)
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, receive, note)
        except HttpFault as fault:
            await error_response(fault, scope["path"])(scope, receive, send)
        except Exception as error:
            number = uuid.uuid4().hex
            logger.error("%s failed, id %s", scope["path"], number, exc_info=error)
            if not started:
                refusal = HttpFault(
                    HTTPStatus.INTERNAL_SERVER_ERROR,
                    "internal",
                    f"the server failed; its log has the reason under id {number}",
                )
                await error_response(refusal, scope["path"])(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        path = scope["path"]
        if path in _ANYBODY:
            return
        caller = f"address {scope['client'][0]}" if scope.get("client") else "somebody"
        if self._keys is not None and _PAGES.get(path) not in self._public:
            key = self._admit(self._keys, scope)
            caller = f"key {key.name}"
        if self._rates is not None:
            wait_s = self._rates.take(caller, now=time.monotonic())
            if wait_s:
                raise HttpFault(
                    HTTPStatus.TOO_MANY_REQUESTS,
                    "rate_limited",
                    f"this caller asks too often; ask again in {wait_s:.3f} s",
                    headers={"retry-after": str(int(wait_s) + 1)},
                )

    def _admit(self, keys: KeyRing, scope: Scope) -> ApiKey:
        headers = Headers(scope=scope)
        kind, _, presented = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            presented = headers.get("x-api-key", "")
        key = keys.find(presented.strip()) if presented else None
        if key is None:
            raise HttpFault(
                HTTPStatus.UNAUTHORIZED,
                "unauthorized",
                "this server wants a key: send it as `Authorization: Bearer KEY`"
                if not presented
                else "the key is unknown or has expired; ask for a new one",
                headers={"www-authenticate": "Bearer", "connection": "close"},
            )
        needed = scope_of(scope["method"], scope["path"])
        if needed != "any" and needed not in key.scopes:
            logger.warning("key %s lacks scope %s", key.name, needed)
            raise HttpFault(
                HTTPStatus.FORBIDDEN,
                "forbidden",
                f"the key needs the scope {needed!r}, it has: "
                f"{', '.join(sorted(key.scopes))}",
                headers={"connection": "close"},
            )
        return key
