"""Many cameras in one process, on bare sockets: each photo is one that nobody has sent before, and what came of it.

Prints one JSON list, an ``Answer`` a photo. Either some clients send one photo after another (``--clients``,
``--seconds``), or photos come at their own times whatever became of those before (``--photos``, ``--over``).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import resource
import time
from pathlib import Path
from typing import NamedTuple

_BOUNDARY = "load-8d20f4"
_number = itertools.count()


class Answer(NamedTuple):
    """What became of one photo.

    ``at_s``: when it was sent, from the run's begin, ``late_s`` after its time. ``seconds`` end with the answer's last
    byte. ``status`` 0: no answer, ``code`` says why; otherwise ``code`` is the failure's, ``served_by`` the picture's.
    """

    at_s: float
    late_s: float
    seconds: float
    status: int
    code: str = ""
    served_by: str = ""
    retry_after_s: float | None = None


class Target(NamedTuple):
    """Where the photos go. ``within_s``: an answer that takes longer is none."""

    port: int
    slot: str
    password: str
    photo: bytes
    within_s: float


class Camera:
    """One connection to the server, opened when it is needed and kept while the server keeps it."""

    def __init__(self, target: Target, began: float) -> None:
        self._target = target
        self._began = began
        self._stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, planned: float | None = None) -> Answer:
        """One photo, ``planned`` for that monotonic instant."""
        request = _request(self._target)
        sent = time.monotonic()
        try:
            async with asyncio.timeout(self._target.within_s):
                status, headers, body = await self._exchange(request)
        except (OSError, asyncio.IncompleteReadError) as error:
            self.close()
            status, headers, body = 0, {}, b""
            code = type(error).__name__
        else:
            code = "" if status == 200 else _code(body)
        hint = headers.get("retry-after")
        return Answer(
            at_s=sent - self._began,
            late_s=sent - (planned or sent),
            seconds=time.monotonic() - sent,
            status=status,
            code=code,
            served_by=headers.get("photochanger-served-by", ""),
            retry_after_s=float(hint) if hint else None,
        )

    def close(self) -> None:
        if self._stream is not None:
            self._stream[1].close()
            self._stream = None

    async def _exchange(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        if self._stream is None or self._stream[0].at_eof():
            self.close()
            self._stream = await asyncio.open_connection("127.0.0.1", self._target.port)
        reader, writer = self._stream
        writer.write(request)
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if headers.get("connection", "").lower() == "close":
            self.close()
        return int(status.split()[1]), headers, body


def _code(body: bytes) -> str:
    try:
        return str(json.loads(body)["code"])
    except (ValueError, KeyError, TypeError):
        return "not a failure of ours"


def _request(target: Target) -> bytes:
    body = b"".join(
        [
            f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="password"\r\n\r\n{target.password}\r\n'
            f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="fileToUpload"; filename="IMG_0003.JPG"\r\n'
            "Content-Type: image/jpeg\r\n\r\n".encode(),
            distinct(target.photo, f"{os.getpid()} {time.time_ns()} {next(_number)}"),
            f"\r\n--{_BOUNDARY}--\r\n".encode(),
        ]
    )
    head = (
        f"POST /ingest/{target.slot} HTTP/1.1\r\nHost: 127.0.0.1:{target.port}\r\n"
        f"Content-Type: multipart/form-data; boundary={_BOUNDARY}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def distinct(photo: bytes, words: str) -> bytes:
    """The same JPEG with ``words`` in a comment segment behind its first two bytes.

    >>> distinct(b"\\xff\\xd8rest", "7")
    b'\\xff\\xd8\\xff\\xfe\\x00\\x037rest'
    """
    comment = words.encode()
    return photo[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + photo[2:]


async def closed(target: Target, clients: int, seconds: float, *, heed: bool) -> list[Answer]:
    """``clients`` cameras, each with one photo under way, for ``seconds``; ``heed``: a refused one waits as told."""
    began = time.monotonic()
    end = began + seconds

    async def one() -> list[Answer]:
        camera, answers = Camera(target, began), []
        while time.monotonic() < end:
            answers.append(await camera.send())
            if heed and (hint := answers[-1].retry_after_s):
                await asyncio.sleep(min(hint, max(0.0, end - time.monotonic())))
        camera.close()
        return answers

    return [answer for answers in await asyncio.gather(*(one() for _ in range(clients))) for answer in answers]


async def arriving(target: Target, photos: int, over_s: float) -> list[Answer]:
    """``photos`` cameras, evenly over ``over_s`` seconds, with one photo each."""
    began = time.monotonic()

    async def one(planned: float) -> Answer:
        await asyncio.sleep(planned - time.monotonic())
        camera = Camera(target, began)
        try:
            return await camera.send(planned)
        finally:
            camera.close()

    return await asyncio.gather(*(one(began + number * over_s / photos) for number in range(photos)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--slot", required=True)
    parser.add_argument("--photo", type=Path, required=True)
    parser.add_argument("--within", type=float, required=True)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--heed", action="store_true")
    parser.add_argument("--photos", type=int)
    parser.add_argument("--over", type=float, default=1.0)
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    photo = options.photo.read_bytes()
    target = Target(options.port, options.slot, os.environ["LOAD_PASSWORD"], photo, options.within)
    if options.photos:
        sending = arriving(target, options.photos, options.over)
    else:
        sending = closed(target, options.clients, options.seconds, heed=options.heed)
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(asyncio.run(sending)))


if __name__ == "__main__":
    main()
