"""Temporary public media: copies of a job's pictures that a provider fetches by URL while the job runs.

Unguessable, of one job, dead at the job's deadline and as soon as the job is final; or registered by an administrator
for as long as a photo may take.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable
from pathlib import Path
from uuid import UUID, uuid4

from photochanger import audit, images, retention
from photochanger.db import Database, Row, fetch
from photochanger.image_pool import ImagePool
from photochanger.storage import MEDIA, Storage

#: 160 bits.
ID_BYTES = 20


async def publish(
    db: Database, storage: Storage, job_id: UUID, picture: Path, mime: str, *, patience_s: float = 0.0
) -> str | None:
    """Moves ``picture``, a temporary file, to where ``/public/media/{id}`` finds it. The id; ``None`` when the job is
    final or overdue already.

    It lives until the job's ``expires_at``, which is never later than ``created_at + T_sync_response``
    (``deadlines.temporary_expires_at``). ``patience_s``: how long to try while PostgreSQL is away.
    """
    media_id = secrets.token_hex(ID_BYTES)
    key = f"{MEDIA}/{job_id}-{secrets.token_hex(4)}.{images.EXTENSIONS[mime]}"
    size = (await asyncio.to_thread(picture.stat)).st_size
    await storage.put(picture, key, durable=False)
    try:
        rows = await db.fetch(
            "INSERT INTO media_object (id, job_id, storage_key, mime, bytes, expires_at) "
            "SELECT %(id)s, id, %(key)s, %(mime)s, %(bytes)s, expires_at FROM job "
            "WHERE id = %(job_id)s AND NOT is_finalized AND expires_at > clock_timestamp() "
            "ON CONFLICT (id) DO UPDATE SET mime = EXCLUDED.mime RETURNING id",  # its answer was lost: it is there
            {"id": media_id, "key": key, "mime": mime, "bytes": size, "job_id": job_id},
            patience_s=patience_s,
        )
    except BaseException:
        await retention.let_go(storage, [key], kind=MEDIA)
        raise
    if not rows:
        await retention.let_go(storage, [key], kind=MEDIA)
        return None
    return media_id


async def register(
    db: Database,
    storage: Storage,
    pool: ImagePool,
    picture: Path,
    mime: str,
    *,
    max_pixels: int,
    ttl_s: float,
    actor: str,
) -> Row:
    """Writes ``picture``, a temporary file, anew as ``mime``: upright, without metadata, at most ``images.KEPT_EDGE``;
    and moves it to where ``/public/media/{id}`` finds it for ``ttl_s`` seconds, for no job: its ``id``, ``bytes`` and
    ``expires_at``.

    Raises:
        InvalidImage, ImageTooLarge, UnsupportedMediaType, StorageFull: nothing was stored.
    """
    _, _, size, _ = await pool.rewrite(picture, picture, mime, max_pixels=max_pixels)
    media_id = secrets.token_hex(ID_BYTES)
    key = f"{MEDIA}/{uuid4()}-{secrets.token_hex(4)}.{images.EXTENSIONS[mime]}"
    await storage.put(picture, key, durable=False)
    try:
        async with db.transaction() as connection:
            rows = await fetch(
                connection,
                "INSERT INTO media_object (id, storage_key, mime, bytes, expires_at) "
                "VALUES (%(id)s, %(key)s, %(mime)s, %(bytes)s, clock_timestamp() + %(ttl_s)s * interval '1 second') "
                "RETURNING id, mime, bytes, expires_at",
                {"id": media_id, "key": key, "mime": mime, "bytes": size, "ttl_s": ttl_s},
            )
            await audit.record(connection, actor=actor, action="media.registered", target=f"media/{media_id[:8]}")
    except BaseException:
        await retention.let_go(storage, [key], kind=MEDIA)
        raise
    return rows[0]


async def find(db: Database, media_id: str) -> Row | None:
    """A media object: its ``storage_key``, ``mime``, ``bytes``, and whether it is ``live`` now."""
    rows = await db.fetch(
        "SELECT m.storage_key, m.mime, m.bytes, m.storage_key IS NOT NULL AND job.is_finalized IS NOT TRUE "
        "AND m.expires_at > clock_timestamp() AS live FROM media_object m LEFT JOIN job ON job.id = m.job_id "
        "WHERE m.id = %(id)s",
        {"id": media_id},
    )
    return rows[0] if rows else None


async def revoke(db: Database, storage: Storage, media_ids: Iterable[str]) -> int:
    """Ends media: their links answer 410 from now on, their files are deleted."""
    rows = await db.fetch(
        "WITH gone AS MATERIALIZED (SELECT id, storage_key FROM media_object "
        "WHERE id = ANY(%(ids)s) AND storage_key IS NOT NULL FOR UPDATE) "
        "UPDATE media_object m SET storage_key = NULL, revoked_at = clock_timestamp() FROM gone WHERE m.id = gone.id "
        "RETURNING gone.storage_key",
        {"ids": list(media_ids)},
    )
    return await retention.let_go(storage, [row["storage_key"] for row in rows], kind=MEDIA)
