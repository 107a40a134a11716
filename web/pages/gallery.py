"""``/gallery``: every picture by slot and day, the windows opened for guests, and the slideshow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from itertools import groupby
from typing import Annotated, Any
from urllib.parse import urlencode
from uuid import UUID
from zoneinfo import ZoneInfo

import falcon.asgi
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from photochanger import galleries, job_list, jobs, slots
from photochanger.db import Row
from photochanger.failures import ResultExpired, ResultNotFound
from photochanger.job_search import Place
from photochanger.settings import Settings
from web.api import cursor, position, query
from web.api.archive import MOST
from web.api.galleries import Share, share_key, view
from web.api.jobs import job_key
from web.api.views import PictureView, picture
from web.pages import here, language_of, qr_code, words
from web.pages.frame import HEADERS, Framed, may, page

#: Pictures of a page: a few screens of them.
PICTURES = 60
#: Minutes a window may be opened for with one click.
MINUTES = (5, 15, 60, 4 * 60, 8 * 60)
_MOST_SHARES = 50

#: An empty field of a form is no filter.
_Empty = BeforeValidator(lambda value: value or None)


class SlotFilter(BaseModel):
    """Of which slot."""

    model_config = ConfigDict(extra="forbid")

    slot_id: Annotated[Annotated[str, Field(max_length=63)] | None, _Empty] = None


class GalleryFilter(SlotFilter):
    """Of which slot and day, and from where on."""

    day: Annotated[Annotated[date, Field(ge=date(2000, 1, 1), le=date(2199, 12, 31))] | None, _Empty] = None
    after: Annotated[str, Field(max_length=1024)] | None = None

    def address(self, **changes: object) -> str:
        """The page with some of what is asked for changed; ``None`` takes it away."""
        asked = {"slot_id": self.slot_id, "day": self.day} | changes
        given = {name: value for name, value in asked.items() if value is not None}
        return f"/gallery?{urlencode(given)}" if given else "/gallery"


@dataclass(frozen=True)
class Day:
    """A day's pictures, or the first of them. ``since``, ``until``: its bounds in the studio's time zone."""

    day: date
    since: datetime
    until: datetime
    pictures: list[PictureView]


class GalleryPage(Framed):
    """GET: the pictures that fit, newest first, and the open windows."""

    place = "gallery"

    @page("jobs:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        asked = query(req, GalleryFilter)
        current = await self._its.settings.get()
        zone = ZoneInfo(current.time_zone)
        found = await self._found(asked, zone)
        views = [picture(self._its, req, current, one) for one in found.pictures]
        today = (await jobs.now(self._its.db)).astimezone(zone).date()
        self.show(
            req,
            resp,
            "gallery.html",
            asked=asked,
            days=days_of(views, zone),
            older=asked.address(after=cursor(*found.next)) if found.next else None,
            today=today,
            yesterday=today - timedelta(days=1),
            slots=await slots.all_slots(self._its.db),
            shares=await self._shares(req, current),
            minutes=MINUTES,
            usual_minutes=galleries.USUAL_MINUTES,
            most_minutes=galleries.MOST_MINUTES,
            most_packed=MOST,
        )

    async def _found(self, asked: GalleryFilter, zone: tzinfo) -> job_list.Pictures:
        place = position(asked.after, datetime, UUID)
        since, until = bounds(asked.day, zone) if asked.day else (None, None)
        after = Place(*place) if place else None
        return await job_list.latest_results(self._its.db, asked.slot_id, after, PICTURES, since=since, until=until)

    async def _shares(self, req: falcon.asgi.Request, current: Settings) -> list[Share]:
        rows = await galleries.listing(self._its.db, only_open=True, limit=_MOST_SHARES)
        return [view(self._its, req, current, row) for row in rows]


class SharePage(Framed):
    """GET: one window, with a QR code that is scanned from the screen."""

    place = "gallery"

    @page("jobs:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, share_id: str) -> None:
        row = await galleries.find(self._its.db, share_key(share_id))
        share = view(self._its, req, await self._its.settings.get(), row)
        qr = qr_code(share.url, words(language_of(req))["gallery.qr"])
        self.show(req, resp, "gallery_share.html", share=share, qr=qr)


class SlideshowPage(Framed):
    """GET: the pictures one after the other, for a screen in the studio; with the code of an open window on them."""

    place = "gallery"

    @page("jobs:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        asked = query(req, SlotFilter)
        known = await slots.all_slots(self._its.db)
        opens = may(req.context.account, "jobs:write")
        filters = {"slot_id": asked.slot_id} if asked.slot_id else {}
        named = known.get(asked.slot_id or "")
        current, qr, share = await self._its.settings.get(), None, await self._share(asked.slot_id)
        link = view(self._its, req, current, share).url if share else None
        if link:
            qr = qr_code(link, words(language_of(req))["gallery.qr"])
        newest = await job_list.latest_results(self._its.db, asked.slot_id, None, 1)
        first = [picture(self._its, req, current, one).url for one in newest.pictures]
        values: dict[str, Any] = {
            "first": here(first[0]) if first else None,
            "name": named.name if named else None,
            "qr": qr,
            "link": link,
            "until": share["expires_at"] if share else None,
            "opening": f"{GalleryFilter(slot_id=asked.slot_id).address()}#opening" if not share and opens else None,
            "source": f"/api/results?{urlencode(filters)}",
            "back": GalleryFilter(slot_id=asked.slot_id).address(),
            "now": await jobs.now(self._its.db),
        }
        self._pages.render(req, resp, "slideshow.html", headers=HEADERS, gallery=None, is_first=True, **values)

    async def _share(self, slot_id: str | None) -> Row | None:
        """The window on these pictures that is open longest."""
        rows = await galleries.listing(self._its.db, only_open=True, limit=_MOST_SHARES)
        return next((row for row in rows if row["slot_id"] == slot_id), None)


class ResultQr(Framed):
    """GET: the QR code of a picture's link, drawn."""

    @page("jobs:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, job_id: str) -> None:
        row = await jobs.find(self._its.db, job_key(job_id))
        if row is None or not row["result_sha256"]:
            raise ResultNotFound()
        if row["now"] >= row["result_expires_at"]:
            raise ResultExpired()
        current = await self._its.settings.get()
        link = self._its.result_url(req, current, row["id"], row["result_expires_at"])
        drawn = qr_code(link, words(language_of(req))["result.qr"])
        resp.content_type = "image/svg+xml"
        # As text: what is put into markup is escaped.
        resp.text = str(drawn).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
        for header, value in HEADERS.items():
            resp.set_header(header, value)


def bounds(day: date, zone: tzinfo) -> tuple[datetime, datetime]:
    """When a day begins, and the next one.

    >>> [one.isoformat() for one in bounds(date(2026, 3, 29), ZoneInfo("Europe/Berlin"))]
    ['2026-03-29T00:00:00+01:00', '2026-03-30T00:00:00+02:00']
    """
    return datetime.combine(day, time(), zone), datetime.combine(day + timedelta(days=1), time(), zone)


def days_of(views: Iterable[PictureView], zone: tzinfo) -> list[Day]:
    """Pictures, newest first, by the day they came on."""
    by_day = groupby(views, key=lambda one: one.created_at.astimezone(zone).date())
    return [Day(day, *bounds(day, zone), list(pictures)) for day, pictures in by_day]
