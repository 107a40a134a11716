"""Does a photo again whose original is still there, as its slot is set now, for an administrator: behind the guests."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from uuid import UUID, uuid4

from photochanger import images, jobs, readiness, retention
from photochanger.admission import Work
from photochanger.audit import Deed
from photochanger.db import Database, Row
from photochanger.failures import Conflict, JobNotFound, StorageFull
from photochanger.jobs import Submission, Submitted
from photochanger.settings import HOUR_S, Settings
from photochanger.storage import PAYLOADS, Storage
from photochanger.storage.local import full_or

#: In the queue: smaller goes first, guests are 0.
PRIORITY = 5


async def original(db: Database, job_id: UUID) -> Row:
    """The job and its original's file.

    Raises:
        JobNotFound: there is none.
        Conflict: the photo was deleted, or the job still runs.
    """
    rows = await db.fetch(
        "SELECT id, slot_id, is_finalized, payload_path, payload_mime, payload_bytes, payload_sha256, fields, is_test, "
        "payload_expires_at > clock_timestamp() AS is_kept FROM job WHERE id = %(id)s",
        {"id": job_id},
    )
    if not rows:
        raise JobNotFound(f"There is no job {job_id}")
    if not rows[0]["is_finalized"]:
        raise Conflict("The job still runs")
    if rows[0]["payload_path"] is None or not rows[0]["is_kept"]:
        raise Conflict(
            "The photo is gone: originals are deleted once their job has ended, "
            "unless the setting t_original_retention_h keeps them"
        )
    return rows[0]


async def submit(db: Database, storage: Storage, row: Row, current: Settings, work: Work, *, actor: str) -> Submitted:
    """A new job of the same photo (``row`` is its ``original``).

    Raises:
        NoRoom: it could not be served in time.
        SlotDisabled: its slot is switched off or archived.
        Conflict: the photo was deleted meanwhile.
        StorageFull: the disk has only its reserve left.
    """
    if full := readiness.room(await asyncio.to_thread(storage.free_bytes), current):
        raise StorageFull(full)
    job_id = uuid4()
    key = f"{PAYLOADS}/{job_id}.{images.EXTENSIONS[row['payload_mime']]}"
    await asyncio.to_thread(_copy, storage, row["payload_path"], key)
    async with retention.until_handed_over(storage, key) as photo:
        deed = Deed(actor, "job.rerun", f"job/{job_id}", {"of": str(row["id"])})
        made = await jobs.submit(db, _submission(row, job_id, key, current, work), deed=deed)
        photo.over = True
    return made


def _submission(row: Row, job_id: UUID, key: str, current: Settings, work: Work) -> Submission:
    fields: Mapping[str, str] = row["fields"]
    return Submission(
        job_id=job_id,
        slot_id=row["slot_id"],
        payload_path=key,
        payload_mime=row["payload_mime"],
        payload_bytes=row["payload_bytes"],
        payload_sha256=row["payload_sha256"],
        elapsed_s=0.0,
        t_sync_response_s=current.t_sync_response_s,
        t_result_retention_s=current.t_result_retention_h * HOUR_S,
        t_original_retention_s=current.t_original_retention_h * HOUR_S,
        max_pixels=current.max_pixels,
        fields=fields,
        work=work,
        priority=PRIORITY,
        is_test=row["is_test"],
    )


def _copy(storage: Storage, source: str, key: str) -> None:
    temporary = storage.temporary()
    try:
        with temporary.open("xb") as file:
            file.writelines(storage.read(source))
        storage.adopt(temporary, key, durable=False)
    except FileNotFoundError:
        raise Conflict("The photo is gone") from None
    except OSError as error:
        raise full_or(error) from error
    finally:
        temporary.unlink(missing_ok=True)
