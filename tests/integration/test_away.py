"""While the database is away, was away, or hangs: nobody waits for what cannot be, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import timedelta

import psycopg
import pytest

from photochanger import jobs, retention, settings
from photochanger.db import Database
from photochanger.failures import SlotDisabled, Unavailable
from photochanger.settings import Fresh, Settings
from photochanger.storage.local import LocalStorage
from tests.installation import free_port

pytestmark = pytest.mark.anyio
KEY = "payloads/photo.jpg"


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


async def test_a_process_that_is_paused_in_a_transaction_holds_up_nobody_for_long(db: Database) -> None:
    async def paused(database: Database) -> None:
        with contextlib.suppress(Unavailable):  # it has lost its connection when it goes on
            async with database.transaction() as connection:
                await connection.execute("SELECT pg_advisory_xact_lock(7)")
                held.set()
                await may_end.wait()
                await connection.execute("SELECT 1")

    held, may_end = asyncio.Event(), asyncio.Event()
    first = asyncio.create_task(paused(db))
    await held.wait()
    async with asyncio.timeout(10), db.transaction() as connection:
        await connection.execute("SELECT pg_advisory_xact_lock(7)")
    may_end.set()
    await first


async def test_instants_are_read_in_utc_whatever_the_server_s_zone(db: Database, server_url: str) -> None:
    with psycopg.connect(server_url) as connection:
        assert connection.execute("SHOW timezone").fetchone() != ("UTC",)
    [row] = await db.fetch("SELECT now() AS now")
    assert row["now"].utcoffset() == timedelta(0)


async def test_after_a_restart_no_request_finds_the_dead_connections_one_by_one(db: Database, server_url: str) -> None:
    async def asked() -> None:
        await db.fetch("SELECT pg_sleep(0.2)")

    await asyncio.gather(*(asked() for _ in range(8)))  # eight connections, idle from now on
    with psycopg.connect(server_url, autocommit=True) as connection:
        name = psycopg.conninfo.conninfo_to_dict(db.url)["dbname"]
        connection.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", (name,))
    for _ in range(8):
        await db.fetch("SELECT 1")


async def test_a_photo_whose_job_may_have_been_made_is_kept(storage: LocalStorage) -> None:
    storage.path(KEY).write_bytes(b"photo")
    with pytest.raises(Unavailable):
        async with retention.until_handed_over(storage, KEY):
            raise Unavailable("The database cannot be reached", retry_after_s=2)
    assert storage.holds(KEY)
    with pytest.raises(SlotDisabled):
        async with retention.until_handed_over(storage, KEY):
            raise SlotDisabled()
    assert not storage.holds(KEY)


async def test_who_waits_for_a_turn_is_told_with_the_first_that_the_database_is_away(db: Database) -> None:
    away = Database(f"postgresql://127.0.0.1:{free_port()}/none", connections=4, application_name="test")
    began = time.monotonic()
    answers = await asyncio.gather(
        *(jobs._insert_in_turn(away, "gemini", dict, None) for _ in range(8)), return_exceptions=True
    )
    assert time.monotonic() - began <= 2.5
    assert [type(answer) for answer in answers] == [Unavailable] * 8
    await away.close()
