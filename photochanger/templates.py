"""Template media: permanent reference pictures that slot settings point at by id."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from PIL import Image

from photochanger import images
from photochanger.db import Database, Row
from photochanger.failures import InvalidImage, InvalidSettings
from photochanger.providers import Template
from photochanger.storage import TEMPLATES, Storage

#: Rung settings that hold a template's id, or several.
SETTINGS = ("template", "templates")
MAX_PIXELS = 60_000_000
#: Pixels of the longer side a template is stored with: what the largest model makes (4K).
MAX_EDGE = 4096


async def add(db: Database, storage: Storage, source: Path, *, name: str) -> UUID:
    """Checks a picture, stores it and returns its new id.

    It is stored as our own encoder writes it: upright, without metadata, at most ``MAX_EDGE``; as PNG where it has
    transparency or was one, else as JPEG: what every provider takes.

    Raises:
        InvalidImage, ImageTooLarge, UnsupportedMediaType: nothing was stored.
    """
    template_id = uuid4()
    temporary = storage.temporary()
    try:
        mime, width, height, size, sha256 = await asyncio.to_thread(_made_ours, source, temporary)
        key = f"{TEMPLATES}/{template_id}.{images.EXTENSIONS[mime]}"
        await asyncio.to_thread(storage.adopt, temporary, key, durable=True)
    except FileNotFoundError:
        raise InvalidImage(f"There is no file {source}") from None
    finally:
        temporary.unlink(missing_ok=True)
    await db.fetch(
        "INSERT INTO template_media (id, name, storage_key, mime, width, height, bytes, sha256) VALUES "
        "(%(id)s, %(name)s, %(key)s, %(mime)s, %(width)s, %(height)s, %(bytes)s, %(sha256)s)",
        {
            "id": template_id,
            "name": name,
            "key": key,
            "mime": mime,
            "width": width,
            "height": height,
            "bytes": size,
            "sha256": sha256,
        },
    )
    return template_id


def _made_ours(source: Path, target: Path) -> tuple[str, int, int, int, str]:
    was = images.probe(source, max_pixels=MAX_PIXELS).mime
    picture = images.decode(source, max_pixels=MAX_PIXELS)
    if max(picture.size) > MAX_EDGE:
        picture.thumbnail((MAX_EDGE, MAX_EDGE), Image.Resampling.LANCZOS)
    mime = "image/png" if picture.mode == "RGBA" or was == "image/png" else "image/jpeg"
    return mime, *images.write(picture, target, mime)


def named(settings: Mapping[str, Any]) -> dict[str, list[str]]:
    """The ids of the templates that ``settings`` name, by setting."""
    found = {name: settings.get(name) or [] for name in SETTINGS}
    return {name: [ids] if isinstance(ids, str) else list(ids) for name, ids in found.items() if ids}


async def listing(db: Database) -> list[Row]:
    """Every template, newest first."""
    return await db.fetch(
        "SELECT id, name, mime, width, height, bytes, created_at FROM template_media "
        "ORDER BY created_at DESC LIMIT 1000"
    )


async def files(db: Database, storage: Storage, settings: Mapping[str, Any]) -> dict[str, list[Template]]:
    """The templates that ``settings`` name, by setting, in their order.

    Raises:
        InvalidSettings: a template is gone.
    """
    wanted = named(settings)
    if not wanted:
        return {}
    ids = sorted({one for group in wanted.values() for one in group})
    rows = await db.fetch(
        "SELECT id::text, storage_key, mime FROM template_media WHERE id = ANY(%(ids)s::uuid[])", {"ids": ids}
    )
    found = {row["id"]: Template(storage.path(row["storage_key"]), row["mime"]) for row in rows}
    if missing := set(ids) - set(found):
        raise InvalidSettings(f"The template {min(missing)} is gone")
    return {name: [found[one] for one in group] for name, group in wanted.items()}
