"""uvicorn's HTTP, with a bound on the time that headers take."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["bounded_protocol"]


def bounded_protocol(header_timeout_s: float) -> type[HttpToolsProtocol]:
    """Make a protocol that closes connections which never finish their headers.

    uvicorn has a limit for connections that rest between two requests only: one that
    sends a byte now and then stays for ever, and so do thousands.

    Args:
        header_timeout_s: From the first byte of a request, or from the connection's
            beginning, to the end of the headers.
    """

    class BoundedProtocol(HttpToolsProtocol):
        _header_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._start()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is None or self.cycle.response_complete:
                self._start()

        def on_headers_complete(self) -> None:
            self._stop()
            super().on_headers_complete()

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
