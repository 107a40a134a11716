"""What the actors of one worker process share: database, store, image processes, and the tasks that run now."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import dramatiq
from dramatiq.asyncio import get_event_loop_thread
from dramatiq.middleware import Middleware

from photochanger import jobs, logs, providers, retention
from photochanger.config import Config
from photochanger.db import Database
from photochanger.failpoints import Failpoints
from photochanger.failures import Unavailable
from photochanger.image_pool import ImagePool
from photochanger.routing import Router
from photochanger.storage.local import LocalStorage

#: Seconds between looks at our own running jobs and at overdue ones: what a lost bell costs at most.
WATCH_S = 0.5


class Workshop(Middleware):
    """Opened when the worker boots, on dramatiq's event loop; closed when it has drained."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.failpoints = Failpoints(config)
        self.db: Database
        self.storage: LocalStorage
        self.pool: ImagePool
        self.router: Router
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: dict[UUID, asyncio.Task[Any]] = {}
        self._look: asyncio.Event
        self._watch: asyncio.Task[None]

    # -- dramatiq's middleware protocol -------------------------------------------------------------------------

    def before_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        logs.setup(self.config.log_format, self.config.log_level)
        self._on_loop(self._open())

    def after_worker_shutdown(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        self._on_loop(self._close())

    def _on_loop(self, work: Any) -> None:
        thread = get_event_loop_thread()
        assert thread is not None
        thread.run_coroutine(work)

    async def _open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.db = Database(
            self.config.require_database_url(),
            connections=self.config.worker_connections,
            application_name="photochanger worker",
        )
        self.storage = LocalStorage(self.config.media)
        self.storage.prepare()
        self.pool = ImagePool(self.config.image_processes)
        await self.pool.start()
        self.router = Router(self.db, self.storage, self.pool, providers.registry())
        self._look = asyncio.Event()
        self._watch = asyncio.create_task(self._watch_running())

    async def _close(self) -> None:
        self._watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watch
        self.pool.close()
        await self.db.close()

    # -- the tasks that run now -----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def running(self, job_id: UUID) -> Iterator[None]:
        """While inside, the current task is cancelled as soon as the job is final or its lease is lost."""
        task = asyncio.current_task()
        assert task is not None
        self._running[job_id] = task
        try:
            yield
        finally:
            if self._running.get(job_id) is task:
                del self._running[job_id]

    def look_at(self, message_id: str | None) -> None:
        """The queue heard that a job's work may be over; called from the consumer's thread."""
        if self._loop is None or (message_id is not None and UUID(message_id) not in self._running):
            return
        self._loop.call_soon_threadsafe(self._look.set)

    async def _watch_running(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_S):
                    await self._look.wait()
            self._look.clear()
            try:
                await self._stop_finished()
                await retention.expire_overdue(self.db, self.storage)
            except Unavailable:
                continue  # the database is away; every task has its own deadline

    async def _stop_finished(self) -> None:
        if not self._running:
            return
        tasks = dict(self._running)
        for job_id in set(tasks).difference(await jobs.unfinished(self.db, tasks)):
            tasks[job_id].cancel()
