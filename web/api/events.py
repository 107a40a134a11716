"""``GET /api/events``: what happens now, as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator

import falcon.asgi
from falcon.asgi import SSEvent

from photochanger.failures import Forbidden, Unavailable
from web.api import needs
from web.api.authority import caller_of
from web.live import News
from web.services import Services


class Events:
    """GET: a stream that ends with the session it was asked for in."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("jobs:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        if self._its.live.is_full:
            raise Unavailable("Too many pages watch this server", retry_after_s=5)
        news = self._its.live.watch(lambda: self._may_listen(req))
        resp.sse = _events(news)

    async def _may_listen(self, req: falcon.asgi.Request) -> None:
        caller = await caller_of(self._its, req)
        if caller.must_change or "jobs:read" not in caller.permissions:
            raise Forbidden()


async def _events(news: AsyncIterator[News | None]) -> AsyncIterator[SSEvent | None]:
    async for one in news:
        if one is None:
            yield SSEvent(comment="nothing new")
        else:
            yield SSEvent(event=one.event, text=one.data.model_dump_json() if one.data else "{}", retry=2000)
