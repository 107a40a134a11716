"""``/public/galleries/{share_id}``: pictures for guests while an administrator keeps the window open; a page for
people, JSON for programs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from urllib.parse import quote
from uuid import UUID

import falcon.asgi
from pydantic import BaseModel, Field

from photochanger import galleries, job_list, jobs, network
from photochanger.db import Row
from photochanger.failures import Failure, NotFound, ResultExpired, ResultNotFound
from photochanger.job_search import Place
from web import rates
from web.api import Page, answer, cursor, position, query
from web.api.authority import caller_of
from web.api.galleries import share_key
from web.api.jobs import job_key
from web.api.views import SMALL
from web.pages import Pages, wants_page
from web.services import Services


class GalleryQuery(Page):
    """A page, with the link's own token."""

    token: Annotated[str, Field(max_length=200)] = ""
    slideshow: bool = False


class GalleryPicture(BaseModel):
    """A picture in a gallery. Its links end with the gallery, or with the picture."""

    job_id: UUID
    finalized_at: datetime
    width: int
    height: int
    url: Annotated[str, Field(description="Path on this server.")]
    thumbnail_url: str


class Gallery(BaseModel):
    """A gallery, newest pictures first."""

    slot_name: Annotated[str | None, Field(description="Null: the pictures of all slots.")]
    expires_at: Annotated[datetime, Field(description="Then it closes, at the latest.")]
    items: list[GalleryPicture]
    next: Annotated[str | None, Field(description="`after` of the next page; null: this is the last.")]


class GalleryClosed(ResultExpired):
    """This gallery has been closed"""


class PublicGallery:
    """GET: the pictures."""

    def __init__(self, services: Services, pages: Pages) -> None:
        self._its = services
        self._pages = pages

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, share_id: str) -> None:
        resp.set_header("Vary", "Accept, Accept-Language")
        for_people = wants_page(req)
        try:
            share = await open_window(self._its, req, resp, share_id)
            asked = query(req, GalleryQuery)
            found = await self._found(share, asked)
            link = await self._link(req, share) if for_people else ""
        except Failure as failure:
            if not for_people:
                raise
            self._pages.gallery_failure(req, resp, failure)
            return
        if for_people:
            self._pages.gallery(
                req,
                resp,
                found,
                link,
                now=share["now"],
                slideshow=asked.slideshow,
                is_first=asked.after is None,
                admin_page=f"/gallery/shares/{share['id']}" if await self._is_administrator(req) else None,
            )
            return
        resp.set_header("Cache-Control", "private, no-store")
        answer(resp, found)

    async def _found(self, share: Row, asked: GalleryQuery) -> Gallery:
        place = position(asked.after, datetime, UUID)
        after = Place(*place) if place else None
        page = await job_list.latest_results(self._its.db, share["slot_id"], after, asked.limit)
        return Gallery(
            slot_name=share["slot_name"],
            expires_at=share["expires_at"],
            items=[_view(share["id"], one, asked.token) for one in page.pictures],
            next=cursor(*page.next) if page.next else None,
        )

    async def _is_administrator(self, req: falcon.asgi.Request) -> bool:
        """Whether somebody looks who may close it."""
        try:
            return "jobs:write" in (await caller_of(self._its, req)).permissions
        except Failure:
            return False

    async def _link(self, req: falcon.asgi.Request, share: Row) -> str:
        current = await self._its.settings.get()
        path = f"/public/galleries/{share['id']}"
        return self._its.url(req, current, self._its.gallery_links, path, share["id"], share["expires_at"])


class GalleryPictureResource:
    """GET: one of its pictures; ``?size=`` for a small one."""

    def __init__(self, services: Services) -> None:
        self._its = services

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, share_id: str, job_id: str) -> None:
        share = await open_window(self._its, req, resp, share_id)
        row = await jobs.find(self._its.db, job_key(job_id))
        if row is None or row["is_test"] or share["slot_id"] not in (None, row["slot_id"]) or not row["result_sha256"]:
            raise ResultNotFound()
        if row["now"] >= row["result_expires_at"]:
            raise ResultExpired()
        time_zone = (await self._its.settings.get()).time_zone
        await self._its.pictures.result(req, resp, row, time_zone=time_zone)
        resp.set_header("Cache-Control", "private, no-cache")  # closed is closed, whatever the browser has kept


async def open_window(its: Services, req: falcon.asgi.Request, resp: falcon.asgi.Response, share_id: str) -> Row:
    """The window that a link leads to.

    Raises:
        NotFound: the link is not genuine.
        GalleryClosed: it is over.
        RateLimited: too much was asked for from this address.
    """
    token = req.get_param("token") or ""
    if its.gallery_links.expiry(share_id, token) is None:
        raise NotFound("There is no such gallery")
    await _within_limit(its, req, resp)
    try:
        share = await galleries.find(its.db, share_key(share_id))
    except NotFound:  # a genuine link whose row was swept
        raise GalleryClosed() from None
    if not share["is_open"]:
        raise GalleryClosed()
    return share


async def _within_limit(its: Services, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
    most = (await its.settings.get()).gallery_per_minute_address
    address = f"gallery/address/{network.subscriber(req.remote_addr)}"
    await rates.take(its.db, resp, {address: most}, what="requests")


def _view(share_id: UUID, one: job_list.Picture, token: str) -> GalleryPicture:
    url = f"/public/galleries/{share_id}/pictures/{one.job_id}?token={quote(token)}"
    return GalleryPicture(
        job_id=one.job_id,
        finalized_at=one.finalized_at,
        width=one.width,
        height=one.height,
        url=url,
        thumbnail_url=f"{url}&size={SMALL}",
    )
