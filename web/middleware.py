"""What happens around every request: its id, its log line; and the process's own beginning and end."""

from __future__ import annotations

import re
import time
from typing import Any
from uuid import uuid4

import falcon.asgi

from photochanger import logs
from photochanger.config import authority
from photochanger.failures import InvalidRequest
from web.services import Services

_QUIET = ("/healthz", "/readyz", "/metrics", "/static")
_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")


class RequestLog:
    """Gives every request an id (the client's ``X-Request-Id`` where it is one) and one line in the log. Query
    strings are never logged: links carry their tokens there."""

    async def process_request(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        given = req.get_header("X-Request-Id") or ""
        request_id = given if _ID.fullmatch(given) else uuid4().hex
        logs.request_id.set(request_id)
        logs.job_id.set(None)
        logs.address.set(req.remote_addr)
        resp.set_header("X-Request-Id", request_id)
        req.context.began = time.monotonic()
        # The id of a temporary picture is all it takes to see it.
        req.context.path = "/public/media/…" if req.path.startswith("/public/media/") else req.path

    async def process_response(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, resource: object, req_succeeded: bool
    ) -> None:
        if req.path.startswith(_QUIET):
            return
        logs.event(
            "request.finished",
            method=req.method,
            path=req.context.path,
            status=resp.status_code,
            seconds=round(time.monotonic() - getattr(req.context, "began", time.monotonic()), 3),
            **({"code": resp.context.failure.code} if hasattr(resp.context, "failure") else {}),
        )


class HostCheck:
    """Refuses a Host that is none: links are made of it."""

    async def process_request(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        try:
            authority(req.netloc.encode("ascii").decode())
        except ValueError:
            raise InvalidRequest("The Host header is not the name of a server") from None


class Lifespan:
    """Opens and closes what the resources share."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def process_startup(self, scope: dict[str, Any], event: dict[str, Any]) -> None:
        await self._services.open()

    async def process_shutdown(self, scope: dict[str, Any], event: dict[str, Any]) -> None:
        await self._services.close()
