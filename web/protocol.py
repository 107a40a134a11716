"""The HTTP protocol class of our web processes: uvicorn's, with limits of time and size on the request's head.

``uvicorn web.app:app --http web.protocol:Protocol``; without it, let the reverse proxy keep those limits.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Seconds from the connection, or from the last answer on it, to the end of the next request's head.
HEAD_S = 10.0
#: Bytes of a request's head; browsers and cameras send less than one.
HEAD_BYTES = 64 * 1024


class Protocol(HttpToolsProtocol):
    """Closes a connection that does not finish a request's head in ``HEAD_S`` and ``HEAD_BYTES``."""

    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def data_received(self, data: bytes) -> None:
        if self._head_timer is not None:  # a head is open
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES + len(data):  # what came before this piece, all of it head
                self.transport.close()
                return
        super().data_received(data)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_S, transport.close)

    def on_headers_complete(self) -> None:
        self._stop_timer()
        self._head_bytes = 0
        super().on_headers_complete()

    def on_message_begin(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_S, self.transport.close)
        super().on_message_begin()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
