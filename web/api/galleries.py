"""``/api/gallery-shares``: windows in which guests may look at pictures; opened, listed, closed."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

import falcon.asgi
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from photochanger import galleries, job_list
from photochanger.db import Row
from photochanger.failures import NotFound
from photochanger.job_search import Place
from photochanger.settings import Settings
from web.api import Instant, Page, answer, body, cursor, needs, position, query
from web.api.views import PictureView, picture
from web.models import Url
from web.services import Services


class NewShare(BaseModel):
    """A window to be opened."""

    model_config = ConfigDict(extra="forbid")

    slot_id: Annotated[str | None, Field(max_length=63, description="Absent or null: the pictures of all slots.")] = (
        None
    )
    minutes: Annotated[int, Field(ge=1, le=galleries.MOST_MINUTES)] = galleries.USUAL_MINUTES


class ShareChanges(BaseModel):
    """Another end of a window."""

    model_config = ConfigDict(extra="forbid")

    expires_at: Annotated[AwareDatetime, Field(description="At most 24 hours from now.")]


class Share(BaseModel):
    """A window."""

    id: UUID
    slot_id: str | None
    slot_name: str | None
    opened_by: str
    opened_at: datetime
    expires_at: Annotated[datetime, Field(description="From this instant on its link answers 410.")]
    closed_at: datetime | None
    is_open: bool
    url: Annotated[Url, Field(description="The guests' link: anyone who has it may look while it is open.")]


class SharePage(BaseModel):
    """Windows, the one that ends last first."""

    items: list[Share]
    next: Annotated[str | None, Field(description="`after` of the next page; null: this is the last.")]


class ShareQuery(Page):
    """Which windows."""

    only_open: bool = False


class ResultQuery(Page):
    """Of which slot and time."""

    slot_id: Annotated[str, Field(max_length=63)] | None = None
    since: Annotated[Instant, Field(description="Of photos that came then or later.")] | None = None
    until: Annotated[Instant, Field(description="Of photos that came before.")] | None = None


class PicturePage(BaseModel):
    """Pictures that can be fetched now, newest first."""

    items: list[PictureView]
    next: Annotated[str | None, Field(description="`after` of the next page; null: this is the last.")]


class Shares:
    """GET: the windows. POST: opens one."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("jobs:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        asked = query(req, ShareQuery)
        place = position(asked.after, datetime, UUID)
        after = (place[0], place[1]) if place else None
        rows = await galleries.listing(self._its.db, only_open=asked.only_open, after=after, limit=asked.limit + 1)
        current = await self._its.settings.get()
        shown = [view(self._its, req, current, row) for row in rows[: asked.limit]]
        more = len(rows) > asked.limit
        answer(resp, SharePage(items=shown, next=cursor(shown[-1].expires_at, shown[-1].id) if more else None))

    @needs("jobs:write")
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        given = await body(req, NewShare)
        row = await galleries.open_share(
            self._its.db, slot_id=given.slot_id, minutes=given.minutes, actor=req.context.account.name
        )
        resp.set_header("Location", f"/api/gallery-shares/{row['id']}")
        answer(resp, view(self._its, req, await self._its.settings.get(), row), 201)


class OneShare:
    """GET: one window. PATCH: ends it at another time. DELETE: closes it now."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("jobs:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, share_id: str) -> None:
        row = await galleries.find(self._its.db, share_key(share_id))
        answer(resp, view(self._its, req, await self._its.settings.get(), row))

    @needs("jobs:write")
    async def on_patch(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, share_id: str) -> None:
        key, given = share_key(share_id), await body(req, ShareChanges)
        row = await galleries.extend(self._its.db, key, expires_at=given.expires_at, actor=req.context.account.name)
        answer(resp, view(self._its, req, await self._its.settings.get(), row))

    @needs("jobs:write")
    async def on_delete(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, share_id: str) -> None:
        row = await galleries.close(self._its.db, share_key(share_id), actor=req.context.account.name)
        answer(resp, view(self._its, req, await self._its.settings.get(), row))


class ResultList:
    """GET: the pictures that can be fetched now."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("jobs:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        asked = query(req, ResultQuery)
        place = position(asked.after, datetime, UUID)
        after = Place(*place) if place else None
        page = await job_list.latest_results(
            self._its.db, asked.slot_id, after, asked.limit, since=asked.since, until=asked.until
        )
        current = await self._its.settings.get()
        items = [picture(self._its, req, current, one) for one in page.pictures]
        answer(resp, PicturePage(items=items, next=cursor(*page.next) if page.next else None))


def share_key(share_id: str) -> UUID:
    """
    Raises:
        NotFound: it is no id.
    """
    try:
        return UUID(share_id)
    except ValueError:
        raise NotFound("There is no such gallery") from None


def view(its: Services, req: falcon.asgi.Request, current: Settings, row: Row) -> Share:
    """A window with its link."""
    path = f"/public/galleries/{row['id']}"
    url = its.url(req, current, its.gallery_links, path, row["id"], row["expires_at"])
    return Share(**row, url=url)
