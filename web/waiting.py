"""How requests wait for their jobs: one shared poller per process, whatever the number of waiters.

It reads Job rows: those whose bell rang at once, all waiters' every ``FALLBACK_S``. The bell (NOTIFY) makes it early
and is never needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from uuid import UUID

import psycopg

from photochanger import jobs, logs, metrics, retention
from photochanger.db import FINDS_OUT, Database, Row, fetch
from photochanger.failures import Unavailable
from photochanger.storage import Storage

FALLBACK_S = 0.5
RECONNECT_S = 0.2
#: Seconds past its deadline after which a waiter stops believing that the database will answer.
GRACE_S = 0.7


class Waiter:
    """One request waiting for one job until ``deadline`` (monotonic seconds)."""

    def __init__(self, job_id: UUID) -> None:
        self.job_id = job_id
        self.deadline = float("inf")
        self.final: asyncio.Future[Row] = asyncio.get_running_loop().create_future()


class Waiting:
    """The poller. Start it with the process, close it with it."""

    def __init__(self, db: Database, storage: Storage, *, ring: bool = True) -> None:
        self._db = db
        self._storage = storage
        self._ring = ring
        self._waiters: dict[UUID, set[Waiter]] = {}
        self._task: asyncio.Task[None] | None = None
        self._next_full = 0.0

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    @contextlib.contextmanager
    def waiter(self, job_id: UUID) -> Iterator[Waiter]:
        """Registers interest; enter it before the job is submitted, so that no bell is missed."""
        waiter = Waiter(job_id)
        self._waiters.setdefault(job_id, set()).add(waiter)
        try:
            yield waiter
        finally:
            others = self._waiters[job_id]
            others.discard(waiter)
            if not others:
                del self._waiters[job_id]

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except (psycopg.OperationalError, psycopg.InterfaceError, Unavailable) as error:
                logs.event("waiting.disconnected", error=type(error).__name__)
            except Exception:
                logs.event("loop.failed", loop="waiting", exc_info=True)
            await asyncio.sleep(RECONNECT_S)

    async def _listen(self) -> None:
        async with await psycopg.AsyncConnection.connect(
            self._db.url, autocommit=True, application_name="photochanger web waiting", **FINDS_OUT
        ) as connection:
            if self._ring:
                await connection.execute(f'LISTEN "{jobs.JOB_BELL}"'.encode())
            while True:
                pause = max(0.0, self._next_full - time.monotonic())
                rung = {n.payload async for n in connection.notifies(timeout=pause, stop_after=1)}
                await self._look(connection, rung)

    async def _look(self, connection: psycopg.AsyncConnection[object], rung: set[str]) -> None:
        full = time.monotonic() >= self._next_full
        if full:
            self._next_full = time.monotonic() + FALLBACK_S
            await self._expire()
        ids = [job_id for job_id in self._waiters if full or str(job_id) in rung]
        if not ids:
            return
        metrics.POLLS.inc()
        for row in await fetch(connection, jobs.FINAL_OF, {"ids": ids}):
            for waiter in self._waiters.get(row["id"], ()):
                if not waiter.final.done():
                    waiter.final.set_result(row)

    async def _expire(self) -> None:
        now = time.monotonic()
        overdue = [waiter.job_id for group in self._waiters.values() for waiter in group if waiter.deadline <= now]
        if overdue:
            await retention.expire_overdue(self._db, self._storage, overdue)
