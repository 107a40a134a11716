"""Template media: permanent reference pictures that slot settings point at by id."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from photochanger import audit, images
from photochanger.db import Database, Row, fetch
from photochanger.failures import InUse, InvalidSettings, MediaNotFound
from photochanger.image_pool import ImagePool
from photochanger.providers import Template
from photochanger.storage import TEMPLATES, Storage

#: Rung settings that hold a template's id, or several.
SETTINGS = ("template", "templates")
MAX_PIXELS = 60_000_000


async def add(
    db: Database, storage: Storage, pool: ImagePool, source: Path, *, name: str, actor: str = audit.COMMAND_LINE
) -> UUID:
    """Checks a picture, stores it and returns its new id.

    It is stored as our own encoder writes it: upright, without metadata, at most ``images.KEPT_EDGE``; as PNG where it
    has transparency or was one, else as JPEG: what every provider takes.

    Raises:
        InvalidImage, ImageTooLarge, UnsupportedMediaType, StorageFull: nothing was stored.
    """
    template_id = uuid4()
    temporary = storage.temporary()
    try:
        was = await asyncio.to_thread(images.probe, source, max_pixels=MAX_PIXELS)
        mime = "image/png" if was.has_alpha or was.mime == "image/png" else "image/jpeg"
        width, height, size, sha256 = await pool.rewrite(source, temporary, mime, max_pixels=MAX_PIXELS)
        key = f"{TEMPLATES}/{template_id}.{images.EXTENSIONS[mime]}"
        await storage.put(temporary, key, durable=True)
    finally:
        temporary.unlink(missing_ok=True)
    values = {
        "id": template_id,
        "name": name,
        "key": key,
        "mime": mime,
        "width": width,
        "height": height,
        "bytes": size,
        "sha256": sha256,
    }
    async with db.transaction() as connection:
        await fetch(
            connection,
            "INSERT INTO template_media (id, name, storage_key, mime, width, height, bytes, sha256) VALUES "
            "(%(id)s, %(name)s, %(key)s, %(mime)s, %(width)s, %(height)s, %(bytes)s, %(sha256)s)",
            values,
        )
        target = f"template/{template_id}"
        await audit.record(connection, actor=actor, action="template.added", target=target, detail={"name": name})
    return template_id


_NAMED_BY = """
SELECT DISTINCT slot.id FROM slot, jsonb_array_elements(route->'rungs') AS rung
WHERE archived_at IS NULL AND (rung #>> '{settings,template}' = %(id)s OR rung #> '{settings,templates}' ? %(id)s)
ORDER BY slot.id
"""


async def delete(db: Database, storage: Storage, template_id: UUID, *, force: bool = False, actor: str) -> list[str]:
    """Deletes a template and its file; the slots that name it all the same.

    Raises:
        MediaNotFound: there is none.
        InUse: slots name it, and it is not ``force``d: their photos would fail.
    """
    async with db.transaction() as connection:
        rows = await fetch(
            connection,
            "SELECT name, storage_key FROM template_media WHERE id = %(id)s FOR UPDATE",
            {"id": template_id},
        )
        if not rows:
            raise MediaNotFound(f"There is no template {template_id}")
        used = [row["id"] for row in await fetch(connection, _NAMED_BY, {"id": str(template_id)})]
        if used and not force:
            raise InUse(f"{rows[0]['name']} is used by {', '.join(used)}")
        await fetch(connection, "DELETE FROM template_media WHERE id = %(id)s", {"id": template_id})
        target, detail = f"template/{template_id}", {"name": rows[0]["name"], "used_by": used}
        await audit.record(connection, actor=actor, action="template.deleted", target=target, detail=detail)
    await asyncio.to_thread(storage.delete, rows[0]["storage_key"])
    return used


def named(settings: Mapping[str, Any]) -> dict[str, list[str]]:
    """The ids of the templates that ``settings`` name, by setting."""
    found = {name: settings.get(name) or [] for name in SETTINGS}
    return {name: [ids] if isinstance(ids, str) else list(ids) for name, ids in found.items() if ids}


_COLUMNS = "id, name, mime, width, height, bytes, created_at"


async def listing(db: Database, *, after: tuple[datetime, UUID] | None = None, limit: int = 1000) -> list[Row]:
    """Templates, newest first; those behind ``after``."""
    return await db.fetch(
        f"SELECT {_COLUMNS} FROM template_media "  # noqa: S608 - our own constant
        "WHERE %(at)s::timestamptz IS NULL OR (created_at, id) < (%(at)s, %(id)s::uuid) "
        "ORDER BY created_at DESC, id DESC LIMIT %(limit)s",
        {"at": after and after[0], "id": after and after[1], "limit": limit},
    )


async def find(db: Database, template_id: UUID) -> Row:
    """One template, with its ``storage_key`` and ``sha256``.

    Raises:
        MediaNotFound: there is none.
    """
    rows = await db.fetch(
        f"SELECT {_COLUMNS}, storage_key, sha256 FROM template_media WHERE id = %(id)s",  # noqa: S608
        {"id": template_id},
    )
    if not rows:
        raise MediaNotFound(f"There is no template {template_id}")
    return rows[0]


async def files(db: Database, storage: Storage, settings: Mapping[str, Any]) -> dict[str, list[Template]]:
    """The templates that ``settings`` name, by setting, in their order.

    Raises:
        InvalidSettings: a template is gone.
        FileNotFoundError: its file is.
        StorageAway: it cannot be fetched.
    """
    wanted = named(settings)
    if not wanted:
        return {}
    ids = sorted({one for group in wanted.values() for one in group})
    rows = await db.fetch(
        "SELECT id::text, storage_key, mime FROM template_media WHERE id = ANY(%(ids)s::uuid[])", {"ids": ids}
    )
    found = {row["id"]: Template(await storage.here(row["storage_key"]), row["mime"]) for row in rows}
    if missing := set(ids) - set(found):
        raise InvalidSettings(f"The template {min(missing)} is gone")
    return {name: [found[one] for one in group] for name, group in wanted.items()}
