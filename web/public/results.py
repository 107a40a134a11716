"""``GET /public/results/{job_id}``: the picture for programs, a page for people, 410 from ``result_expires_at`` on."""

from __future__ import annotations

from uuid import UUID

import falcon.asgi

from photochanger import jobs
from photochanger.db import Row
from photochanger.deadlines import STORE_S
from photochanger.failures import Failure, ResultExpired, ResultNotFound
from web.ingest import failure_of
from web.pages import Pages, wants_page
from web.services import Services


class StillBeingMade(ResultNotFound):
    """The picture is still being made"""

    retryable = True


class Results:
    """Results by signed link, or by plain link where the setting allows it."""

    def __init__(self, services: Services, pages: Pages) -> None:
        self._its = services
        self._pages = pages

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, job_id: str) -> None:
        resp.set_header("Vary", "Accept, Accept-Language")
        for_people = self._wants_page(req)
        try:
            row = await self._row(req, job_id)
        except Failure as failure:
            if not for_people:
                raise
            self._pages.failure(req, resp, failure)
            return
        if for_people:
            await self._page(req, resp, row)
        else:
            time_zone = (await self._its.settings.get()).time_zone
            await self._its.pictures.result(req, resp, row, time_zone=time_zone)

    on_head = on_get

    def _wants_page(self, req: falcon.asgi.Request) -> bool:
        bytes_asked = req.has_param("size") or req.has_param("download")
        return not bytes_asked and wants_page(req)

    async def _row(self, req: falcon.asgi.Request, job_id: str) -> Row:
        """The unexpired job that has a picture.

        Raises:
            ResultNotFound: no such job, not a genuine link, or no picture came of it.
            StillBeingMade: the job runs.
            ResultExpired: from ``result_expires_at`` on, and for a genuine link whose row is gone.
        """
        try:
            key = UUID(job_id)
        except ValueError:
            raise ResultNotFound() from None
        token = req.get_param("token") or ""
        expiry = self._its.result_links.expiry(str(key), token)
        if expiry is None and not (await self._its.settings.get()).plain_links:
            raise ResultNotFound()
        row = await jobs.find(self._its.db, key)
        if row is None:
            if expiry is not None and expiry <= await jobs.now(self._its.db):
                raise ResultExpired()
            raise ResultNotFound()
        if not row["is_finalized"]:
            raise StillBeingMade(retry_after_s=1)
        if row["result_sha256"] is None:
            if row["comes_late"] and self._may_come(row):
                raise StillBeingMade("The picture is late, and still being made", retry_after_s=1)
            raise ResultNotFound(f"No picture was made: {failure_of(row).detail}")
        if row["now"] >= row["result_expires_at"]:
            raise ResultExpired()
        return row

    @staticmethod
    def _may_come(row: Row) -> bool:
        """Whether a call that ran at the deadline may still bring its picture."""
        late_s: float = (row["now"] - row["expires_at"]).total_seconds()
        return late_s < jobs.LATE_S + STORE_S

    async def _page(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, row: Row) -> None:
        current = await self._its.settings.get()
        link = self._its.url(
            req,
            current,
            self._its.result_links,
            f"/public/results/{row['id']}",
            row["id"],
            row["result_expires_at"],
        )
        self._pages.result(req, resp, row, link)
