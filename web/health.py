"""``/healthz``, ``/readyz`` and ``/metrics``."""

from __future__ import annotations

import asyncio
import os

import falcon.asgi
import orjson
from prometheus_client import CONTENT_TYPE_LATEST

from photochanger import metrics, schema, settings
from photochanger.failures import Failure, FieldError, Unavailable
from web import problems
from web.services import Services


class Health:
    """The process answers."""

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.content_type = "application/json"
        resp.data = b'{"status":"ok"}'
        resp.set_header("Cache-Control", "no-store")


class Ready:
    """Photos can be served: database, migrations, storage and queue."""

    def __init__(self, services: Services) -> None:
        self._its = services

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        checks = {
            "database": self._database,
            "migrations": self._migrations,
            "storage": self._storage,
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
        if wrong:
            problems.write(resp, Unavailable(wrong[0].message, retry_after_s=2, errors=wrong))
            return
        resp.content_type = "application/json"
        resp.data = orjson.dumps({"status": "ready", "checks": dict.fromkeys(checks, "ok")})
        resp.set_header("Cache-Control", "no-store")

    async def _database(self) -> str | None:
        await self._its.db.fetch("SELECT 1")
        return None

    async def _migrations(self) -> str | None:
        at = await schema.current(self._its.db)
        head = await asyncio.to_thread(schema.head)
        return None if at == head else f"The database is at migration {at}, this version needs {head}"

    async def _storage(self) -> str | None:
        if refusal := await settings.wrong_media_root(self._its.db, self._its.storage):
            return refusal
        if not os.access(self._its.storage.root, os.W_OK):
            return f"{self._its.storage.root} cannot be written"
        return None

    async def _queue(self) -> str | None:
        alive = await self._its.db.fetch(
            "SELECT FROM dramatiq.worker WHERE NOT draining AND beat_at > clock_timestamp() - interval '5 s' LIMIT 1"
        )
        return None if alive else "No worker is running"


class Metrics:
    """Prometheus's text format."""

    def __init__(self, services: Services) -> None:
        self._its = services

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.data = await metrics.scrape(self._its.db)
        resp.content_type = CONTENT_TYPE_LATEST
