"""What the bench's messages do: the same functions for every contender."""

from __future__ import annotations

import asyncio
import functools
import os
import time

from ops.bench import stamps


@functools.cache
def _file(pid: int) -> int:
    """The stamps file, opened once by each process."""
    return os.open(os.environ["BENCH_STAMPS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def noop(key: float) -> None:
    """Nothing but a record."""
    now = time.monotonic()
    stamps.append(_file(os.getpid()), key, now, now)


def nap(key: float, seconds: float) -> None:
    """Holds its thread for ``seconds``."""
    start = time.monotonic()
    time.sleep(seconds)
    stamps.append(_file(os.getpid()), key, start, time.monotonic())


async def async_nap(key: float, seconds: float) -> None:
    """``nap`` as the project's own actors are written: a coroutine, while its thread waits."""
    start = time.monotonic()
    await asyncio.sleep(seconds)
    stamps.append(_file(os.getpid()), key, start, time.monotonic())


def hold(key: float, seconds: float) -> None:
    """Says at once that it has started; ends after ``seconds``, or as soon as the file ``BENCH_RELEASE`` is there."""
    start = time.monotonic()
    stamps.append(_file(os.getpid()), key, start, 0.0)
    while time.monotonic() < start + seconds and not os.path.exists(os.environ["BENCH_RELEASE"]):
        time.sleep(0.02)
    stamps.append(_file(os.getpid()), key, start, time.monotonic())
