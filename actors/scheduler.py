"""APScheduler: knows when, never what. Any number may run; the one that holds the lease acts.

Everything is sent to the workers, except expiry, the measuring of calls and the rollups, which must not wait behind
the queue, and backups, which take long and must hold no worker's thread.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from photochanger import backups, config, jobs, leases, logs, retention, rollups, settings, usual
from photochanger.broker import messages
from photochanger.config import Config
from photochanger.db import Database
from photochanger.failures import Unavailable
from photochanger.schedules import BACKUP_LOOK_S, OWN_EVERY_S, SWEEPS_EVERY_S
from photochanger.storage.local import LocalStorage
from photochanger.storage.opening import open_storage

LEASE = "scheduler"
LEASE_S = 15.0
RENEW_S = 5.0


class Scheduler:
    """One scheduler process. ``holder`` names it in the lease; ``backup``: the last nightly one it has begun."""

    def __init__(self, db: Database, storage: LocalStorage) -> None:
        self.db = db
        self.storage = storage
        self.holder = leases.new_holder()
        self.leading = False
        self.backup: asyncio.Task[None] | None = None
        self._timers = AsyncIOScheduler(
            timezone=UTC,
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        )

    async def start(self) -> None:
        """Begins to try for the lease; sweeps that the stored last run says are overdue go at once."""
        rows = await self.db.fetch(
            "SELECT name, extract(epoch FROM clock_timestamp() - last_run_at)::float8 AS age_s FROM scheduled_run"
        )
        age_s = {row["name"]: row["age_s"] for row in rows}
        now = datetime.now(UTC)
        self._timers.add_job(self.renew, "interval", seconds=RENEW_S, next_run_time=now)
        self._timers.add_job(self.expire, "interval", seconds=OWN_EVERY_S["expire"])
        self._timers.add_job(self.measure, "interval", seconds=OWN_EVERY_S["measure"])
        self._timers.add_job(self.roll, "interval", seconds=OWN_EVERY_S["rollups"])
        self._timers.add_job(self.back_up, "interval", seconds=BACKUP_LOOK_S)
        for task, every_s in SWEEPS_EVERY_S.items():
            due_in_s = min(max(1.0, every_s - age_s.get(task, every_s)), every_s)
            due = now + timedelta(seconds=due_in_s)
            self._timers.add_job(self.send, "interval", args=[task], seconds=every_s, next_run_time=due)
        await self.renew()
        self._timers.start()

    async def renew(self) -> None:
        try:
            leading = await leases.hold(self.db, LEASE, self.holder, ttl_s=LEASE_S)
        except Unavailable:
            leading = False
        if leading != self.leading:
            self.leading = leading
            logs.event("schedule.leading" if leading else "schedule.following", holder=self.holder)

    async def expire(self) -> None:
        """Acts under the lease checked in the same breath: a leader that was paused asks before it does anything."""
        try:
            if await leases.hold(self.db, LEASE, self.holder, ttl_s=LEASE_S):
                removed = await retention.expire_overdue(self.db, self.storage)
                await retention.record_run(self.db, "expire", removed)
        except Unavailable:
            return  # web and workers expire their own; the next second tries again

    async def measure(self) -> None:
        """Rolls up how long the newest calls took: routes and admission decide by it."""
        try:
            if await leases.hold(self.db, LEASE, self.holder, ttl_s=LEASE_S):
                await retention.record_run(self.db, "measure", await usual.measure(self.db))
        except Unavailable:
            return  # what was measured before serves on

    async def roll(self) -> None:
        """Counts what has ended for the statistics."""
        try:
            if await leases.hold(self.db, LEASE, self.holder, ttl_s=LEASE_S):
                await retention.record_run(self.db, "rollups", await rollups.roll(self.db))
        except Unavailable:
            return  # what has ended stays to be counted

    async def back_up(self) -> None:
        """Has the nightly backup made when it is due; meanwhile the other tasks go on."""
        try:
            if not await leases.hold(self.db, LEASE, self.holder, ttl_s=LEASE_S):
                return
            due_at = await backups.next_at(self.db, await settings.load(self.db))
            if due_at is None or due_at > await jobs.now(self.db):
                return
            if holder := await backups.begin(self.db):
                self.backup = asyncio.create_task(backups.run_apart(self.db, holder))
        except Unavailable:
            return  # it is still due at the next look

    async def send(self, task: str) -> None:
        try:
            async with self.db.transaction() as connection:
                held = await connection.execute(
                    b"SELECT FROM lease WHERE name = %s AND holder = %s AND expires_at > clock_timestamp() FOR UPDATE",
                    (LEASE, self.holder),
                )
                if held.rowcount:
                    await messages.enqueue(connection, messages.message("sweep", task=task), priority=10)
        except Unavailable:
            logs.event("sweep.failed", task=task)

    async def stop(self) -> None:
        self._timers.shutdown(wait=False)
        if self.backup is not None:
            self.backup.cancel()
            await asyncio.wait([self.backup])
        try:
            await leases.release(self.db, LEASE, self.holder)
        except Unavailable:
            return  # it runs out by itself


async def run(loaded: Config) -> None:
    """Runs until SIGTERM or SIGINT."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    db = Database(loaded.require_database_url(), connections=2, application_name="photochanger scheduler")
    storage = open_storage(loaded)
    if refusal := await settings.wrong_media_root(db, storage):
        await db.close()
        sys.exit(f"photochanger: {refusal}")
    scheduler = Scheduler(db, storage)
    while not stopped.is_set():
        try:
            await scheduler.start()
            break
        except Unavailable:
            await asyncio.sleep(1)
    await stopped.wait()
    await scheduler.stop()
    await db.close()


def main() -> None:
    loaded = config.load_or_exit()
    logs.setup(loaded.log_format, loaded.log_level)
    asyncio.run(run(loaded))


if __name__ == "__main__":
    main()
