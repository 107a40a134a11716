"""What is deleted when: overdue jobs, expired results, kept originals, temporary files, old rows.

Every sweep works in batches, decides by the database's clock and may run anywhere, any number of times at once. A row
lets go of its file first; a file without a row is swept by age.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from uuid import UUID

from photochanger import images, jobs, logs, metrics, settings
from photochanger.db import Database
from photochanger.failures import Unavailable
from photochanger.jobs import Final
from photochanger.storage import MEDIA, PAYLOADS, RESULTS, TEMPLATES, TEMPORARY, THUMBNAILS, Storage, StorageAway

BATCH = 500
#: A file this old that no row knows was left by a process that died between writing and committing: longer than any
#: job can take from its first byte to its end.
ORPHAN_AGE_S = 600.0
#: Seconds that somebody waits for a deletion.
LET_GO_S = 1.0
DEAD_LETTER_DAYS = 30


async def drop_payloads(storage: Storage, finals: Iterable[Final | None]) -> int:
    """Deletes the originals of jobs that just became final."""
    keys = [final.drop_payload for final in finals if final is not None and final.drop_payload]
    return await let_go(storage, keys, kind=PAYLOADS)


class Handed:
    """``over``: somebody else sees to the file from now on."""

    over = False


@contextlib.asynccontextmanager
async def until_handed_over(storage: Storage, key: str) -> AsyncIterator[Handed]:
    """A photo's file, deleted at the end unless it was handed over to a job. It stays where PostgreSQL was lost: it may
    have made the job and not said so; ``clean_orphans`` finds the file if it has not."""
    handed = Handed()
    try:
        yield handed
    except Unavailable:
        handed.over = True
        raise
    finally:
        if not handed.over:
            await let_go(storage, [key], kind=PAYLOADS)


async def let_go(storage: Storage, keys: Iterable[str], *, kind: str) -> int:
    """Deletes what no row names any more, as far as that is quickly done: nobody waits for it, and ``clean_orphans``
    finds the rest. It goes on when the caller is cancelled."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LET_GO_S):
            return await asyncio.shield(_deleted(storage, keys, kind))
    return 0


async def _deleted(storage: Storage, keys: Iterable[str], kind: str) -> int:
    try:
        return await delete(storage, keys, kind=kind)
    except (StorageAway, OSError):
        logs.event("scratch.left", exc_info=True)
        return 0


async def delete(storage: Storage, keys: Iterable[str], *, kind: str) -> int:
    keys = list(keys)
    if not keys:
        return 0
    count = await storage.remove(*keys)
    metrics.CLEANUPS.labels(kind).inc(count)
    return count


async def expire_overdue(db: Database, storage: Storage, job_ids: Iterable[UUID] | None = None) -> int:
    """Times out what is overdue and deletes its originals."""
    finals = await jobs.expire(db, job_ids)
    if finals:
        metrics.TIMEOUTS.inc(len(finals))
        logs.event("job.timed_out", count=len(finals), jobs=[str(final.job_id) for final in finals])
        await drop_payloads(storage, finals)
    return len(finals)


_RESULTS = """
WITH gone AS MATERIALIZED (
    SELECT id, result_file_path FROM job
    WHERE result_file_path IS NOT NULL AND result_expires_at <= clock_timestamp()
    ORDER BY result_expires_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED
)
UPDATE job SET result_file_path = NULL FROM gone WHERE job.id = gone.id
RETURNING gone.id::text AS id, gone.result_file_path AS key
"""
_ORIGINALS = """
WITH gone AS MATERIALIZED (
    SELECT id, payload_path FROM job
    WHERE is_finalized AND payload_path IS NOT NULL AND payload_expires_at <= clock_timestamp()
    ORDER BY payload_expires_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED
)
UPDATE job SET payload_path = NULL FROM gone WHERE job.id = gone.id
RETURNING gone.id::text AS id, gone.payload_path AS key
"""
_HISTORY = """
DELETE FROM job WHERE id IN (
    SELECT id FROM job WHERE created_at < clock_timestamp() - %(days)s * interval '1 day'
      AND is_finalized AND result_file_path IS NULL AND payload_path IS NULL
      AND NOT EXISTS (SELECT FROM job_ended WHERE job_id = job.id)
    ORDER BY created_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED
)
RETURNING id
"""
#: Those of a job go with it.
_REGISTERED_MEDIA = """
DELETE FROM media_object WHERE id IN (
    SELECT id FROM media_object WHERE job_id IS NULL AND storage_key IS NULL
      AND expires_at < clock_timestamp() - %(days)s * interval '1 day'
    ORDER BY expires_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED
)
RETURNING id
"""


async def clean_results(db: Database, storage: Storage) -> int:
    """Deletes the files of results whose time has come, with their thumbnails."""
    removed = 0
    while rows := await db.fetch(_RESULTS, {"batch": BATCH}):
        removed += await delete(storage, [row["key"] for row in rows], kind=RESULTS)
        thumbnails = [f"{THUMBNAILS}/{row['id']}-{edge}.webp" for row in rows for edge in images.THUMBNAIL_EDGES]
        await delete(storage, thumbnails, kind=THUMBNAILS)
    return removed


