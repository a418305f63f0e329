"""What every request passes first: who asks, how often, and no trace gets out."""

import logging
import time
import uuid
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final, final

from starlette.datastructures import Headers
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.fault import HttpFault, error_response
from serving.keys import ApiKey, KeyRing
from serving.operation import Access, Operation, route_of
from serving.rate import RateLimit
from serving.settings import ServingSettings

__all__ = ["Gate"]

logger = logging.getLogger(__name__)

_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


@final
class Gate:
    """ASGI middleware: keys, rates, and the last stop of what goes wrong.

    Health routes are open. Without a keys file all others are as well; the caller then
    is the client's address.

    Args:
        app: What is behind it.
        settings: Who may ask, and how often.
        operations: What may be asked, and with which scope.

    Raises:
        ConfigError: The keys file cannot be used.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: ServingSettings,
        operations: Sequence[Operation],
    ) -> None:
        auth, overload = settings.auth, settings.overload
        self._app = app
        self._keys = None if auth.keys_file is None else KeyRing(auth.keys_file)
        self._public = frozenset(auth.public)
        self._routes = [(route_of(operation), operation) for operation in operations]
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
        if self._keys is None and self._rates is None:
            return
        operation = self._operation(scope)
        if operation is not None and operation.access == "open":
            return
        access = self._access(operation, scope["method"])
        caller = f"address {scope['client'][0]}" if scope.get("client") else "somebody"
        if self._keys is not None and access != "open":
            caller = f"key {self._admit(self._keys, scope, access).name}"
        if self._rates is not None:
            wait_s = self._rates.take(caller, now=time.monotonic())
            if wait_s:
                raise HttpFault(
                    HTTPStatus.TOO_MANY_REQUESTS,
                    "rate_limited",
                    f"this caller asks too often; ask again in {wait_s:.3f} s",
                    headers={"retry-after": str(int(wait_s) + 1)},
                )

    def _operation(self, scope: Scope) -> Operation | None:
        """Find what the app will answer with, in its own way."""
        # It sends whoever adds a slash to the route without it, and they ask again.
        asked = {**scope, "path": scope["path"].rstrip("/") or "/"}
        for route, operation in self._routes:
            if route.matches(asked)[0] is Match.FULL:
                return operation
        return None

    def _access(self, operation: Operation | None, method: str) -> Access:
        """Say what a caller needs.

        What is no route is never open, so that nobody without a key learns what there
        is.
        """
        if operation is not None:
            return operation.access_of(self._public)
        return "any" if method in _READS else "admin"

    def _admit(self, keys: KeyRing, scope: Scope, needed: Access) -> ApiKey:
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
