"""One job from claim to final state: claim, route, store, finalise."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import dramatiq

from actors import shared
from photochanger import images, jobs, logs, metrics, retention
from photochanger.broker.messages import QUEUE
from photochanger.failures import Failure, StorageFull
from photochanger.jobs import Claim
from photochanger.routing import AttemptFailed, Served
from photochanger.storage import RESULTS


@dramatiq.actor(queue_name=QUEUE, max_retries=0)  # type: ignore[arg-type]
async def process_job(job_id: str) -> None:
    """Does one job. Running it again is harmless: the row decides whether there is anything left to do."""
    logs.job_id.set(job_id)
    key = UUID(job_id)
    claim = await jobs.claim(shared.db, key, usual_s=shared.router.usual_s())
    if claim is None:
        await retention.drop_payloads(shared.storage, [await jobs.lose(shared.db, key)])
        return
    metrics.QUEUE_SECONDS.observe(claim.queue_wait_s)
    if claim.claim_no > 1:
        metrics.RETRIES.labels("any").inc()
    logs.event("job.claimed", claim_no=claim.claim_no, queue_wait_s=round(claim.queue_wait_s, 3))
    temporary = shared.storage.temporary()
    with shared.running(key), suppress(asyncio.CancelledError):
        # A cancelled task ends quietly: who cancelled it has already decided the job.
        try:
            await _serve(claim, temporary)
        finally:
            await asyncio.shield(asyncio.to_thread(temporary.unlink, missing_ok=True))


async def _serve(claim: Claim, temporary: Path) -> None:
    began = time.monotonic()
    try:
        served = await shared.router.serve(claim, deadline=began + claim.remaining_s, result=temporary)
    except AttemptFailed as failed:
        await _fail(claim, failed.failure, attempt=failed.attempt, at=failed.at)
        return
    if served is None:
        return
    try:
        await _store(claim, served, began)
    except StorageFull as failure:
        await _fail(claim, failure, attempt=served.attempt, at=served.at)


async def _fail(claim: Claim, failure: Failure, *, attempt: int | None, at: float) -> None:
    final = await jobs.fail(shared.db, claim, failure, attempt=attempt, since_response_s=time.monotonic() - at)
    await retention.drop_payloads(shared.storage, [final])
    if final is not None:
        logs.event("job.failed", code=failure.code, detail=failure.detail)


async def _store(claim: Claim, served: Served, began: float) -> None:
    """The picture becomes durable first, then final. Who loses the row deletes the file."""
    again = "" if claim.claim_no == 1 else f"-{claim.claim_no}"  # never over the file of a claim that was overtaken
    key = f"{RESULTS}/{claim.job_id}{again}.{images.EXTENSIONS[served.picture.mime]}"
    writing = time.monotonic()
    await asyncio.to_thread(shared.storage.adopt, served.picture.path, key, durable=True)
    metrics.STORAGE_SECONDS.observe(time.monotonic() - writing)
    shared.failpoints.hit("file-written")
    final = None
    try:
        final = await jobs.succeed(
            shared.db,
            claim,
            served.picture,
            key=key,
            served_by=served.served_by,
            attempt=served.attempt,
            since_response_s=time.monotonic() - served.at,
        )
    finally:
        if final is None:
            await asyncio.shield(_withdraw(claim, key))
    shared.failpoints.hit("committed")
    if final is not None:
        await retention.drop_payloads(shared.storage, [final])
        logs.event("job.succeeded", seconds=round(time.monotonic() - began, 3), bytes=served.picture.bytes)
    else:
        logs.event("job.superseded", claim_no=claim.claim_no)


async def _withdraw(claim: Claim, key: str) -> None:
    """Deletes a file that did not become the result; keeps it when the row cannot be asked or says it did."""
    row = await jobs.find(shared.db, claim.job_id)
    if row is None or row["result_file_path"] != key:
        await retention.delete(shared.storage, [key], kind=RESULTS)
