"""``/healthz``, ``/readyz`` and ``/metrics``."""

from __future__ import annotations

import asyncio
import contextlib

import falcon.asgi
import orjson
from prometheus_client import CONTENT_TYPE_LATEST

from photochanger import metrics, readiness
from photochanger.failures import Failure, FieldError, Unavailable
from web import problems
from web.api.system import disk
from web.services import Services


class Health:
    """The process answers."""

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.content_type = "application/json"
        resp.data = b'{"status":"ok"}'
        resp.set_header("Cache-Control", "no-store")

    on_head = on_get


class Ready:
    """Photos can be served: database, migrations, storage with its reserve, and queue."""

    def __init__(self, services: Services) -> None:
        self._its = services

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        checks = {
            "database": self._database,
            "migrations": self._migrations,
            "storage": self._storage,
            "room": self._room,
            "queue": self._queue,
        }
        wrong = []
        for name, check in checks.items():
            try:
                said = await check()
            except (Failure, OSError) as error:
                said = str(error)
            if said:
                wrong.append(FieldError(name, "not_ready", said))
            if said and name == "database":  # all others ask it, too
                break
        if wrong:
            problems.write(resp, Unavailable(wrong[0].message, retry_after_s=2, errors=wrong))
            return
        resp.content_type = "application/json"
        resp.data = orjson.dumps({"status": "ready", "checks": dict.fromkeys(checks, "ok")})
        resp.set_header("Cache-Control", "no-store")

    on_head = on_get

    async def _database(self) -> str | None:
        await self._its.db.fetch("SELECT 1")
        return None

    async def _migrations(self) -> str | None:
        return await readiness.migrations(self._its.db)

    async def _storage(self) -> str | None:
        return await readiness.storage(self._its.db, self._its.storage)

    async def _room(self) -> str | None:
        free_bytes = await asyncio.to_thread(self._its.storage.free_bytes)
        return readiness.room(free_bytes, await self._its.settings.get())

    async def _queue(self) -> str | None:
        return await readiness.workers(self._its.db)


class Metrics:
    """Prometheus's text format."""

    def __init__(self, services: Services) -> None:
        self._its = services

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        known: dict[str, float] = {}
        with contextlib.suppress(Unavailable, OSError):  # what is wrong is said by the other numbers and ``/readyz``
            known = (await disk(self._its)).model_dump()
            for slot in (await self._its.slots.get()).values():
                if slot.is_active:
                    metrics.expect(slot.id, {rung.provider for rung in slot.route.rungs})
        resp.data = await metrics.scrape(self._its.db, known)
        resp.content_type = CONTENT_TYPE_LATEST
