"""Template media: permanent reference pictures that slot settings point at by id."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from photochanger import images
from photochanger.db import Database, Row
from photochanger.failures import InvalidImage
from photochanger.storage import TEMPLATES, Storage

#: Rung settings that hold a template's id.
SETTINGS = ("template",)
MAX_PIXELS = 60_000_000


async def add(db: Database, storage: Storage, source: Path, *, name: str) -> UUID:
    """Checks a picture, stores it and returns its new id.

    Raises:
        InvalidImage, ImageTooLarge, UnsupportedMediaType: nothing was stored.
    """
    template_id = uuid4()
    try:
        await asyncio.to_thread(images.decode, source, max_pixels=MAX_PIXELS)
    except FileNotFoundError:
        raise InvalidImage(f"There is no file {source}") from None
    header = images.probe(source, max_pixels=MAX_PIXELS)
    content = source.read_bytes()
    temporary = storage.temporary()
    temporary.write_bytes(content)
    key = f"{TEMPLATES}/{template_id}.{header.extension}"
    await asyncio.to_thread(storage.adopt, temporary, key, durable=True)
    await db.fetch(
        "INSERT INTO template_media (id, name, storage_key, mime, width, height, bytes, sha256) VALUES "
        "(%(id)s, %(name)s, %(key)s, %(mime)s, %(width)s, %(height)s, %(bytes)s, %(sha256)s)",
        {
            "id": template_id,
            "name": name,
            "key": key,
            "mime": header.mime,
            "width": header.width,
            "height": header.height,
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        },
    )
    return template_id


async def listing(db: Database) -> list[Row]:
    """Every template, newest first."""
    return await db.fetch(
        "SELECT id, name, mime, width, height, bytes, created_at FROM template_media "
        "ORDER BY created_at DESC LIMIT 1000"
    )


async def files(db: Database, storage: Storage, settings: Mapping[str, Any]) -> dict[str, Path]:
    """The files of the templates that ``settings`` name, by setting.

    Raises:
        InvalidImage: a template is gone.
    """
    wanted = {name: settings[name] for name in SETTINGS if settings.get(name)}
    if not wanted:
        return {}
    keys = await _keys(db, wanted.values())
    if missing := set(wanted.values()) - set(keys):
        raise InvalidImage(f"The template {min(missing)} is gone")
    return {name: storage.path(keys[template]) for name, template in wanted.items()}


async def _keys(db: Database, ids: Iterable[str]) -> dict[str, str]:
    rows = await db.fetch(
        "SELECT id::text, storage_key FROM template_media WHERE id = ANY(%(ids)s::uuid[])", {"ids": list(ids)}
    )
    return {row["id"]: row["storage_key"] for row in rows}
