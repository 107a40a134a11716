"""Takes a photo off the wire: streamed to disk, hashed while read, bounded in every direction, looked at by header.

Nothing of it is held in memory beyond one megabyte, and whatever goes wrong leaves no file.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import falcon
import falcon.asgi
from falcon.asgi.multipart import BodyPart

from photochanger import images
from photochanger.failures import InvalidImage, InvalidRequest, PayloadTooLarge
from photochanger.images import Header
from photochanger.storage import Storage, StorageAway
from photochanger.storage.local import NOT_THERE, full_or
from web.api import form
from web.exchange import Exchange

FILE_FIELDS = ("fileToUpload", "file", "image", "photo")
PASSWORD_FIELD = "password"  # noqa: S105 - the field's name
MAX_FIELD_BYTES = 64 * 1024
MAX_PARTS = 20
MAX_PART_HEAD_BYTES = 8 * 1024
#: Bytes that may come before the first part begins; a form's first bytes are its boundary.
MAX_PREAMBLE_BYTES = 1024 * 1024
#: Bytes of a form beside its photo.
FORM_BYTES = MAX_PARTS * MAX_FIELD_BYTES
#: Seconds for a form that nobody waits for the answer of: 50 MiB at 1.4 Mbit/s.
FORM_S = 300.0
CHUNK_BYTES = 1024 * 1024
READ_BYTES = 64 * 1024


@dataclass
class Upload:
    """A received form. ``photo`` is a temporary file: adopt it, or it is deleted."""

    photo: Path
    header: Header
    bytes: int
    sha256: str
    fields: dict[str, str] = field(default_factory=dict)


@dataclass
class _Stored:
    bytes: int
    sha256: str
    header: Header


@asynccontextmanager
async def received(
    req: falcon.asgi.Request,
    storage: Storage,
    *,
    exchange: Exchange,
    max_bytes: int,
    max_pixels: int,
    check_password: Callable[[str], Awaitable[None]] | None,
    within_s: float = FORM_S,
) -> AsyncIterator[Upload]:
    """The photo and fields of a multipart request; the file is gone afterwards unless it was moved away.

    ``check_password`` is awaited as soon as the password part is there, before what comes behind it is read; ``None``:
    the form needs none, its sender is known. ``within_s``: from the request to the form's end, in seconds.

    Raises:
        InvalidRequest: malformed form; missing, empty or doubled password or photo.
        PayloadTooLarge, UnsupportedMediaType, InvalidImage, ImageTooLarge, StorageFull, SlowBody, and what
        ``check_password`` raises.
    """
    exchange.within_s = within_s
    limit = max_bytes + FORM_BYTES
    if (req.content_length or 0) > limit:
        raise PayloadTooLarge(_too_large(max_bytes))
    exchange.limit = MAX_PREAMBLE_BYTES
    exchange.over = lambda: InvalidRequest("The form does not begin with its boundary")
    temporary = storage.temporary()
    try:
        fields: dict[str, str] = {}
        stored: _Stored | None = None
        async for part in await form(req, falcon.MEDIA_MULTIPART):
            exchange.limit = limit
            exchange.over = lambda: PayloadTooLarge(_too_large(max_bytes))
            name = _name(part)
            if name in FILE_FIELDS:
                if stored is not None:
                    raise InvalidRequest("The form has more than one photo")
                stored = await _store(part, temporary, max_bytes=max_bytes, max_pixels=max_pixels)
            else:
                value = await _text(part, name)
                if name == PASSWORD_FIELD and check_password is not None:
                    if PASSWORD_FIELD in fields:
                        raise InvalidRequest("The form has more than one password")
                    await check_password(value)
                    fields[PASSWORD_FIELD] = ""  # seen, and never kept
                else:
                    fields[name] = value
        if check_password is not None and fields.pop(PASSWORD_FIELD, None) is None:
            raise InvalidRequest("The form has no field “password”")
        if stored is None:
            raise InvalidRequest(f"The form has no photo; its field is “{FILE_FIELDS[0]}”")
        yield Upload(temporary, stored.header, stored.bytes, stored.sha256, fields)
    finally:
        if temporary.exists():
            await asyncio.shield(asyncio.to_thread(temporary.unlink, missing_ok=True))


def _name(part: BodyPart) -> str:
    """A part's name. Camera programs write file names in the code page of their machine, which Falcon would refuse."""
    head = part._headers.get(b"content-disposition", b"")
    part._headers[b"content-disposition"] = head.decode("utf-8", "replace").encode()
    return _storable(part.name or "")


def _storable(text: str) -> str:
    """PostgreSQL's text holds no NUL; everything else is kept as it came."""
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}")


async def _text(part: BodyPart, name: str) -> str:
    data = await part.stream.read(MAX_FIELD_BYTES + 1)
    if len(data) > MAX_FIELD_BYTES:
        raise PayloadTooLarge(f"The field “{name[:60]}” is larger than {MAX_FIELD_BYTES // 1024} KiB")
    return _storable(data.decode("utf-8", "replace"))


async def _store(part: BodyPart, temporary: Path, *, max_bytes: int, max_pixels: int) -> _Stored:
    digest = hashlib.sha256()
    size = 0
    chunk = bytearray()
    first = True

    def write(data: bytes) -> None:
        digest.update(data)
        try:
            with temporary.open("ab") as file:
                file.write(data)
        except FileNotFoundError:
            raise StorageAway(NOT_THERE, retry_after_s=10) from None
        except OSError as error:
            raise full_or(error) from error

    while data := await part.stream.read(READ_BYTES):
        chunk += data
        size += len(data)
        if size > max_bytes:
            raise PayloadTooLarge(_too_large(max_bytes))
        if len(chunk) >= CHUNK_BYTES:
            if first:
                await asyncio.to_thread(images.probe_head, bytes(chunk), max_pixels=max_pixels)
                first = False
            await asyncio.to_thread(write, bytes(chunk))
            chunk.clear()
    if not size:
        raise InvalidImage("The photo is empty")

    def finish() -> Header:
        write(bytes(chunk))
        return images.probe(temporary, max_pixels=max_pixels)

    header = await asyncio.to_thread(finish)
    return _Stored(size, digest.hexdigest(), header)


def _too_large(max_bytes: int) -> str:
    return f"A photo may have at most {max_bytes / 1024**2:g} MiB"
