"""``/healthz``, ``/readyz`` and ``/metrics``."""

from __future__ import annotations

import falcon.asgi
import orjson
from prometheus_client import CONTENT_TYPE_LATEST

from photochanger import metrics, readiness
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
        return await readiness.migrations(self._its.db)

    async def _storage(self) -> str | None:
        return await readiness.storage(self._its.db, self._its.storage)

    async def _queue(self) -> str | None:
        return await readiness.workers(self._its.db)


class Metrics:
    """Prometheus's text format."""

    def __init__(self, services: Services) -> None:
        self._its = services

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.data = await metrics.scrape(self._its.db)
        resp.content_type = CONTENT_TYPE_LATEST
