"""Guarded image processes: what breaks takes down its own work only."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from photochanger.failures import InvalidImage, StorageFull
from photochanger.image_pool import ImagePool
from tests.photos import photo

pytestmark = pytest.mark.anyio


@pytest.fixture
async def pool(anyio_backend: str) -> AsyncIterator[ImagePool]:
    made = ImagePool(2)
    yield made
    made.close()


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def swell() -> int:
    return len(bytearray(3 * 1024**3))


def hang() -> None:
    time.sleep(60)


def double(number: int) -> int:
    return number * 2


def pid() -> int:
    return os.getpid()


async def test_work_is_done_in_another_process(pool: ImagePool) -> None:
    assert await pool.run(double, 21, timeout_s=20) == 42
    assert await pool.run(pid, timeout_s=20) != os.getpid()


async def test_a_crash_fails_its_own_work_and_no_neighbour(pool: ImagePool) -> None:
    async def crashing() -> None:
        with pytest.raises(InvalidImage):
            await pool.run(crash, timeout_s=20)

    good = [pool.run(double, number, timeout_s=30) for number in range(50)]
    results = await asyncio.gather(*good[:25], crashing(), *good[25:])
    assert [result for result in results if result is not None] == [number * 2 for number in range(50)]


async def test_a_picture_that_swells_over_the_limit_is_refused(pool: ImagePool) -> None:
    with pytest.raises(InvalidImage, match="memory"):
        await pool.run(swell, timeout_s=20)
    assert await pool.run(double, 1, timeout_s=20) == 2


async def test_work_that_hangs_is_killed_at_its_time_limit(pool: ImagePool) -> None:
    victim = await pool.run(pid, timeout_s=20)
    other = await pool.run(pid, timeout_s=20)
    with pytest.raises(TimeoutError):
        await asyncio.gather(pool.run(hang, timeout_s=0.5), pool.run(hang, timeout_s=0.5))
    for process in {victim, other}:
        await asyncio.to_thread(psutil.wait_procs, [psutil.Process(process)] if psutil.pid_exists(process) else [], 5)
        assert not psutil.pid_exists(process) or psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    assert await pool.run(double, 4, timeout_s=20) == 8


async def test_what_cannot_be_written_anew_in_time_or_for_want_of_room_is_said(tmp_path: Path) -> None:
    picture = tmp_path / "picture"
    picture.write_bytes(photo(64, 48))
    made = ImagePool(1)
    try:
        with pytest.raises(StorageFull):
            await made.rewrite(picture, Path("/dev/full"), "image/png", max_pixels=10**6)
        os.kill(await made.run(pid, timeout_s=20), signal.SIGSTOP)
        with pytest.raises(InvalidImage, match=r"within 0\.2 s"):
            await made.rewrite(picture, picture, "image/png", max_pixels=10**6, timeout_s=0.2)
        assert (await made.rewrite(picture, picture, "image/png", max_pixels=10**6))[:2] == (64, 48)
    finally:
        made.close()
