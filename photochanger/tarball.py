"""The one file of a backup: a plain tar, its manifest last, written and read as a stream.

Any tar program reads it. Of what we read ourselves no header is believed but a plain file's with a name that a backup
has: no link, no folder, no long name and no extension leads anywhere or fills the memory.
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import BinaryIO, Literal

from pydantic import BaseModel, NonNegativeInt, PositiveInt, ValidationError

from photochanger.failures import InvalidRequest
from photochanger.storage import RESULTS, TEMPLATES

DUMP, MANIFEST, MEDIA = "database.dump", "manifest.json", "media/"
NAME = re.compile(rf"{DUMP}|{MANIFEST}|{MEDIA}(?:{TEMPLATES}|{RESULTS})/[A-Za-z0-9][A-Za-z0-9._-]{{0,70}}")
BLOCK = 512
CHUNK = 1024 * 1024
#: Bytes after which what was written is brought to the disk: never so much at once that others' commits wait for it.
STEP_BYTES = 32 * CHUNK
#: A million pictures have a manifest of 130 MB.
MOST_MANIFEST_BYTES = 256 * CHUNK


class Manifest(BaseModel):
    """What a backup holds. ``files``: the SHA-256 of each; ``left_out``: keys of pictures that were not there or could
    not be read."""

    format: Literal[1] = 1
    version: str
    migration: str
    postgresql: PositiveInt
    made_at: datetime
    counts: dict[str, NonNegativeInt]
    files: dict[str, str]
    left_out: list[str]

    @property
    def keys(self) -> list[str]:
        """The storage keys of its pictures."""
        return [name.removeprefix(MEDIA) for name in self.files if name.startswith(MEDIA)]


class Writer:
    """Writes into ``file``, from its begin. ``step`` is called every ``STEP_BYTES`` and may raise."""

    def __init__(self, file: BinaryIO, step: Callable[[], None]) -> None:
        self._file = file
        self._step = step
        self._unsettled = 0
        self.files: dict[str, str] = {}

    def add(self, name: str, chunks: Iterable[bytes]) -> None:
        """Writes one file; where ``chunks`` raises, it is as if it had never begun."""
        begin, digest, size = self._file.tell(), hashlib.sha256(), 0
        try:
            self._file.write(bytes(BLOCK))
            for chunk in chunks:
                self._file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
                self._settle(len(chunk))
        except BaseException:
            self._file.seek(begin)
            self._file.truncate()
            raise
        self._file.write(bytes(-size % BLOCK))
        end = self._file.tell()
        head = tarfile.TarInfo(name)
        head.size, head.mode, head.mtime = size, 0o600, int(time.time())
        self._file.seek(begin)
        self._file.write(head.tobuf(tarfile.GNU_FORMAT))
        self._file.seek(end)
        self.files[name] = digest.hexdigest()

    def finish(self, manifest: Manifest) -> None:
        """Writes the manifest, without which nobody takes it for whole, and makes everything durable."""
        self.add(MANIFEST, [manifest.model_dump_json().encode()])
        self._file.write(bytes(2 * BLOCK))
        self._file.flush()
        os.fsync(self._file.fileno())

    def _settle(self, count: int) -> None:
        self._unsettled += count
        if self._unsettled >= STEP_BYTES:
            self._unsettled = 0
            self._step()
            self._file.flush()
            os.fdatasync(self._file.fileno())
            os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def entries(file: BinaryIO) -> Iterator[tuple[str, int, Iterator[bytes]]]:
    """Name, size and bytes of each file in ``file``, in their order.

    Raises:
        InvalidRequest: something in it is not what a backup has.
    """
    file.seek(0)
    while (block := file.read(BLOCK)).strip(b"\0"):
        begin = file.tell()
        try:
            head = tarfile.TarInfo.frombuf(block, "ascii", "strict")
        except (tarfile.HeaderError, ValueError):
            raise InvalidRequest("The file is damaged, or is no backup") from None
        if head.type != tarfile.REGTYPE or head.size < 0 or not NAME.fullmatch(head.name):
            raise InvalidRequest(f"The file holds {head.name!r}, which no backup does: nothing of it is used")
        yield head.name, head.size, _bytes(file, head.size)
        file.seek(begin + head.size + -head.size % BLOCK)


def _bytes(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size:
        chunk = file.read(min(size, CHUNK))
        if not chunk:
            raise InvalidRequest("The file ends in the middle: it was cut off")
        size -= len(chunk)
        yield chunk


def verified(file: BinaryIO) -> Manifest:
    """Reads all of ``file`` and holds it against its manifest.

    Raises:
        InvalidRequest: it is damaged, cut off, no backup, or one in a form that this version does not know.
    """
    sums: dict[str, str] = {}
    manifest: Manifest | None = None
    for name, size, chunks in entries(file):
        if manifest is not None or name in sums:
            raise InvalidRequest(f"The file holds {name!r} where no backup has it: nothing of it is used")
        if name == MANIFEST:
            manifest = _manifest(size, chunks)
            continue
        digest = hashlib.sha256()
        for chunk in chunks:
            digest.update(chunk)
        sums[name] = digest.hexdigest()
    if manifest is None:
        raise InvalidRequest("The file has no manifest at its end: it was cut off, or is no backup")
    for name in sorted(sums.keys() | manifest.files.keys() | {DUMP}):
        if sums.get(name) is None or sums[name] != manifest.files.get(name):
            raise InvalidRequest(f"The file is damaged: {name} is not what the manifest says")
    return manifest


def _manifest(size: int, chunks: Iterator[bytes]) -> Manifest:
    if size > MOST_MANIFEST_BYTES:
        raise InvalidRequest("The manifest is far too large for a backup")
    try:
        return Manifest.model_validate_json(b"".join(chunks))
    except ValidationError as error:
        raise InvalidRequest(f"The manifest is not one that this version knows: {error.errors()[0]['msg']}") from None
