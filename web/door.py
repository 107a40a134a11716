"""What a photo is asked before its body is read: limits of requests, room on the disk, workers, room in the queue."""

from __future__ import annotations

import asyncio

import falcon.asgi

from photochanger import access, breakers, network, providers, readiness, usual
from photochanger.admission import Admission, Coming, Work, work_of
from photochanger.config import Config
from photochanger.db import Database
from photochanger.failures import Failure, StorageFull
from photochanger.providers import Options, Provider
from photochanger.settings import Fresh, Settings
from photochanger.slots import Slot
from photochanger.storage import Storage, StorageAway
from photochanger.storage.local import NOT_THERE
from photochanger.usual import Times
from web import rates


class Door:
    """One per web process."""

    def __init__(self, db: Database, storage: Storage, config: Config) -> None:
        self._db = db
        self._config = config
        self.admission = Admission(db)
        self._times: Fresh[Times] = Fresh(lambda: usual.load(db))
        self._closed: Fresh[set[str]] = Fresh(self._not_asked)
        self._storage = storage
        self._disk: Fresh[tuple[int, str]] = Fresh(lambda: asyncio.to_thread(_disk_of, storage))

    async def work_of(self, slot: Slot, current: Settings) -> Work:
        """What a photo of this slot asks of the workers."""
        return work_of(
            slot.route,
            await self._times.get(),
            t_sync_response_s=current.t_sync_response_s,
            provider=providers.registry().get,
            options=lambda provider: self._options(provider, current),
            closed=await self._closed.get(),
        )

    async def _not_asked(self) -> set[str]:
        return {row["provider"] for row in await breakers.standing(self._db) if row["open"] and row["left_s"] > 0}

    def _options(self, provider: Provider, current: Settings) -> Options:
        try:
            return access.options_of(provider, current, self._config)
        except Failure:  # those of another version; its rung says so when its turn comes
            return provider.options()

    async def pass_early(
        self,
        req: falcon.asgi.Request,
        resp: falcon.asgi.Response,
        slot: Slot,
        current: Settings,
        work: Work,
        *,
        is_known: bool,
    ) -> Coming:
        """Returns when the body may be read; keep what it gives while the photo comes. ``is_known``: its
        Idempotency-Key has a job, which costs nobody a place.

        Raises:
            RateLimited, StorageFull, NoWorkers, QueueFull: with the time after which it may come again.
            Unavailable: PostgreSQL or the store cannot be reached, or the disk is not there.
        """
        await self._within_limits(req, resp, slot, current)
        if (away := self._storage.away()) is not None:
            raise StorageAway(away, retry_after_s=10)
        free_bytes, marker = await self._disk.get()
        if current.media_marker not in (None, marker):
            raise StorageAway(NOT_THERE, retry_after_s=10)
        if full := readiness.room(free_bytes, current):
            raise StorageFull(full)
        slack_s = current.t_sync_response_s - work.need_s
        return await self.admission.check(work, slot_id=slot.id, slack_s=slack_s, is_known=is_known)

    async def _within_limits(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, slot: Slot, current: Settings
    ) -> None:
        most = {
            "ingest/server": current.ingest_per_minute,
            f"ingest/slot/{slot.id}": current.ingest_per_minute_slot,
            f"ingest/address/{network.subscriber(req.remote_addr)}": current.ingest_per_minute_address,
        }
        await rates.take(self._db, resp, most, what="photos")


def _disk_of(storage: Storage) -> tuple[int, str]:
    """Its free bytes, and whose it is."""
    try:
        free_bytes = storage.free_bytes()
    except StorageAway:
        return 0, ""
    return free_bytes, storage.marker()
