"""One active scheduler, however many run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from photochanger import backups, leases
from photochanger.config import Config
from photochanger.db import Database
from photochanger.storage.local import LocalStorage
from tests.integration.jobs_made import succeeded
from tests.integration.test_stats import move

pytestmark = pytest.mark.anyio


@pytest.fixture
async def schedulers(db: Database, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setenv("PHOTOCHANGER_DATABASE_URL", db.url)
    from actors.scheduler import Scheduler  # the package builds the broker, which needs a database

    return [Scheduler(db, storage) for _ in range(3)]


async def sent(db: Database) -> int:
    return int((await db.fetch("SELECT count(*) AS n FROM dramatiq.queue"))[0]["n"])


async def test_of_three_schedulers_one_leads_and_one_sends(db: Database, schedulers: list[Any]) -> None:
    for scheduler in schedulers:
        await scheduler.renew()
    assert [scheduler.leading for scheduler in schedulers] == [True, False, False]
    for scheduler in schedulers:
        await scheduler.send("results")
    assert await sent(db) == 1


async def test_a_paused_leader_sends_nothing_when_it_wakes(db: Database, schedulers: list[Any]) -> None:
    paused, follower, _ = schedulers
    await paused.renew()
    await db.fetch("UPDATE lease SET expires_at = clock_timestamp() - interval '1 s'")
    await follower.renew()
    assert follower.leading
    await paused.send("results")
    assert await sent(db) == 0
    await paused.renew()
    assert not paused.leading


async def test_a_lease_is_free_again_when_it_runs_out_or_is_released(db: Database) -> None:
    assert await leases.hold(db, "x", "a", ttl_s=60)
    assert await leases.hold(db, "x", "a", ttl_s=60)
    assert not await leases.hold(db, "x", "b", ttl_s=60)
    await leases.release(db, "x", "b")
    assert not await leases.hold(db, "x", "b", ttl_s=60)
    await leases.release(db, "x", "a")
    assert await leases.hold(db, "x", "b", ttl_s=60)


async def test_the_last_run_of_every_task_is_recorded(db: Database, schedulers: list[Any]) -> None:
    await schedulers[0].expire()
    rows = await db.fetch("SELECT name, last_result FROM scheduled_run")
    assert rows == [{"name": "expire", "last_result": {"removed": 0}}]


async def test_the_leader_counts_what_has_ended(db: Database, schedulers: list[Any]) -> None:
    await move(db, 10, await succeeded(db))
    for scheduler in schedulers[::-1]:
        await scheduler.roll()
    rows = await db.fetch("SELECT name, last_result FROM scheduled_run")
    assert rows == [{"name": "rollups", "last_result": {"removed": 1}}]


async def test_the_leader_has_the_nightly_backup_made_and_goes_on_meanwhile(
    db: Database, schedulers: list[Any], config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHOTOCHANGER_HOME", str(config.home))
    leader, follower, _ = schedulers
    await leader.renew()
    await leader.back_up()
    assert await backups.last(db) is None, "the first night is still to come"
    await db.fetch("INSERT INTO scheduled_run VALUES ('backup', now() - interval '2 days', '{}')")
    await follower.back_up()
    assert backups.kept(config.backups) == []
    await leader.back_up()
    await leader.expire()
    assert await backups.is_running(db)
    async with asyncio.timeout(20):
        await leader.backup
    [kept] = backups.kept(config.backups)
    last = await backups.last(db)
    assert last is not None
    assert last["last_result"] == {"file": kept.name, "bytes": kept.bytes, "left_out": 0}
    await leader.back_up()
    assert backups.kept(config.backups) == [kept], "until the next night"
