"""Small HTTP servers that speak the providers' protocols to the real drivers: every way they answer, and count.

Run one by itself (``python -m ops.simulators.gemini --port 9001``) and point the driver's base URL at it; change its
mode while it runs (``curl -d '{"mode": "http_503"}' localhost:9001/_/mode``) and read what it counted
(``curl localhost:9001/_/calls``). Tests run them in their own process with ``serving``.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import functools
import io
import json
import random
import socket
import sys
import threading
import zlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any, ClassVar
from urllib.parse import parse_qsl

import uvicorn
from PIL import Image, ImageOps

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

KEY = "simulator-key"
HUGE_BYTES = 1024**3
#: What a simulator keeps of the calls it has seen.
REMEMBERED = 200


@dataclass
class Part:
    """One part of a form: its MIME type, file name and bytes."""

    mime: str
    name: str | None
    data: bytes


@dataclass
class Call:
    """One request as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))

    def multipart(self) -> list[tuple[str, Part]]:
        head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
        message = BytesParser(policy=HTTP).parsebytes(head + self.body)
        found = []
        for part in message.iter_parts():
            name = part.get_param("name", header="content-disposition")
            data = part.get_payload(decode=True)
            assert isinstance(data, bytes)
            found.append((str(name), Part(part.get_content_type(), part.get_filename(), data)))
        return found


@dataclass
class Reply:
    """An answer: JSON where ``body`` is not bytes."""

    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class Simulator:
    """One provider's protocol. ``mode`` holds for every paid call; ``script`` goes before it, a mode a call.

    ``calls`` counts by verb, ``seen`` keeps the requests, ``keys`` are the ones accepted.
    """

    #: Modes every simulator has, and what they do.
    MODES: ClassVar[dict[str, str]] = {
        "success": "the photo, changed",
        "hang": "no answer until the client gives up",
        "hang_after_headers": "the answer's head, then nothing",
        "trickle": "a byte every 100 ms",
        "http_500": "an internal error",
        "http_503": "overloaded",
        "http_429": "too many calls, without a hint",
        "http_429_hint": "too many calls, with a hint of one second",
        "html": "200 with an HTML page",
        "redirect": "a redirect to elsewhere on this server",
        "huge": "a body of 1 GiB",
        "gzip_bomb": "1 GiB of zeros, packed",
        "truncated": "a picture cut in half",
        "corrupt": "a picture with garbage in its middle",
        "wrong_mime": "a GIF, called a JPEG",
        "text_as_picture": "a text, called a picture",
        "auth": "the key is not accepted",
        "quota": "the day's quota is used up",
        "bad_request": "a setting is not accepted",
    }
    name: ClassVar[str]
    #: This provider's own modes.
    OWN: ClassVar[dict[str, str]] = {}

    def __init__(self, *, mode: str = "success", latency_s: float = 0.0, jitter_s: float = 0.0) -> None:
        self.mode = mode
        self.latency_s = latency_s
        self.jitter_s = jitter_s
        self.script: deque[str] = deque()
        self.calls: Counter[str] = Counter()
        self.keys = {KEY}
        self.seen: deque[tuple[str, Call]] = deque(maxlen=REMEMBERED)
        self.url = ""

    @classmethod
    def modes(cls) -> dict[str, str]:
        return {**cls.MODES, **cls.OWN}

    # -- what a simulator of its own says ----------------------------------------------------------------------------

    async def answer(self, call: Call) -> Reply | str:
        """The reply, or the name of a transport mode to answer with."""
        raise NotImplementedError

    def paid(self, verb: str, call: Call) -> str:
        """Counts a call that costs money and says how it goes."""
        self.note(verb, call)
        return self.script.popleft() if self.script else self.mode

    def note(self, verb: str, call: Call) -> None:
        self.calls[verb] += 1
        self.seen.append((verb, call))

    async def pause(self) -> None:
        await asyncio.sleep(self.latency_s + random.random() * self.jitter_s)

    # -- ASGI --------------------------------------------------------------------------------------------------------

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        call = await _read(scope, receive)
        reply = self._control(call) if call.path.startswith("/_/") else await self.answer(call)
        if isinstance(reply, str):
            await _transport(reply, self.url, receive, send)
        else:
            await _send(reply, send)

    def _control(self, call: Call) -> Reply:
        verb = call.path.removeprefix("/_/")
        if call.method == "GET" and verb == "calls":
            return Reply({"mode": self.mode, "calls": dict(self.calls)})
        if call.method == "POST" and verb == "mode":
            return self._switch(call.json())
        return Reply({"error": "GET /_/calls or POST /_/mode"}, 404)

    def _switch(self, wish: Mapping[str, Any]) -> Reply:
        unknown = {wish.get("mode", self.mode), *wish.get("script", ())} - set(self.modes())
        if unknown:
            return Reply({"error": f"no such mode: {', '.join(unknown)}", "modes": self.modes()}, 422)
        self.mode = wish.get("mode", self.mode)
        self.script = deque(wish.get("script", self.script))
        self.latency_s = float(wish.get("latency_s", self.latency_s))
        self.jitter_s = float(wish.get("jitter_s", self.jitter_s))
        return Reply({"mode": self.mode, "script": list(self.script)})


