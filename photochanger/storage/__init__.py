"""Where pictures lie: named by storage keys (``results/<job_id>.jpg``), never by paths.

Keys begin with one of ``KINDS``. A process writes to a temporary file first; ``adopt`` makes it appear under its
key in one step, so that nobody ever sees half a picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from photochanger.failures import Unavailable

PAYLOADS, RESULTS, TEMPLATES, THUMBNAILS = "payloads", "results", "templates", "thumbnails"
MEDIA, TEMPORARY = "media", "tmp"
KINDS = (PAYLOADS, RESULTS, TEMPLATES, THUMBNAILS, MEDIA, TEMPORARY)


class StorageAway(Unavailable):
    """The store of pictures cannot be used"""


class Storage(Protocol):
    """The store all processes of an installation share. Every method that is not ``async`` blocks: call it in a thread.

    Raises:
        StorageAway: it is another machine, and cannot be reached: all but ``temporary`` and ``free_bytes``.
    """

    def temporary(self) -> Path:
        """A fresh path on this machine, for a file that is not finished yet."""
        ...

    def adopt(self, temporary: Path, key: str, *, durable: bool) -> None:
        """Moves a finished file to ``key``. ``durable``: it survives a power cut once this returns.

        Raises:
            StorageFull: there is no room.
        """
        ...

    async def put(self, temporary: Path, key: str, *, durable: bool) -> None:
        """``adopt``, in a thread where it takes one."""
        ...

    def away(self) -> str | None:
        """Why it cannot be used, as far as is known without asking. Does not block."""
        ...

    async def here(self, key: str) -> Path:
        """Where ``key``'s bytes can be read on this machine for the next minutes. Whether they are there shows when it
        is opened, or here.

        Raises:
            ValueError: not a key.
            FileNotFoundError: it is not there.
        """
        ...

    def read(self, key: str) -> Iterator[bytes]:
        """``key``'s bytes, piece by piece, leaving nothing of them on this machine.

        Raises:
            ValueError, FileNotFoundError: as ``here``.
        """
        ...

    def holds(self, key: str) -> bool:
        """Whether ``key`` is there."""
        ...

    def delete(self, *keys: str) -> int:
        """Deletes them; how many were there, as far as can be told."""
        ...

    async def remove(self, *keys: str) -> int:
        """``delete``, in a thread that nobody else waits for."""
        ...

    def marker(self) -> str:
        """Which store this is; empty where there is none."""
        ...

    def free_bytes(self) -> int:
        """Bytes that may still be written on this machine.

        Raises:
            StorageAway: its disk is not there.
        """
        ...

    def keys(self, kind: str) -> list[tuple[str, float]]:
        """Every key of a kind, with the file's age in seconds."""
        ...
