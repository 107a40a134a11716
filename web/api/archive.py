"""``GET /api/results/zip``: several pictures in one file, written while it is sent."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import AsyncIterator
from datetime import datetime, tzinfo
from typing import Annotated
from uuid import UUID
from zoneinfo import ZoneInfo

import falcon.asgi
from pydantic import BaseModel, ConfigDict, Field

from photochanger import images, jobs
from photochanger.db import Row
from photochanger.failures import ResultNotFound
from photochanger.storage import Storage
from web.api import needs, query
from web.services import Services

MOST = 500


class ZipQuery(BaseModel):
    """Of which jobs."""

    model_config = ConfigDict(extra="forbid")

    job_id: Annotated[list[UUID], Field(min_length=1, max_length=MOST, description="Say it once for each.")]


class ResultZip:
    """GET: those of the pictures that can still be fetched."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("jobs:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        asked = query(req, ZipQuery)
        rows = await self._its.db.fetch(jobs.FINAL_OF, {"ids": asked.job_id})
        there = [row for row in rows if row["result_file_path"] and row["now"] < row["result_expires_at"]]
        if not there:
            raise ResultNotFound("None of these pictures is here any more")
        resp.content_type = "application/zip"
        resp.set_header("Content-Disposition", 'attachment; filename="pictures.zip"')
        zone = ZoneInfo((await self._its.settings.get()).time_zone)
        resp.stream = _packed(self._its.storage, sorted(there, key=lambda row: row["created_at"]), zone)


async def _packed(storage: Storage, rows: list[Row], zone: tzinfo) -> AsyncIterator[bytes]:
    """Pictures are packed already: they are only put one behind the other. Their names tell the studio's time."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for row in rows:
            await asyncio.to_thread(_add, archive, storage, row, zone)
            yield sink.taken()
    yield sink.taken()


def _add(archive: zipfile.ZipFile, storage: Storage, row: Row, zone: tzinfo) -> None:
    at = row["created_at"].astimezone(zone)
    try:
        data = b"".join(storage.read(row["result_file_path"]))
    except FileNotFoundError:  # it expired while the others were sent
        return
    archive.writestr(zipfile.ZipInfo(_name(row, at), at.timetuple()[:6]), data)


def _name(row: Row, at: datetime) -> str:
    """
    >>> row = {"id": "7b0c3d1e-58f4", "slot_id": "slot-001", "result_mime": "image/jpeg"}
    >>> _name(row, datetime.fromisoformat("2026-12-01T00:30:59+05:00"))
    '2026-12-01/slot-001-003059-7b0c3d1e.jpg'
    """
    return f"{at:%Y-%m-%d}/{row['slot_id']}-{at:%H%M%S}-{str(row['id'])[:8]}.{images.EXTENSIONS[row['result_mime']]}"


class _Sink(io.RawIOBase):
    """What was written since it was last asked."""

    def __init__(self) -> None:
        self._waiting = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        self._waiting += data
        return len(data)

    def taken(self) -> bytes:
        waiting, self._waiting = bytes(self._waiting), bytearray()
        return waiting
