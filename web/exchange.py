"""One request and its answer at the ASGI level: what Falcon leaves to the server, and the server to us.

- Falcon awaits the first body event before routing, and the server then sends ``100 Continue``. It is given an empty
  one, so that a refusal can precede the body.
- The body is bounded in bytes, in seconds without progress, and in seconds altogether.
- An answer given while the client still sends goes out whole, with ``Connection: close``; then what still comes is
  read and thrown away, within bounds, so that the client reads the answer instead of a reset.
- Once the body has ended, somebody keeps listening, so that a client that hangs up is noticed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from photochanger.failures import Failure, InvalidRequest, PayloadTooLarge

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

SCOPE_KEY = "photochanger.exchange"
#: Bytes of a body that no resource has raised the limit for.
DEFAULT_BODY_BYTES = 1024 * 1024
#: A body that makes no progress for this long is cut.
PROGRESS_S = 30.0
#: Seconds from a request to its body's end, where no resource has given it others: 1 MiB at 140 kbit/s.
BODY_S = 60.0
DRAIN_S = 5.0
DRAIN_BYTES = 64 * 1024 * 1024


class SlowBody(Failure):
    """The body came too slowly"""

    code = InvalidRequest.code


class Exchange:
    """What a responder may know and set: ``gone`` is set when the client has hung up; ``limit`` is the body's bound
    in bytes and ``over`` makes what is raised past it; ``within_s`` is its bound in seconds from the request on."""

    def __init__(self, receive: Receive, send: Send, *, has_body: bool) -> None:
        self.gone = asyncio.Event()
        self.limit = DEFAULT_BODY_BYTES
        self.over: Callable[[], Failure] = PayloadTooLarge
        self.within_s = BODY_S
        self._began = time.monotonic()
        self._receive = receive
        self._send = send
        self._primed = False
        self._ended = not has_body
        self._seen = 0
        self._watch: asyncio.Task[None] | None = None
        if self._ended:
            self._listen()

    async def receive(self) -> Message:
        if not self._primed:
            self._primed = True
            return {"type": "http.request", "body": b"", "more_body": not self._ended}
        if self._ended:
            await self.gone.wait()
            return {"type": "http.disconnect"}
        left_s = self._began + self.within_s - time.monotonic()
        try:
            async with asyncio.timeout(min(PROGRESS_S, left_s)):
                message = await self._receive()
        except TimeoutError:
            if left_s > PROGRESS_S:
                raise SlowBody(f"Nothing came for {PROGRESS_S:.0f} seconds") from None
            raise SlowBody(f"It did not come whole within {self.within_s:g} seconds") from None
        self._note(message)
        if self._seen > self.limit:
            raise self.over()
        return message

    def _note(self, message: Message) -> None:
        if message["type"] == "http.disconnect":
            self._ended = True
            self.gone.set()
            return
        self._seen += len(message.get("body", b""))
        if not message.get("more_body", False):
            self._ended = True
            self._listen()

    def _listen(self) -> None:
        self._watch = asyncio.get_running_loop().create_task(self._until_gone())

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone.set()

    async def wait(self, awaited: asyncio.Future[Any], *, timeout_s: float) -> None:
        """Returns when ``awaited`` is done or the client has hung up, after ``timeout_s`` at the latest."""
        gone = asyncio.ensure_future(self.gone.wait())
        either: set[asyncio.Future[Any]] = {awaited, gone}
        try:
            await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()

    async def send(self, message: Message) -> None:
        if self._ended:
            await self._send(message)
        elif message["type"] == "http.response.start":
            headers = [pair for pair in message["headers"] if pair[0].lower() != b"connection"]
            await self._send({**message, "headers": [*headers, (b"connection", b"close")]})
        elif message.get("more_body", False):
            await self._send(message)
        else:
            await self._send({**message, "more_body": True})
            await self._drain()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _drain(self) -> None:
        until = self._seen + DRAIN_BYTES
        try:
            async with asyncio.timeout(DRAIN_S):
                while not self._ended and self._seen < until:
                    self._note(await self._receive())
        except TimeoutError:
            return

    async def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()


def exchanges(app: App) -> App:
    """Wraps an ASGI app: every HTTP request gets its ``Exchange`` in the scope."""

    async def wrapped(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        names = {name for name, value in scope["headers"] if value != b"0"}
        exchange = Exchange(receive, send, has_body=bool(names & {b"content-length", b"transfer-encoding"}))
        scope[SCOPE_KEY] = exchange
        try:
            await app(scope, exchange.receive, exchange.send)
        finally:
            await exchange.close()

    return wrapped
