"""Pictures on a local (or shared) disk: temporary file, fsync, rename, fsync of the folder."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from photochanger.failures import StorageFull
from photochanger.storage import KINDS, TEMPORARY, StorageAway

_KEY = re.compile(rf"({'|'.join(KINDS)})/[A-Za-z0-9][A-Za-z0-9._-]{{0,120}}")
MARKER = ".photochanger-media"
READ_BYTES = 256 * 1024
NOT_THERE = "The disk that holds the pictures is not there"


class LocalStorage:
    """Files under ``root``, which only this installation's user may read (mode 0700)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        #: The setting it comes from, and its value.
        self.name = f"PHOTOCHANGER_MEDIA_ROOT: {root}"

    def prepare(self) -> str:
        """Creates the folders and the marker. Returns the marker: the same on every process that shares this store."""
        self.make_folders()
        if not self.marker():
            made = self.temporary()
            made.write_text(uuid.uuid4().hex)
            fsync(made)
            os.replace(made, self.root / MARKER)
        return self.marker()

    def make_folders(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for kind in KINDS:
            (self.root / kind).mkdir(exist_ok=True, mode=0o700)

    def marker(self) -> str:
        """Which media root this is; empty where there is none, as when its disk is not mounted."""
        try:
            return (self.root / MARKER).read_text().strip()
        except OSError:
            return ""

    def temporary(self) -> Path:
        return self.root / TEMPORARY / uuid.uuid4().hex

    def adopt(self, temporary: Path, key: str, *, durable: bool) -> None:
        target = self.path(key)
        try:
            if durable:
                fsync(temporary)
            os.replace(temporary, target)
            if durable:
                fsync(target.parent)
        except OSError as error:
            raise full_or(error) from error

    async def put(self, temporary: Path, key: str, *, durable: bool) -> None:
        if durable:
            await asyncio.to_thread(self.adopt, temporary, key, durable=True)
        else:
            self.adopt(temporary, key, durable=False)  # a rename alone is no work for a thread

    def away(self) -> str | None:
        return None

    async def here(self, key: str) -> Path:
        return self.path(key)

    def read(self, key: str) -> Iterator[bytes]:
        with self.path(key).open("rb") as file:
            while chunk := file.read(READ_BYTES):
                yield chunk
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def holds(self, key: str) -> bool:
        return self.path(key).exists()

    def path(self, key: str) -> Path:
        """Where it lies, or would.

        Raises:
            ValueError: not a key.
        """
        if not _KEY.fullmatch(key):
            raise ValueError(f"not a storage key: {key!r}")
        return self.root / key

    def delete(self, *keys: str) -> int:
        count = 0
        for key in keys:
            with contextlib.suppress(FileNotFoundError):
                self.path(key).unlink()
                count += 1
        return count

    async def remove(self, *keys: str) -> int:
        return await asyncio.to_thread(self.delete, *keys)

    def free_bytes(self) -> int:
        try:
            return shutil.disk_usage(self.root).free
        except OSError:
            raise StorageAway(NOT_THERE, retry_after_s=10) from None

    def keys(self, kind: str) -> list[tuple[str, float]]:
        now = self._now()
        found = []
        with os.scandir(self.root / kind) as entries:
            for entry in entries:
                try:
                    found.append((f"{kind}/{entry.name}", now - entry.stat().st_mtime))
                except FileNotFoundError:
                    continue  # deleted while we looked
        return found

    def _now(self) -> float:
        """The clock that stamps the files: on a shared disk it is not this machine's."""
        probe = self.temporary()
        probe.touch()
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink()


def full_or(error: OSError) -> Exception:
    """``StorageFull`` when the disk or quota is used up, else the error itself."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull("The disk that holds the pictures is full")
    return error


def fsync(path: Path) -> None:
    """Makes what was written to a file, or which files a folder has, outlast a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