async def clean_originals(db: Database, storage: Storage) -> int:
    """Deletes the uploaded photos that were kept for a while after their job."""
    removed = 0
    while rows := await db.fetch(_ORIGINALS, {"batch": BATCH}):
        removed += await delete(storage, [row["key"] for row in rows], kind=PAYLOADS)
    return removed


_MEDIA = """
WITH gone AS MATERIALIZED (
    SELECT m.id, m.storage_key FROM media_object m LEFT JOIN job ON job.id = m.job_id
    WHERE m.storage_key IS NOT NULL AND (m.expires_at <= clock_timestamp() OR job.is_finalized)
    ORDER BY m.expires_at LIMIT %(batch)s FOR UPDATE OF m SKIP LOCKED
)
UPDATE media_object m SET storage_key = NULL, revoked_at = clock_timestamp() FROM gone WHERE m.id = gone.id
RETURNING gone.storage_key AS key
"""


async def clean_media(db: Database, storage: Storage) -> int:
    """Deletes the temporary public media that a worker which died has left."""
    removed = 0
    while rows := await db.fetch(_MEDIA, {"batch": BATCH}):
        removed += await delete(storage, [row["key"] for row in rows], kind=MEDIA)
    return removed


_KNOWN = {
    PAYLOADS: "SELECT payload_path AS key FROM job WHERE payload_path = ANY(%(keys)s) AND id = ANY(%(ids)s::uuid[])",
    RESULTS: "SELECT result_file_path AS key FROM job "
    "WHERE result_file_path = ANY(%(keys)s) AND id = ANY(%(ids)s::uuid[])",
    MEDIA: "SELECT storage_key AS key FROM media_object "
    "WHERE storage_key = ANY(%(keys)s) AND job_id = ANY(%(ids)s::uuid[])",
    THUMBNAILS: "SELECT key FROM unnest(%(keys)s::text[], %(ids)s::uuid[]) AS t (key, id) "
    "JOIN job USING (id) WHERE job.result_file_path IS NOT NULL",
    TEMPLATES: "SELECT storage_key AS key FROM template_media WHERE storage_key = ANY(%(keys)s)",
}


async def clean_orphans(db: Database, storage: Storage) -> int:
    """Deletes temporary files, and files whose row does not know them, once they are ``ORPHAN_AGE_S`` old."""
    removed = 0
    for kind in (TEMPORARY, PAYLOADS, RESULTS, THUMBNAILS, MEDIA, TEMPLATES):
        removed += await delete(storage, await strays(db, storage, kind), kind=kind)
    return removed


async def strays(db: Database, storage: Storage, kind: str) -> list[str]:
    """Keys of a kind that no row knows, once their files are ``ORPHAN_AGE_S`` old."""
    old = [key for key, age_s in await asyncio.to_thread(storage.keys, kind) if age_s > ORPHAN_AGE_S]
    if kind not in _KNOWN:
        return old
    found: list[str] = []
    for start in range(0, len(old), BATCH):
        keys = old[start : start + BATCH]
        rows = await db.fetch(_KNOWN[kind], {"keys": keys, "ids": [_job_of(key) for key in keys]})
        found += set(keys).difference(row["key"] for row in rows)
    return found


def _job_of(key: str) -> str:
    """The job id a key begins with; the nil UUID for a file that somebody else put there."""
    name = key.partition("/")[2][:36]
    try:
        return str(UUID(name))
    except ValueError:
        return str(UUID(int=0))


async def clean_history(db: Database) -> int:
    """Deletes job rows, attempts and logs after ``T_job_history``, once the statistics have counted them; and
    registered media as long after their end."""
    days = (await settings.load(db)).t_job_history_d
    removed = 0
    for expired in (_HISTORY, _REGISTERED_MEDIA):
        while rows := await db.fetch(expired, {"days": days, "batch": BATCH}):
            removed += len(rows)
    return removed


_QUEUE = f"""
DELETE FROM dramatiq.queue WHERE message_id IN (
    SELECT q.message_id FROM dramatiq.queue q
    WHERE (q.state = 'rejected' AND q.mtime < clock_timestamp() - interval '{DEAD_LETTER_DAYS} days')
       OR (q.state IN ('queued', 'rejected') AND EXISTS (
            SELECT FROM job WHERE job.id = q.message_id AND is_finalized))
    LIMIT %(batch)s FOR UPDATE SKIP LOCKED
)
RETURNING message_id
"""  # noqa: S608 - our own constant


async def clean_queue(db: Database) -> int:
    """Deletes messages of jobs that are final, and dead letters that nobody has requeued in ``DEAD_LETTER_DAYS``."""
    removed = 0
    while rows := await db.fetch(_QUEUE, {"batch": BATCH}):
        removed += len(rows)
    return removed


async def record_run(db: Database, task: str, removed: int) -> None:
    """Remembers that a scheduled task ran now."""
    await db.fetch(
        "INSERT INTO scheduled_run (name, last_run_at, last_result) "
        "VALUES (%(task)s, clock_timestamp(), jsonb_build_object('removed', %(removed)s::int)) "
        "ON CONFLICT (name) DO UPDATE SET last_run_at = EXCLUDED.last_run_at, last_result = EXCLUDED.last_result",
        {"task": task, "removed": removed},
    )
