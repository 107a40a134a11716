"""Cameras: keep-alive clients on bare sockets, each sending photos that nobody has sent before.

Prints one JSON object. With ``--floor`` a bare trip through PostgreSQL follows every photo, and with several ports
the photos go to them in turn, so that what is compared is measured in the same moments.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import time
from pathlib import Path
from typing import NamedTuple

from ops.bench.workers.floor import Trip

_BOUNDARY = "bench-3f1c9a"
_number = itertools.count()


class Answer(NamedTuple):
    """What came back to one photo, and after how many seconds."""

    port: int
    status: int
    job_id: str
    seconds: float


class Camera:
    """One keep-alive connection to the server on ``port``."""

    def __init__(self, port: int, password: str, photos: list[bytes]) -> None:
        self.port = port
        self._password = password
        self._photos = photos
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)

    async def send(self) -> Answer:
        """One photo; the seconds end with the answer's last byte."""
        request = self._request()
        began = time.monotonic()
        self._writer.write(request)
        status, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        await self._reader.readexactly(int(headers["content-length"]))
        return Answer(self.port, int(status.split()[1]), headers.get("x-job-id", ""), time.monotonic() - began)

    def _request(self) -> bytes:
        number = next(_number)
        photo = self._photos[number % len(self._photos)]
        comment = f"{os.getpid()} {time.time_ns()} {number}".encode()
        # A comment segment behind JPEG's first two bytes makes it a photo that was never seen.
        photo = photo[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + photo[2:]
        body = b"".join(
            [
                f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="password"\r\n\r\n{self._password}\r\n'
                f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="fileToUpload"; filename="IMG_{number}.JPG"\r\n'
                "Content-Type: image/jpeg\r\n\r\n".encode(),
                photo,
                f"\r\n--{_BOUNDARY}--\r\n".encode(),
            ]
        )
        head = (
            "POST /ingest/slot-001 HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Content-Type: multipart/form-data; boundary={_BOUNDARY}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


async def _in_turn(cameras: list[Camera], end: float, floor_url: str | None) -> tuple[list[Answer], list[float]]:
    trip = Trip(floor_url) if floor_url else None
    answers, trips = [], []
    while time.monotonic() < end:
        for camera in cameras:
            answers.append(await camera.send())
        if trip:
            trips.append(trip.take()[1])
    if trip:
        trip.close()
    return answers, trips


async def _together(cameras: list[Camera], end: float) -> list[Answer]:
    async def one(camera: Camera) -> list[Answer]:
        return (await _in_turn([camera], end, None))[0]

    return [answer for answers in await asyncio.gather(*map(one, cameras)) for answer in answers]


async def run(options: argparse.Namespace) -> dict[str, object]:
    photos = [path.read_bytes() for path in sorted(options.photos.glob("*.jpg"))]
    password = os.environ["BENCH_PASSWORD"]
    cameras = [Camera(port, password, photos) for port in options.port for _ in range(options.clients)]
    for camera in cameras:
        await camera.open()
    began = time.monotonic()
    if options.clients == 1:
        answers, trips = await _in_turn(cameras, began + options.seconds, options.floor)
    else:
        answers, trips = await _together(cameras, began + options.seconds), []
    return {"answers": answers, "trips": trips, "seconds": time.monotonic() - began}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, action="append", required=True)
    parser.add_argument("--clients", type=int, default=1, help="for each port")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--floor", help="a database URL")
    print(json.dumps(asyncio.run(run(parser.parse_args()))))


if __name__ == "__main__":
    main()
