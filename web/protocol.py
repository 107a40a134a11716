"""The HTTP protocol class of our web processes: uvicorn's, with limits of time and size on what is not a body.

``uvicorn web.app:app --http web.protocol:Protocol --no-proxy-headers``; without it, let the reverse proxy keep those
limits.
"""

from __future__ import annotations

import asyncio
from typing import Literal

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Seconds from the connection, or from the last answer on it, to the end of the next request's head; and from the size
#: of a chunk to its first byte, or behind the last one to the end of the trailers.
HEAD_S = 10.0
#: Bytes of a request's head, and of its trailers; browsers and cameras send less than one, and none.
HEAD_BYTES = 64 * 1024
#: Seconds in which a connection that has asked nothing yet may do so though the process is to end.
LEAVE_S = 1.0
#: How an IPv4 address is told on a socket of both (RFC 4291, 2.5.5.2).
_MAPPED = "::ffff:"


class Protocol(HttpToolsProtocol):
    """Closes a connection that does not finish a request's head, or its trailers, in ``HEAD_S`` and ``HEAD_BYTES``.

    Trailers (RFC 9112, 7.1.2) are dropped: uvicorn would add them to the headers of a request that already runs.
    """

    _part: Literal["head", "body", "trailers"] = "head"
    _bytes = 0
    _timer: asyncio.TimerHandle | None = None
    _leaving = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.client is not None and self.client[0].startswith(_MAPPED):
            self.client = self.client[0].removeprefix(_MAPPED), self.client[1]
        self._watch()

    def data_received(self, data: bytes) -> None:
        if self._part != "body":
            if self._bytes > HEAD_BYTES:  # what came before this piece, all of it head or trailers
                self.transport.close()
                return
            self._bytes += len(data)
        super().data_received(data)
        self._watch()

    def on_message_begin(self) -> None:
        self._enter("head")
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._part == "head":
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._enter("body")
        if self.parser.get_http_version() not in ("1.0", "1.1"):  # "0.9" is a line without any
            self.send_400_response("This is not HTTP/1.1")
            return
        super().on_headers_complete()
        if self._leaving and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_chunk_header(self) -> None:
        self._enter("trailers")  # unless it has bytes, which are then the next thing told

    def on_body(self, body: bytes) -> None:
        self._enter("body")
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._enter("body")
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete:  # nothing pipelined is under way
            self._enter("head")
            self._watch()

    def shutdown(self) -> None:
        """Uvicorn would cut off who has been accepted and not yet asked: they are given a moment to."""
        self._leaving = True
        if self.cycle is None:
            self.loop.call_later(LEAVE_S, self._leave)
        else:
            super().shutdown()

    def _leave(self) -> None:
        if self.cycle is None:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _enter(self, part: Literal["head", "body", "trailers"]) -> None:
        if part != self._part:
            self._part = part
            self._bytes = 0
            self._stop()

    def _watch(self) -> None:
        if self._timer is None and self._part != "body":
            self._timer = self.loop.call_later(HEAD_S, self._expire)

    def _expire(self) -> None:
        self._timer = None
        if self.flow.read_paused:  # it is us who do not read on
            self._watch()
        else:
            self.transport.close()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
