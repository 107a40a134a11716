"""What 200 waiting requests cost: the web process's one poller, while jobs become final under it."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID, uuid4

from prometheus_client import REGISTRY

from ops.bench.arena import Arena
from ops.bench.contenders import OURS
from ops.bench.report import Row, percentile
from photochanger import jobs
from photochanger.db import Database
from photochanger.jobs import Submission
from photochanger.providers import Picture
from photochanger.storage.local import LocalStorage
from web.waiting import Waiter, Waiting

WAITERS = 200
RATE = 16.0


def waiting(arena: Arena) -> list[Row]:
    """Always 200 waiters; every sixteenth of a second one of their jobs succeeds and another takes its place."""
    queries = Row("200 waiters: queries of the poller", "/s", digits=1)
    p50 = Row("200 waiters: final to woken, p50", "ms", digits=1)
    p95 = Row("200 waiters: final to woken, p95", "ms", digits=1)
    for _ in range(arena.rounds):
        arena.clear(OURS)
        rate, lags = asyncio.run(_wait(arena.url(OURS), arena.scratch / "waiting", 3.0 if arena.quick else 4.0))
        queries.add(OURS, rate)
        p50.add(OURS, percentile(lags, 0.5) * 1000)
        p95.add(OURS, percentile(lags, 0.95) * 1000)
    queries.goal("≤25/s", queries.median(OURS) <= 25)
    p95.goal("≤10 ms", p95.median(OURS) <= 10)
    return [queries, p50, p95]


async def _wait(url: str, media: Path, seconds: float) -> tuple[float, list[float]]:
    """Queries a second, and seconds from each final statement's return to its waiter's wakening."""
    db = Database(url, connections=4, application_name="bench")
    storage = LocalStorage(media)
    storage.prepare()
    poller = Waiting(db, storage)
    poller.start()
    with ExitStack() as stack:
        waiters = [stack.enter_context(poller.waiter(await _submit(db))) for _ in range(WAITERS)]
        loop = asyncio.get_running_loop()
        before, began = _polls(), loop.time()
        lags = []
        for number in range(round(seconds * RATE)):
            await asyncio.sleep(began + number / RATE - loop.time())
            lags.append(asyncio.create_task(_finish(db, waiters[number])))
            waiters.append(stack.enter_context(poller.waiter(await _submit(db))))
        found = await asyncio.gather(*lags)
        rate = (_polls() - before) / (loop.time() - began)
    await poller.close()
    await db.close()
    return rate, found


def _polls() -> float:
    return REGISTRY.get_sample_value("photochanger_polls_total") or 0.0


async def _submit(db: Database) -> UUID:
    job_id = uuid4()
    await jobs.submit(
        db,
        Submission(
            job_id=job_id,
            slot_id="slot-001",
            payload_path=f"payloads/{job_id}.jpg",
            payload_mime="image/jpeg",
            payload_bytes=100_000,
            payload_sha256="0" * 64,
            elapsed_s=0.0,
            t_sync_response_s=60.0,
            t_result_retention_s=3600.0,
            t_original_retention_s=0.0,
            max_pixels=10**8,
        ),
    )
    return job_id


async def _finish(db: Database, waiter: Waiter) -> float:
    """Does a worker's statements on the job; seconds from the last one's return to the waiter's result."""
    woken = asyncio.get_running_loop().create_future()
    waiter.final.add_done_callback(lambda _: woken.set_result(time.monotonic()))
    claim = await jobs.claim(db, waiter.job_id, usual_s={})
    assert claim is not None
    attempt = await jobs.dispatch(db, claim, rung=0, provider="local", operation="original")
    assert attempt is not None
    picture = Picture(Path("unused"), "image/jpeg", 1024, 768, 100_000, "0" * 64)
    key = f"results/{claim.job_id}.jpg"
    await jobs.succeed(db, claim, picture, key=key, served_by="local/original", attempt=attempt, since_response_s=0.0)
    final_at = time.monotonic()
    return max(0.0, float(await woken) - final_at)
