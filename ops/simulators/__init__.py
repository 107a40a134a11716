"""Small HTTP servers that speak the providers' protocols to the real drivers: every way they answer, and count.

Run one by itself (``python -m ops.simulators.gemini --port 9001``) and point the driver's base URL at it; change how
it answers while it runs (``curl -d '{"mode": "http_503"}' localhost:9001/_/mode``: any of ``Simulator.settings``) and
read what it counted (``curl localhost:9001/_/calls``). Tests run them in their own process with ``serving``.
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
import time
import zlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any, ClassVar, TypeVar
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
_NUMBERS = ("latency_s", "jitter_s", "tail_share", "tail_factor")


@dataclass
class Part:
    """One part of a form: its MIME type, file name and bytes."""

    mime: str
    name: str | None
    data: bytes


@dataclass
class Call:
    """One request as it came. ``paid``: it turned out to be one that costs money."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    paid: bool = False

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
    """One provider's protocol, and how its paid calls go.

    The mode of a paid call is the next one of ``script``; else drawn from ``mix``, weights by mode; else ``mode``.
    Its latency is ``latency_s`` and up to ``jitter_s`` more, times ``tail_factor`` with the chance ``tail_share``.
    The same ``seed`` draws the same modes and latencies again, in the order of the calls.

    ``calls`` counts by verb, ``seen`` keeps the requests, ``keys`` are the ones accepted. ``flying`` paid calls are
    being answered now, ``most_flying`` were at once. ``hang_ups``: monotonic instants at which a client hung up before
    its answer was complete; the answer is given up then.
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

    def __init__(
        self,
        *,
        mode: str = "success",
        latency_s: float = 0.0,
        jitter_s: float = 0.0,
        tail_share: float = 0.0,
        tail_factor: float = 5.0,
        mix: Mapping[str, float] | None = None,
        seed: int | None = None,
    ) -> None:
        self.mode = mode
        self.latency_s = latency_s
        self.jitter_s = jitter_s
        self.tail_share = tail_share
        self.tail_factor = tail_factor
        self.mix = weights(mix or {})
        self.script: deque[str] = deque()
        self.calls: Counter[str] = Counter()
        self.keys = {KEY}
        self.seen: deque[tuple[str, Call]] = deque(maxlen=REMEMBERED)
        self.flying = self.most_flying = 0
        self.hang_ups: list[float] = []
        self.url = ""
        self.replay(seed)

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
        call.paid = True
        self.flying += 1
        self.most_flying = max(self.most_flying, self.flying)
        if self.script:
            return self.script.popleft()
        return self._chance.choices([*self.mix], [*self.mix.values()])[0] if self.mix else self.mode

    def note(self, verb: str, call: Call) -> None:
        self.calls[verb] += 1
        self.seen.append((verb, call))

    async def pause(self) -> None:
        await asyncio.sleep(self.drawn_s())

    def drawn_s(self) -> float:
        """The next call's latency; two draws whatever the settings, so that they do not shift what follows."""
        jitter, tail = self._chance.random(), self._chance.random()
        latency_s = self.latency_s + jitter * self.jitter_s
        return latency_s * self.tail_factor if tail < self.tail_share else latency_s

    def replay(self, seed: int | None) -> None:
        """Begins a sequence of draws: that of ``seed``, or one that nobody has seen."""
        self.seed = seed
        self._chance = random.Random(seed)

    # -- ASGI --------------------------------------------------------------------------------------------------------

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        call = await _read(scope, receive)
        if call is None:
            self.hang_ups.append(time.monotonic())
            return
        answering = asyncio.ensure_future(self._answer(call, send))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                answering.result()
            else:
                self.hang_ups.append(time.monotonic())
        finally:
            self.flying -= call.paid
            answering.cancel()
            gone.cancel()
            await asyncio.gather(answering, gone, return_exceptions=True)

    async def _answer(self, call: Call, send: Send) -> None:
        reply = self._control(call) if call.path.startswith("/_/") else await self.answer(call)
        if isinstance(reply, str):
            await _transport(reply, self.url, send)
        else:
            await _send(reply, send)

    # -- looked at and changed while it runs -------------------------------------------------------------------------

    def settings(self) -> dict[str, Any]:
        """How paid calls go, by the names that ``POST /_/mode`` takes."""
        drawn = {"mode": self.mode, "script": list(self.script), "mix": self.mix, "seed": self.seed}
        return {**drawn, **{name: getattr(self, name) for name in _NUMBERS}}

    def counted(self) -> dict[str, Any]:
        numbers = {"flying": self.flying, "most_flying": self.most_flying, "hang_ups": len(self.hang_ups)}
        return {"calls": dict(self.calls), **numbers}

    def _control(self, call: Call) -> Reply:
        verb = call.path.removeprefix("/_/")
        if call.method == "GET" and verb == "calls":
            return Reply({**self.settings(), **self.counted()})
        if call.method == "POST" and verb == "mode":
            return self._switch(call.json())
        return Reply({"error": "GET /_/calls or POST /_/mode"}, 404)

    def _switch(self, wish: Mapping[str, Any]) -> Reply:
        try:
            changes = self._understood(wish)
        except (AttributeError, TypeError, ValueError) as error:
            return Reply({"error": str(error), "modes": self.modes()}, 422)
        for name, value in changes.items():
            setattr(self, name, value)
        if "seed" in wish:
            self.replay(wish["seed"])
        return Reply(self.settings())

    def _understood(self, wish: Mapping[str, Any]) -> dict[str, Any]:
        """The settings to change, all of them checked before the first is.

        Raises:
            ValueError: in words for whoever asked; AttributeError, TypeError: they are of another shape.
        """
        if unknown := wish.keys() - self.settings().keys():
            raise ValueError(f"no such setting: {', '.join(sorted(unknown))}")
        mix = weights(wish.get("mix", self.mix))
        script = deque(wish.get("script", self.script))
        mode = wish.get("mode", self.mode)
        if unknown := {mode, *script, *mix} - self.modes().keys():
            raise ValueError(f"no such mode: {', '.join(sorted(unknown))}")
        if not isinstance(wish.get("seed"), int | None):
            raise TypeError("seed: a whole number, or null")
        numbers = {name: float(wish[name]) for name in _NUMBERS if name in wish}
        return {"mode": mode, "script": script, "mix": mix, **numbers}


