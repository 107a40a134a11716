"""Where pictures lie: named by storage keys (``results/<job_id>.jpg``), never by paths.

Keys begin with one of ``KINDS``. A process writes to a temporary file first; ``adopt`` makes it appear under its
key in one step, so that nobody ever sees half a picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

PAYLOADS, RESULTS, TEMPLATES, THUMBNAILS = "payloads", "results", "templates", "thumbnails"
MEDIA, TEMPORARY = "media", "tmp"
KINDS = (PAYLOADS, RESULTS, TEMPLATES, THUMBNAILS, MEDIA, TEMPORARY)


class Storage(Protocol):
    """The store all processes of an installation share. Every method blocks: call it in a thread."""

    def temporary(self) -> Path:
        """A fresh path on the store's own file system, for a file that is not finished yet."""
        ...

    def adopt(self, temporary: Path, key: str, *, durable: bool) -> None:
        """Moves a finished file to ``key``. ``durable``: it survives a power cut once this returns.

        Raises:
            StorageFull: there is no room.
        """
        ...

    def path(self, key: str) -> Path:
        """Where ``key``'s bytes can be read on this machine.

        Raises:
            ValueError: not a key.
        """
        ...

    def delete(self, key: str) -> bool:
        """Deletes ``key``; False when it was not there."""
        ...

    def marker(self) -> str:
        """Which store this is; empty where there is none."""
        ...

    def free_bytes(self) -> int:
        """Bytes that may still be written."""
        ...

    def keys(self, kind: str) -> list[tuple[str, float]]:
        """Every key of a kind, with the file's age in seconds."""
        ...
