"""What the actors of one worker process share: database, store, image processes, and the tasks that run now."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import dramatiq
from dramatiq.asyncio import get_event_loop_thread
from dramatiq.middleware import Middleware

from photochanger import access, jobs, logs, providers, retention, settings, usual, vault
from photochanger.config import Config
from photochanger.db import Database
from photochanger.failpoints import Failpoints
from photochanger.failures import Unavailable
from photochanger.gate import Gate
from photochanger.image_pool import ImagePool
from photochanger.jobs import Claim
from photochanger.routing import Router
from photochanger.rungs import Surroundings
from photochanger.settings import Fresh
from photochanger.storage.local import LocalStorage
from photochanger.storage.opening import open_storage
from photochanger.tokens import master_keys

#: Seconds between looks at our own running jobs and at overdue ones: what a lost bell costs at most.
WATCH_S = 0.5


class Workshop(Middleware):
    """Opened when the worker boots, on dramatiq's event loop; closed when it has drained."""

    def __init__(self, config: Config, worker_id: Callable[[], int | None]) -> None:
        self.config = config
        self.worker_id = worker_id
        self.failpoints = Failpoints(config)
        self.db: Database
        self.storage: LocalStorage
        self.pool: ImagePool
        self.router: Router
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: dict[UUID, tuple[asyncio.Task[Any], int]] = {}
        self._look: asyncio.Event
        self._watch: asyncio.Task[None]

    # -- dramatiq's middleware protocol -------------------------------------------------------------------------

    def before_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        logs.setup(self.config.log_format, self.config.log_level)
        refusal = self._on_loop(self._open())
        if refusal is not None:
            sys.exit(f"photochanger: {refusal}")

    def after_worker_shutdown(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        self._on_loop(self._close())

    def _on_loop(self, work: Any) -> Any:
        thread = get_event_loop_thread()
        assert thread is not None
        return thread.run_coroutine(work)

    async def _open(self) -> str | None:
        """Opens everything; returns why this worker must not start, if so."""
        self._loop = asyncio.get_running_loop()
        self.db = Database(
            self.config.require_database_url(),
            connections=self.config.worker_connections,
            application_name="photochanger worker",
        )
        self.storage = open_storage(self.config)
        if refusal := await settings.wrong_media_root(self.db, self.storage):
            return refusal
        keys = master_keys(self.config)
        if refusal := await vault.wrong_master_key(self.db, keys):
            return refusal
        self.pool = ImagePool(self.config.image_processes)
        await self.pool.start()
        times, current = Fresh(lambda: usual.load(self.db)), Fresh(lambda: settings.load(self.db))
        self.router = Router(
            Surroundings(
                self.db,
                self.storage,
                self.pool,
                providers.registry(),
                access=lambda provider: access.to(provider, self.db, keys, self.config),
                gate=Gate(self.db, self.worker_id),
                times=times.get,
                settings=current.get,
            )
        )
        self._look = asyncio.Event()
        self._watch = asyncio.create_task(self._watch_running())
        return None

    async def _close(self) -> None:
        self._watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watch
        self.pool.close()
        for provider in self.router.its.registry.values():
            await provider.close()
        await self.db.close()

    # -- the tasks that run now -----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def running(self, claim: Claim) -> Iterator[None]:
        """While inside, the current task is cancelled as soon as the job is final or somebody else has claimed it."""
        task = asyncio.current_task()
        assert task is not None
        if earlier := self._running.get(claim.job_id):
            earlier[0].cancel()  # we lost the lease, and got the message back ourselves
        self._running[claim.job_id] = entry = (task, claim.claim_no)
        try:
            yield
        finally:
            if self._running.get(claim.job_id) is entry:
                del self._running[claim.job_id]

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
            except Exception:
                logs.event("loop.failed", loop="watch", exc_info=True)

    async def _stop_finished(self) -> None:
        if not self._running:
            return
        entries = dict(self._running)
        ours = await jobs.unfinished(self.db, {job_id: claim_no for job_id, (_, claim_no) in entries.items()})
        for job_id in set(entries).difference(ours):
            if self._running.get(job_id) is entries[job_id]:  # it may have left while we asked
                entries[job_id][0].cancel()
