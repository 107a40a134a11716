"""Whether what this installation stands on is there: asked by ``/readyz`` and by the doctor, answered in one place.

Each says what is wrong in an operator's words, or nothing.
"""

from __future__ import annotations

import asyncio
import os

from photochanger import schema, settings
from photochanger.db import Database
from photochanger.settings import Settings
from photochanger.storage import StorageAway
from photochanger.storage.local import LocalStorage


async def migrations(db: Database) -> str | None:
    """The database is at this version's schema."""
    at, head = await schema.current(db), await asyncio.to_thread(schema.head)
    return None if at == head else f"The database is at migration {at}, this version needs {head}"


async def storage(db: Database, store: LocalStorage) -> str | None:
    """The store is there and this database's own, and the media root can be written."""
    try:
        await asyncio.to_thread(store.marker)
    except StorageAway as error:
        return error.detail
    if refusal := await settings.wrong_media_root(db, store):
        return refusal
    return None if os.access(store.root, os.W_OK) else f"{store.root} cannot be written"


def room(free_bytes: int, current: Settings) -> str | None:
    """The disk that holds the pictures keeps its reserve."""
    return "The disk that holds the pictures is nearly full" if free_bytes < current.disk_reserve_bytes else None


async def workers(db: Database) -> str | None:
    """Some worker lives and takes messages."""
    alive = await db.fetch(
        "SELECT FROM dramatiq.worker WHERE NOT draining AND beat_at > clock_timestamp() - interval '5 s' LIMIT 1"
    )
    return None if alive else "No worker is running"
