"""One job from claim to final state: claim, route, store, finalise."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any
from uuid import UUID

import dramatiq

from actors import shared
from photochanger import images, jobs, logs, metrics, retention
from photochanger.broker.messages import QUEUE
from photochanger.failures import Failure, InternalError, StorageFull, SyncTimeout, Unavailable
from photochanger.jobs import Claim
from photochanger.rungs import AttemptFailed, Served
from photochanger.storage import RESULTS, StorageAway


@dramatiq.actor(queue_name=QUEUE, max_retries=0)  # type: ignore[arg-type]
async def process_job(job_id: str) -> None:
    """Does one job. Running it again is harmless: the row decides whether there is anything left to do."""
    logs.job_id.set(job_id)
    key = UUID(job_id)
    try:
        claim = await jobs.claim(shared.db, key, usual_s=await shared.router.usual_s())
        if claim is None:
            await retention.drop_payloads(shared.storage, [await jobs.lose(shared.db, key)])
            return
    except Unavailable:
        return  # the database stayed away for longer than any deadline: expiry has decided
    metrics.QUEUE_SECONDS.observe(claim.queue_wait_s)
    if claim.claim_no > 1:
        metrics.RETRIES.labels("any").inc()
    logs.event("job.claimed", claim_no=claim.claim_no, queue_wait_s=round(claim.queue_wait_s, 3))
    end = await _serve(claim)
    if end is not None:
        # From here on nothing is cut off: the row decides, and whoever wins cleans up after itself.
        await asyncio.shield(end)


async def _serve(claim: Claim) -> Coroutine[Any, Any, None] | None:
    """The way the job is to end: with its picture or with a failure. ``None`` when somebody else ended it: then the
    call was cut off, quietly."""
    began = time.monotonic()
    try:
        with shared.running(claim):
            served = await shared.router.serve(claim, deadline=began + claim.remaining_s)
    except AttemptFailed as failed:
        return _fail(claim, failed.failure, attempt=failed.attempt, at=failed.at)
    except (asyncio.CancelledError, Unavailable):
        return None
    return _store(claim, served, began) if served is not None else None


async def _fail(claim: Claim, failure: Failure, *, attempt: int | None, at: float) -> None:
    final = await jobs.fail(shared.db, claim, failure, attempt=attempt, since_response_s=time.monotonic() - at)
    await retention.drop_payloads(shared.storage, [final])
    if final is None:
        return
    if isinstance(failure, SyncTimeout):
        metrics.TIMEOUTS.inc()
        logs.event("job.timed_out", count=1, jobs=[str(claim.job_id)])
    else:
        logs.event("job.failed", code=failure.code, detail=failure.detail)


async def _store(claim: Claim, served: Served, began: float) -> None:
    """The picture becomes durable first, then final. Who loses the row deletes the file."""
    again = "" if claim.claim_no == 1 else f"-{claim.claim_no}"  # never over the file of a claim that was overtaken
    key = f"{RESULTS}/{claim.job_id}{again}.{images.EXTENSIONS[served.picture.mime]}"
    writing = time.monotonic()
    try:
        await shared.storage.put(served.picture.path, key, durable=True)
    except (OSError, StorageFull, StorageAway) as error:
        # No OSError leaves an actor: one that is a TimeoutError would keep dramatiq's thread asking for ever.
        failure = error if isinstance(error, Failure) else InternalError(f"Storing the picture failed: {error}")
        await asyncio.to_thread(served.picture.path.unlink, missing_ok=True)
        await _fail(claim, failure, attempt=served.attempt, at=served.at)
        return
    metrics.STORAGE_SECONDS.observe(time.monotonic() - writing)
    shared.failpoints.hit("file-written")
    final, late = None, False
    what: dict[str, Any] = {
        "key": key,
        "served_by": served.served_by,
        "attempt": served.attempt,
        "since_response_s": time.monotonic() - served.at,
    }
    try:
        final = await jobs.succeed(shared.db, claim, served.picture, **what)
        if final is None and claim.options.keep_late_result:
            await retention.expire_overdue(shared.db, shared.storage, [claim.job_id])  # it may not have been yet
            late = await jobs.keep_late(shared.db, claim, served.picture, **what)
    finally:
        if final is None and not late:
            await _withdraw(claim, key)
    shared.failpoints.hit("committed")
    await retention.drop_payloads(shared.storage, [final])
    if final is None and not late:
        logs.event("job.superseded", claim_no=claim.claim_no)
        return
    seconds = round(time.monotonic() - began, 3)
    logs.event("job.late_result" if late else "job.succeeded", seconds=seconds, bytes=served.picture.bytes)


async def _withdraw(claim: Claim, key: str) -> None:
    """Deletes a file that did not become the result; keeps it when the row cannot be asked or says it did."""
    row = await jobs.find(shared.db, claim.job_id)
    if row is None or row["result_file_path"] != key:
        await retention.let_go(shared.storage, [key], kind=RESULTS)
