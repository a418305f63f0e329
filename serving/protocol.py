"""uvicorn's HTTP, with bounds on the time and on the size of headers."""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["MAX_HEAD_BYTES", "bounded_protocol"]

MAX_HEAD_BYTES: Final = 64 * 1024
"""Of a request's target, and of its headers with their names; uvicorn's other parser,
h11, has this bound as well."""

_SEPARATORS: Final = len(b": \r\n")  # of a header
_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


class _HeadTooLargeError(Exception):
    """Stops the parser; it never leaves this module."""


def bounded_protocol(header_timeout_s: float) -> type[HttpToolsProtocol]:
    """Make a protocol that closes connections which never finish their headers.

    uvicorn has a limit for connections that rest between two requests only: one that
    sends a byte now and then stays for ever, and so do thousands. Nor does it bound
    what it keeps of headers: more than ``MAX_HEAD_BYTES`` get 431 here.

    Args:
        header_timeout_s: From the first byte of a request, or from the connection's
            beginning, to the end of the headers.
    """

    class BoundedProtocol(HttpToolsProtocol):
        _header_timer: asyncio.TimerHandle | None = None
        _head_too_large = False
        # Bytes since the parser last got anywhere, in whole parts as they arrive. What
        # it keeps until a header ends is seen nowhere else, and trailers behind a body
        # are headers, too.
        _unfinished = 0
        _got_on = False

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._start()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            self._got_on = False
            super().data_received(data)
            self._unfinished = 0 if self._got_on else self._unfinished + len(data)
            if self._unfinished > MAX_HEAD_BYTES:
                self._refuse()
            if self.cycle is None or self.cycle.response_complete:
                self._start()

        def on_message_begin(self) -> None:
            self._got_on = True
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._got_on = True
            self._stop()
            size = len(self.url) + sum(
                len(name) + len(value) + _SEPARATORS for name, value in self.headers
            )
            if size > MAX_HEAD_BYTES:
                self._head_too_large = True
                raise _HeadTooLargeError
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._got_on = True
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._got_on = True
            super().on_message_complete()

        def send_400_response(self, msg: str) -> None:
            # uvicorn's way out of all that stops its parser.
            if self._head_too_large:
                self._refuse()
            else:
                super().send_400_response(msg)

        def _refuse(self) -> None:
            if self.transport.is_closing():
                return
            if self.cycle is None or self.cycle.response_complete:
                # Else it would be taken for the answer to the request before.
                self.transport.write(_TOO_LARGE)
            self.transport.close()

        def _start(self) -> None:
            if self._header_timer is None and not self.transport.is_closing():
                self._header_timer = self.loop.call_later(
                    header_timeout_s, self.transport.close
                )

        def _stop(self) -> None:
            if self._header_timer is not None:
                self._header_timer.cancel()
                self._header_timer = None

    return BoundedProtocol
