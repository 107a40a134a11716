"""Jobs and files for the integration tests, made by the product's own verbs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from photochanger import jobs
from photochanger.db import Database
from photochanger.jobs import Claim, Submission
from photochanger.providers import Picture
from photochanger.storage import PAYLOADS, RESULTS
from photochanger.storage.local import LocalStorage
from tests.photos import photo

USUAL_S = {"local": 0.8}


def submission(
    *,
    t_sync_s: float = 48,
    result_s: float = 72 * 3600,
    original_s: float = 0,
    elapsed_s: float = 0,
    data: bytes | None = None,
    job_id: UUID | None = None,
) -> Submission:
    """A photo as the web process hands it in."""
    job_id = job_id or uuid4()
    data = data or photo(64, 48)
    return Submission(
        job_id=job_id,
        slot_id="slot-001",
        payload_path=f"{PAYLOADS}/{job_id}.jpg",
        payload_mime="image/jpeg",
        payload_bytes=len(data),
        payload_sha256=hashlib.sha256(data).hexdigest(),
        elapsed_s=elapsed_s,
        t_sync_response_s=t_sync_s,
        t_result_retention_s=result_s,
        t_original_retention_s=original_s,
        max_pixels=110_000_000,
    )


async def submitted(
    db: Database, storage: LocalStorage | None = None, *, data: bytes | None = None, **more: Any
) -> UUID:
    """A pending job with its message; its photo's file too when a store is given."""
    data = data or photo(64, 48)
    made = submission(data=data, **more)
    if storage is not None:
        storage.path(made.payload_path).write_bytes(data)
    return (await jobs.submit(db, made)).job_id


async def claimed(db: Database, job_id: UUID) -> Claim:
    claim = await jobs.claim(db, job_id, usual_s=USUAL_S)
    assert claim is not None
    return claim


async def dispatched(db: Database, claim: Claim, *, provider: str = "local") -> int:
    attempt = await jobs.dispatch(db, claim, rung=0, provider=provider, operation="filter")
    assert attempt is not None
    return attempt


def picture(path: Path = Path("unused")) -> Picture:
    data = path.read_bytes() if path.exists() else b"picture"
    return Picture(
        path=path,
        mime="image/jpeg",
        width=64,
        height=48,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )


async def succeeded(db: Database, storage: LocalStorage | None = None, **times: Any) -> UUID:
    """A job that went all the way, with its result's file when a store is given."""
    job_id = await submitted(db, storage, **times)
    claim = await claimed(db, job_id)
    attempt = await dispatched(db, claim)
    key = f"{RESULTS}/{job_id}.jpg"
    if storage is not None:
        storage.path(key).write_bytes(photo(64, 48))
    made = picture(storage.path(key)) if storage is not None else picture()
    final = await jobs.succeed(
        db, claim, made, key=key, served_by="local/filter", attempt=attempt, since_response_s=0.0001
    )
    assert final is not None
    if storage is not None and final.drop_payload:
        storage.delete(final.drop_payload)
    return job_id


async def events(db: Database, job_id: UUID) -> list[str]:
    rows = await db.fetch("SELECT event FROM processing_log WHERE job_id = %(id)s ORDER BY at, id", {"id": job_id})
    return [row["event"] for row in rows]