async def _read(scope: Mapping[str, Any], receive: Receive) -> Call:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    return Call(
        scope["method"],
        scope["path"],
        dict(parse_qsl(scope["query_string"].decode())),
        {name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]},
        bytes(body),
    )


async def _send(reply: Reply, send: Send) -> None:
    body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
    kind = {} if isinstance(reply.body, bytes) else {"content-type": "application/json"}
    headers = {**kind, "content-length": str(len(body)), **reply.headers}
    await _start(send, reply.status, headers)
    await send({"type": "http.response.body", "body": body})


async def _start(send: Send, status: int, headers: Mapping[str, str]) -> None:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})


async def _transport(mode: str, url: str, receive: Receive, send: Send) -> None:
    """The modes that are about HTTP, not about a provider."""
    gone = asyncio.ensure_future(_gone(receive))
    try:
        if mode == "hang":
            await gone
        elif mode == "html":
            await _send(Reply(b"<html><body>Sorry</body></html>", headers={"content-type": "text/html"}), send)
        elif mode == "redirect":
            await _send(Reply(status=302, headers={"location": f"{url}/elsewhere"}), send)
        elif mode == "hang_after_headers":
            await _start(send, 200, {"content-type": "application/json"})
            await send({"type": "http.response.body", "body": b"{", "more_body": True})
            await gone
        else:
            packed = {"content-encoding": "gzip"} if mode == "gzip_bomb" else {}
            await _start(send, 200, {"content-type": "application/json", **packed})
            chunks = {"trickle": _trickle, "huge": _huge, "gzip_bomb": _bomb}[mode]()
            async for chunk in chunks:
                if gone.done():
                    return
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
    finally:
        gone.cancel()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _trickle() -> AsyncIterator[bytes]:
    while True:
        yield b" "
        await asyncio.sleep(0.1)


async def _huge() -> AsyncIterator[bytes]:
    for _ in range(HUGE_BYTES // 1024**2):
        yield b"x" * 1024**2
        await asyncio.sleep(0)


async def _bomb() -> AsyncIterator[bytes]:
    yield bomb()


@functools.cache
def bomb() -> bytes:
    """1 GiB of zeros as gzip: one megabyte."""
    pack = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([*(pack.compress(bytes(1024**2)) for _ in range(HUGE_BYTES // 1024**2)), pack.flush()])


# -- pictures --------------------------------------------------------------------------------------------------------


def changed(photo: bytes, form: str = "JPEG") -> bytes:
    """The photo with its colours inverted: what a provider makes of it here."""
    with Image.open(io.BytesIO(photo)) as image:
        image.draft("RGB", (512, 512))
        picture = ImageOps.invert(image.convert("RGB"))
    out = io.BytesIO()
    picture.save(out, form)
    return out.getvalue()


def picture(mode: str, photo: bytes, form: str = "JPEG") -> bytes:
    """The bytes a provider calls a picture in ``mode``."""
    whole = changed(photo, form)
    if mode == "truncated":
        return whole[: len(whole) // 2]
    if mode == "corrupt":
        middle = len(whole) // 2
        return whole[:middle] + bytes(len(whole) - middle)
    if mode == "wrong_mime":
        return changed(photo, "GIF")
    if mode == "text_as_picture":
        return b"I am a picture, believe me. " * 20
    return whole


def kind_of(data: bytes) -> str | None:
    """The MIME type of a picture's content, as a provider would look at it."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return Image.MIME.get(str(image.format))
    except OSError:
        return None


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


# -- running them ----------------------------------------------------------------------------------------------------


class Quiet(uvicorn.Server):
    """A server that lives in a thread of somebody else's process, and leaves that process's signals alone."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextmanager
def serving(simulator: Simulator) -> Iterator[str]:
    """Runs ``simulator`` in a thread on a free port of this machine; its URL."""
    listening = socket.create_server(("127.0.0.1", 0))
    simulator.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    config = uvicorn.Config(
        simulator,
        lifespan="off",
        log_config=None,
        log_level="error",
        timeout_graceful_shutdown=1,
    )
    server = Quiet(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), daemon=True)
    thread.start()
    try:
        yield simulator.url
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)
        listening.close()


def main(make: type[Simulator]) -> None:
    """``python -m ops.simulators.<name>``."""
    parser = argparse.ArgumentParser(description=make.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.epilog = "modes:\n" + "\n".join(f"  {mode:<20} {words}" for mode, words in make.modes().items())
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--mode", choices=list(make.modes()), default="success", metavar="MODE")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before every answer")
    parser.add_argument("--jitter", type=float, default=0.0, help="up to as many seconds more, at random")
    options = parser.parse_args()
    simulator = make(mode=options.mode, latency_s=options.latency, jitter_s=options.jitter)
    simulator.url = f"http://127.0.0.1:{options.port}"
    print(f"{make.name} simulator at {simulator.url}; key: {KEY}", file=sys.stderr)
    uvicorn.run(simulator, host="127.0.0.1", port=options.port, log_level="warning", lifespan="off")
