"""What a photo is asked before its body is read: limits of requests, room on the disk, workers, room in the queue."""

from __future__ import annotations

import asyncio

import falcon.asgi

from photochanger import access, limits, providers, usual
from photochanger.admission import Admission, Coming, Work, work_of
from photochanger.config import Config
from photochanger.db import Database
from photochanger.failures import Failure, RateLimited, StorageFull
from photochanger.limits import Exhausted, Limit, Standing
from photochanger.providers import Options, Provider
from photochanger.settings import Fresh, Settings
from photochanger.slots import Slot
from photochanger.storage import Storage
from photochanger.usual import Times

_WINDOW_S = 60


class Door:
    """One per web process."""

    def __init__(self, db: Database, storage: Storage, config: Config) -> None:
        self._db = db
        self._config = config
        self.admission = Admission(db)
        self._times: Fresh[Times] = Fresh(lambda: usual.load(db))
        self._free: Fresh[int] = Fresh(lambda: asyncio.to_thread(storage.free_bytes))

    async def work_of(self, slot: Slot, current: Settings) -> Work:
        """What a photo of this slot asks of the workers."""
        return work_of(
            slot.route,
            await self._times.get(),
            t_sync_response_s=current.t_sync_response_s,
            provider=providers.registry().get,
            options=lambda provider: self._options(provider, current),
        )

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
            Unavailable: PostgreSQL cannot be reached.
        """
        await self._within_limits(req, resp, slot, current)
        if await self._free.get() < current.disk_reserve_bytes:
            raise StorageFull("The disk that holds the pictures is nearly full")
        return await self.admission.check(work, slack_s=current.t_sync_response_s - work.need_s, is_known=is_known)

    async def _within_limits(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, slot: Slot, current: Settings
    ) -> None:
        wanted = [
            Limit(key, most, "minute")
            for key, most in (
                ("ingest/server", current.ingest_per_minute),
                (f"ingest/slot/{slot.id}", current.ingest_per_minute_slot),
                (f"ingest/address/{req.remote_addr}", current.ingest_per_minute_address),
            )
            if most is not None
        ]
        if not wanted:
            return
        try:
            standings = (await limits.acquire(self._db, wanted)).standings
        except Exhausted as short:
            tell(resp, list(short.standings))
            kind = short.limit.key.split("/")[1]
            raise RateLimited(
                f"More than {short.limit.most:g} photos a minute have come to this {kind}",
                retry_after_s=short.retry_after_s,
            ) from None
        tell(resp, list(standings))


def tell(resp: falcon.asgi.Response, standings: list[Standing]) -> None:
    """How the limits stand, in ``RateLimit-Policy`` and ``RateLimit`` (draft-ietf-httpapi-ratelimit-headers)."""
    policies, left = [], []
    for one in standings:
        name = one.limit.key.split("/")[1]
        policies.append(f'"{name}";q={one.limit.most:.0f};w={_WINDOW_S}')
        left.append(f'"{name}";r={int(one.left)};t={int(one.more_in_s) + 1}')
    resp.set_header("RateLimit-Policy", ", ".join(policies))
    resp.set_header("RateLimit", ", ".join(left))
