"""How pictures go out: whole files, ranges and thumbnails of results, with the headers that keep them harmless."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import falcon
import falcon.asgi

from photochanger import images
from photochanger.db import Row
from photochanger.failures import Failure, InvalidRequest, ResultExpired, Unavailable
from photochanger.image_pool import ImagePool
from photochanger.storage import THUMBNAILS, Storage, StorageAway
from photochanger.storage.local import NOT_THERE, full_or

PICTURE_CSP = "default-src 'none'; sandbox"
READ_BYTES = 256 * 1024
#: Seconds for one thumbnail: 110 megapixels of PNG take four.
THUMBNAIL_S = 20.0


class Pictures:
    """Sends results; one thumbnail is made at a time, in a guarded process of ``pool``."""

    def __init__(self, storage: Storage, pool: ImagePool) -> None:
        self._storage = storage
        self._pool = pool
        self._one_thumbnail = asyncio.Semaphore(1)

    async def result(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, row: Row, *, time_zone: str) -> None:
        """A job's unexpired result: whole, a range, or as a thumbnail of ``?size=``; its file is named in the studio's
        ``time_zone``."""
        self._common(resp, row)
        size = req.get_param_as_int("size")
        if size is not None:
            await self._thumbnail(req, resp, row, size)
            return
        resp.etag = row["result_sha256"]
        resp.set_header("Accept-Ranges", "bytes")
        resp.content_type = row["result_mime"]
        kind = "attachment" if req.get_param_as_bool("download", blank_as_true=True) else "inline"
        name = file_name(row["finalized_at"], row["result_mime"], time_zone)
        resp.set_header("Content-Disposition", f'{kind}; filename="{name}"')
        if not_modified(req, resp, row["result_sha256"], row["finalized_at"]):
            return
        key, total = row["result_file_path"], row["result_bytes"]
        span = asked_range(req, total, row["result_sha256"])
        if span is None:
            await self.send(resp, key, total)
            return
        first, last = span
        resp.status = 206
        resp.set_header("Content-Range", f"bytes {first}-{last}/{total}")
        await self.send(resp, key, total, start=first, length=last - first + 1)

    async def send(
        self, resp: falcon.asgi.Response, key: str, size: int, *, start: int = 0, length: int | None = None
    ) -> None:
        """Sends ``length`` bytes of a stored picture of ``size`` from ``start``, all of them without one. The file is
        opened first: once opened, it is sent whole, whatever a cleaner does meanwhile.

        Raises:
            ResultExpired: it is gone.
            StorageAway: it cannot be fetched, or the disk is not there.
        """
        try:
            await _send_file(resp, await self._storage.here(key), start, size if length is None else length)
        except FileNotFoundError:
            raise await self._gone() from None

    async def whole(self, key: str) -> bytes:
        """A stored picture's bytes.

        Raises:
            ResultExpired, StorageAway: as ``send``.
        """
        try:
            path = await self._storage.here(key)
            return await asyncio.to_thread(path.read_bytes)
        except FileNotFoundError:
            raise await self._gone() from None

    async def _gone(self) -> Failure:
        """Why a file that should be there is not: it was deleted, or its disk is away."""
        if await asyncio.to_thread(self._storage.marker):
            return ResultExpired()
        return StorageAway(NOT_THERE, retry_after_s=10)

    def _common(self, resp: falcon.asgi.Response, row: Row) -> None:
        resp.set_header("PhotoChanger-Result-Expires-At", row["result_expires_at"].isoformat())
        resp.set_header("X-Content-Type-Options", "nosniff")
        resp.set_header("Content-Security-Policy", PICTURE_CSP)
        resp.set_header("Cache-Control", "private")
        resp.expires = row["result_expires_at"]
        resp.last_modified = row["finalized_at"]

    async def _thumbnail(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, row: Row, size: int) -> None:
        size = thumbnail_edge(size)
        etag = f"{row['result_sha256']}-{size}"
        resp.etag = etag
        resp.content_type = "image/webp"
        if not_modified(req, resp, etag, row["finalized_at"]):
            return
        key = f"{THUMBNAILS}/{row['id']}-{size}.webp"
        there = await self._sized(key)
        if there is None:
            async with self._one_thumbnail:
                if (there := await self._sized(key)) is None:
                    await self._keep(await self._made_small(row["result_file_path"], size), key)
                    there = await self._sized(key)
        if there is None:
            raise ResultExpired()
        path, length = there
        await _send_file(resp, path, 0, length)

    async def _sized(self, key: str) -> tuple[Path, int] | None:
        """Where a file is and its bytes; ``None`` where it is not."""
        try:
            path = await self._storage.here(key)
            return path, (await asyncio.to_thread(path.stat)).st_size
        except FileNotFoundError:
            return None

    async def _made_small(self, key: str, size: int) -> bytes:
        try:
            path = await self._storage.here(key)
            return await self._pool.run(images.thumbnail, path, size, timeout_s=THUMBNAIL_S)
        except FileNotFoundError:
            raise await self._gone() from None
        except TimeoutError:
            raise Unavailable("The small picture was not made in time", retry_after_s=THUMBNAIL_S) from None

    async def _keep(self, small: bytes, key: str) -> None:
        temporary = self._storage.temporary()
        try:
            await asyncio.to_thread(temporary.write_bytes, small)
            await self._storage.put(temporary, key, durable=False)
        except OSError as error:
            raise full_or(error) from error
        finally:
            temporary.unlink(missing_ok=True)

    async def small(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, row: Row, size: int) -> None:
        """A small picture of any stored file: ``storage_key``, ``sha256``, ``modified_at``. It is not kept."""
        size = thumbnail_edge(size)
        etag = f"{row['sha256']}-{size}"
        resp.etag = etag
        resp.content_type = "image/webp"
        if not_modified(req, resp, etag, row["modified_at"]):
            return
        async with self._one_thumbnail:
            resp.data = await self._made_small(row["storage_key"], size)


def file_name(finished_at: datetime, mime: str, time_zone: str) -> str:
    """What a guest's file is called: when the picture was finished, on the studio's clock.

    >>> file_name(datetime.fromisoformat("2026-11-30T14:30:59Z"), "image/jpeg", "Asia/Yekaterinburg")
    'photo-2026-11-30-193059.jpg'
    """
    return f"photo-{finished_at.astimezone(ZoneInfo(time_zone)):%Y-%m-%d-%H%M%S}.{images.EXTENSIONS[mime]}"


def thumbnail_edge(size: int) -> int:
    """
    Raises:
        InvalidRequest: thumbnails have no such size.
    """
    if size not in images.THUMBNAIL_EDGES:
        raise InvalidRequest(f"size must be one of {', '.join(map(str, images.THUMBNAIL_EDGES))}")
    return size


async def _send_file(resp: falcon.asgi.Response, path: Path, start: int, length: int) -> None:
    if length <= READ_BYTES * 4:
        resp.data = _read_cached(path, start, length) or await asyncio.to_thread(_read, path, start, length)
        return
    file = await asyncio.to_thread(path.open, "rb")

    async def chunks() -> AsyncIterator[bytes]:
        with file:
            file.seek(start)
            left = length
            while left and (chunk := await asyncio.to_thread(file.read, min(READ_BYTES, left))):
                left -= len(chunk)
                yield chunk

    resp.content_length = length
    resp.stream = chunks()


def _read_cached(path: Path, start: int, length: int) -> bytes | None:
    """What the system has in memory, as it has of a picture just made: two hand-overs fewer than by a thread.
    ``None``: a disk would have to be waited for."""
    data = bytearray(length)
    with path.open("rb") as file:
        try:
            whole = os.preadv(file.fileno(), [data], start, os.RWF_NOWAIT) == length
        except (OSError, AttributeError):  # not in memory; a file system, or a system, that cannot tell
            return None
    return bytes(data) if whole else None


def _read(path: Path, start: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(length)


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
