"""Whether files and rows agree: every file that a row names is there and is what the row says, and no file is there
that no row names. Nothing is changed; photos may come meanwhile."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Literal

from photochanger import retention
from photochanger.db import Database
from photochanger.storage import MEDIA, PAYLOADS, RESULTS, TEMPLATES, TEMPORARY, THUMBNAILS, Storage

What = Literal["missing", "differs", "no row"]
_BATCH = 500

#: What rows say of their files. A row lets go of its file before the file goes.
_NAMED = {
    TEMPLATES: "SELECT storage_key AS key, bytes, sha256 FROM template_media WHERE storage_key IS NOT NULL",
    RESULTS: "SELECT result_file_path AS key, result_bytes AS bytes, result_sha256 AS sha256 FROM job "
    "WHERE result_file_path IS NOT NULL",
    PAYLOADS: "SELECT payload_path AS key, payload_bytes AS bytes, payload_sha256 AS sha256 FROM job "
    "WHERE payload_path IS NOT NULL",
    MEDIA: "SELECT storage_key AS key, bytes, NULL AS sha256 FROM media_object WHERE storage_key IS NOT NULL",
}


@dataclass(frozen=True)
class Difference:
    """One file, by its storage key, and what is wrong with it."""

    key: str
    what: What


@dataclass(frozen=True)
class Kind:
    """One kind of files: how many rows name one, and every difference."""

    name: str
    rows: int
    differences: list[Difference]


async def look(db: Database, storage: Storage) -> list[Kind]:
    """Every kind of files, read whole and compared.

    A file without a row is left alone until it is ``retention.ORPHAN_AGE_S`` old: its row may be about to come.
    """
    return [await _kind(db, storage, name) for name in (TEMPLATES, RESULTS, PAYLOADS, MEDIA, THUMBNAILS, TEMPORARY)]


async def _kind(db: Database, storage: Storage, name: str) -> Kind:
    found = [Difference(key, "no row") for key in sorted(await retention.strays(db, storage, name))]
    count, last = 0, ""
    while name in _NAMED:
        rows = await db.fetch(
            f"SELECT * FROM ({_NAMED[name]}) AS named WHERE key > %(last)s ORDER BY key LIMIT {_BATCH}",  # noqa: S608
            {"last": last},
        )
        if not rows:
            break
        count, last = count + len(rows), rows[-1]["key"]
        for row in rows:
            what = await asyncio.to_thread(_compare, storage, row["key"], row["bytes"], row["sha256"])
            if what is not None and await _still_named(db, name, row["key"]):
                found.append(Difference(row["key"], what))
    return Kind(name, count, found)


def _compare(storage: Storage, key: str, size: int, sha256: str | None) -> What | None:
    length, digest = 0, hashlib.sha256()
    try:
        for chunk in storage.read(key):
            length += len(chunk)
            digest.update(chunk)
    except FileNotFoundError:
        return "missing"
    return None if length == size and sha256 in (None, digest.hexdigest()) else "differs"


async def _still_named(db: Database, name: str, key: str) -> bool:
    """Whether the row has not let go of it since."""
    return bool(await db.fetch(f"SELECT FROM ({_NAMED[name]}) AS named WHERE key = %(key)s", {"key": key}))