def weights(given: Mapping[str, Any]) -> dict[str, float]:
    """A mix of modes, checked; empty: no mix.

    Raises:
        ValueError: a weight is negative, or all are nothing.

    >>> weights({"success": 9, "hang": 1})
    {'success': 9.0, 'hang': 1.0}
    """
    mix = {mode: float(weight) for mode, weight in given.items()}
    if mix and (min(mix.values()) < 0 or not sum(mix.values())):
        raise ValueError("a mix gives weights by mode, none below 0 and one at least above")
    return mix


async def _read(scope: Mapping[str, Any], receive: Receive) -> Call | None:
    """The whole request; ``None`` when the client hung up before its end."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
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


async def _transport(mode: str, url: str, send: Send) -> None:
    """The modes that are about HTTP, not about a provider. Some end only when the client hangs up."""
    if mode == "hang":
        await asyncio.Event().wait()
    elif mode == "html":
        await _send(Reply(b"<html><body>Sorry</body></html>", headers={"content-type": "text/html"}), send)
    elif mode == "redirect":
        await _send(Reply(status=302, headers={"location": f"{url}/elsewhere"}), send)
    else:
        packed = {"content-encoding": "gzip"} if mode == "gzip_bomb" else {}
        await _start(send, 200, {"content-type": "application/json", **packed})
        chunks = {"hang_after_headers": _stall, "trickle": _trickle, "huge": _huge, "gzip_bomb": _bomb}[mode]()
        async for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _stall() -> AsyncIterator[bytes]:
    yield b"{"
    await asyncio.Event().wait()


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


@functools.lru_cache(maxsize=8)
def changed(photo: bytes, form: str = "JPEG") -> bytes:
    """The photo with its colours inverted: what a provider makes of it here. Kept for the next call with the same
    photo: under load the processor is for the server that is measured."""
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


S = TypeVar("S", bound="Simulator")


@contextmanager
def serving(simulator: S) -> Iterator[S]:
    """Runs ``simulator`` in a thread on a free port of this machine, which its ``url`` names."""
    listening = socket.create_server(("127.0.0.1", 0))
    # asyncio does not do it for a socket of ours; without it an answer's body waits 40 ms for its head to be received.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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
        yield simulator
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)
        listening.close()


def main(make: type[Simulator]) -> None:
    """``python -m ops.simulators.<name>``."""
    simulator, port = commanded(make, sys.argv[1:])
    print(f"{make.name} simulator at {simulator.url}; key: {KEY}", file=sys.stderr)
    uvicorn.run(simulator, host="127.0.0.1", port=port, log_level="warning", lifespan="off")


def commanded(make: type[Simulator], argv: Sequence[str]) -> tuple[Simulator, int]:
    """The simulator that a command line asks for, and its port."""
    parser = argparse.ArgumentParser(description=make.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.epilog = "modes:\n" + "\n".join(f"  {mode:<20} {words}" for mode, words in make.modes().items())
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--mode", choices=list(make.modes()), default="success", metavar="MODE")
    add_chances(parser, make)
    options = vars(parser.parse_args(argv))
    port = options.pop("port")
    simulator = make(**options)
    simulator.url = f"http://127.0.0.1:{port}"
    return simulator, port


def add_chances(parser: argparse.ArgumentParser, make: type[Simulator]) -> None:
    """The options that say how long calls take and what becomes of them; their names are ``make``'s parameters."""

    def mix(text: str) -> dict[str, float]:
        try:
            given = weights(json.loads(text))
        except (AttributeError, TypeError, ValueError) as error:
            raise argparse.ArgumentTypeError(f"not a mix in JSON: {error}") from None
        if unknown := given.keys() - make.modes().keys():
            raise argparse.ArgumentTypeError(f"no such mode: {', '.join(sorted(unknown))}")
        return given

    paid = parser.add_argument_group("paid calls of the provider")

    def number(name: str, dest: str, default: float, words: str) -> None:
        paid.add_argument(name, dest=dest, type=float, default=default, metavar="N", help=f"{words} (%(default)g)")

    number("--latency", "latency_s", 0.0, "seconds before every answer")
    number("--jitter", "jitter_s", 0.0, "up to as many seconds more, at random")
    number("--tail-share", "tail_share", 0.0, "the share of calls that take much longer, 0 to 1")
    number("--tail-factor", "tail_factor", 5.0, "times as long as drawn")
    example = '{"success": 9, "hang": 1}'
    paid.add_argument("--mix", type=mix, default={}, metavar="JSON", help=f"weights by mode, like {example}")
    paid.add_argument("--seed", type=int, help="draws the same modes and latencies again")
