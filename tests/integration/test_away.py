"""A process that starts while the database is away."""

from __future__ import annotations

import asyncio
import time

import pytest

from photochanger import settings
from photochanger.db import Database
from photochanger.failures import Unavailable
from photochanger.settings import Fresh, Settings
from tests.installation import free_port

pytestmark = pytest.mark.anyio


async def test_everybody_is_told_at_once_though_nothing_was_ever_read() -> None:
    db = Database(f"postgresql://127.0.0.1:{free_port()}/none", connections=4, application_name="test")
    current = Fresh(lambda: settings.load(db))
    began = time.monotonic()
    answers = await asyncio.gather(*(current.get() for _ in range(8)), return_exceptions=True)
    assert time.monotonic() - began <= 2.5
    assert [type(answer) for answer in answers] == [Unavailable] * 8
    await db.close()


async def test_who_hangs_up_takes_the_value_from_nobody(db: Database) -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def read() -> Settings:
        begun.set()
        await may_end.wait()
        return await settings.load(db)

    current = Fresh(read)
    first, second = asyncio.create_task(current.get()), asyncio.create_task(current.get())
    await begun.wait()
    first.cancel()
    may_end.set()
    assert await second == await settings.load(db)
