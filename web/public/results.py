"""``GET /public/results/{job_id}``: the picture for programs, a page for people, 410 from ``result_expires_at`` on."""

from __future__ import annotations

import asyncio
from datetime import datetime
from uuid import UUID

import falcon
import falcon.asgi

from photochanger import images, jobs
from photochanger.db import Row
from photochanger.deadlines import STORE_S
from photochanger.failures import Failure, InvalidRequest, ResultExpired, ResultNotFound
from photochanger.storage import THUMBNAILS
from photochanger.storage.local import full_or
from web.ingest import failure_of, send_file
from web.pages import Pages
from web.services import Services

PICTURE_CSP = "default-src 'none'; sandbox"


class StillBeingMade(ResultNotFound):
    """The picture is still being made"""

    retryable = True


class Results:
    """Results by signed link, or by plain link where the setting allows it."""

    def __init__(self, services: Services, pages: Pages) -> None:
        self._its = services
        self._pages = pages
        self._one_thumbnail = asyncio.Semaphore(1)

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
            await self._picture(req, resp, row)

    on_head = on_get

    def _wants_page(self, req: falcon.asgi.Request) -> bool:
        bytes_asked = req.has_param("size") or req.has_param("download")
        return not bytes_asked and "text/html" in (req.get_header("Accept") or "")

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
            if row["keeps_late"] and row["status"] == "timed_out" and self._may_come(row):
                raise StillBeingMade("The picture is late, and still being made", retry_after_s=1)
            raise ResultNotFound(f"No picture was made: {failure_of(row).detail}")
        if row["now"] >= row["result_expires_at"]:
            raise ResultExpired()
        return row

    @staticmethod
    def _may_come(row: Row) -> bool:
        """Whether a call that ran at the deadline may still bring its picture."""
        late_s: float = (row["now"] - row["expires_at"]).total_seconds()
        return row["claim_no"] > 0 and late_s < jobs.LATE_S + STORE_S

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

    async def _picture(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, row: Row) -> None:
        self._common(resp, row)
        size = req.get_param_as_int("size")
        if size is not None:
            await self._thumbnail(req, resp, row, size)
            return
        resp.etag = row["result_sha256"]
        resp.set_header("Accept-Ranges", "bytes")
        resp.content_type = row["result_mime"]
        kind = "attachment" if req.get_param_as_bool("download", blank_as_true=True) else "inline"
        name = f"{row['id']}.{images.EXTENSIONS[row['result_mime']]}"
        resp.set_header("Content-Disposition", f'{kind}; filename="{name}"')
        if not_modified(req, resp, row["result_sha256"], row["finalized_at"]):
            return
        path = self._its.storage.path(row["result_file_path"])
        total = row["result_bytes"]
        span = asked_range(req, total, row["result_sha256"])
        if span is None:
            await send_file(resp, path, total)
            return
        first, last = span
        resp.status = 206
        resp.set_header("Content-Range", f"bytes {first}-{last}/{total}")
        await send_file(resp, path, total, start=first, length=last - first + 1)

    def _common(self, resp: falcon.asgi.Response, row: Row) -> None:
        resp.set_header("PhotoChanger-Result-Expires-At", row["result_expires_at"].isoformat())
        resp.set_header("X-Content-Type-Options", "nosniff")
        resp.set_header("Content-Security-Policy", PICTURE_CSP)
        resp.set_header("Cache-Control", "private")
        resp.expires = row["result_expires_at"]
        resp.last_modified = row["finalized_at"]

    async def _thumbnail(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, row: Row, size: int) -> None:
        if size not in images.THUMBNAIL_EDGES:
            raise InvalidRequest(f"size must be one of {', '.join(map(str, images.THUMBNAIL_EDGES))}")
        etag = f"{row['result_sha256']}-{size}"
        resp.etag = etag
        resp.content_type = "image/webp"
        if not_modified(req, resp, etag, row["finalized_at"]):
            return
        path = self._its.storage.path(f"{THUMBNAILS}/{row['id']}-{size}.webp")
        if not await asyncio.to_thread(path.exists):
            async with self._one_thumbnail:
                await asyncio.to_thread(self._make_thumbnail, row, size)
        try:
            size_bytes = (await asyncio.to_thread(path.stat)).st_size
        except FileNotFoundError:
            raise ResultExpired() from None
        await send_file(resp, path, size_bytes)

    def _make_thumbnail(self, row: Row, size: int) -> None:
        key = f"{THUMBNAILS}/{row['id']}-{size}.webp"
        if self._its.storage.path(key).exists():
            return
        try:
            small = images.thumbnail(self._its.storage.path(row["result_file_path"]), size)
        except FileNotFoundError:
            raise ResultExpired() from None
        temporary = self._its.storage.temporary()
        try:
            temporary.write_bytes(small)
            self._its.storage.adopt(temporary, key, durable=False)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise full_or(error) from error


def not_modified(req: falcon.asgi.Request, resp: falcon.asgi.Response, etag: str, modified: datetime) -> bool:
    """RFC 9110's preconditions for a read; makes ``resp`` a 304 where it may be."""
    tags = req.if_none_match
    if tags is not None:
        fresh = any(tag == "*" or tag == etag for tag in tags)
    else:
        try:
            since = req.if_modified_since
        except falcon.HTTPInvalidHeader:  # to be ignored: RFC 9110, 13.1.3
            since = None
        fresh = since is not None and modified.replace(microsecond=0) <= since
    if fresh:
        resp.status = 304
    return fresh


def asked_range(req: falcon.asgi.Request, total: int, etag: str) -> tuple[int, int] | None:
    """The first and last byte of a single asked range; ``None`` for the whole.

    Raises:
        falcon.HTTPRangeNotSatisfiable: 416.
    """
    if req.method != "GET":  # RFC 9110, 14.2
        return None
    condition = req.get_header("If-Range")
    if condition is not None and condition.strip('"') != etag:
        return None
    try:
        span = req.range if req.range_unit == "bytes" else None
    except falcon.HTTPInvalidHeader:
        return None  # several ranges, or nonsense: the whole is a right answer
    if span is None:
        return None
    first, last = span
    if first < 0:
        first, last = max(0, total + first), total - 1
    if last < 0 or last >= total:
        last = total - 1
    if first > last:
        raise falcon.HTTPRangeNotSatisfiable(total)
    return first, last
