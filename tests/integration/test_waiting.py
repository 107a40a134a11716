"""One shared poller for all waiting requests, with and without its bell."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from photochanger import jobs
from photochanger.db import Database
from photochanger.storage.local import LocalStorage
from tests.integration.jobs_made import claimed, dispatched, picture, submitted
from web.waiting import FALLBACK_S, Waiting

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[True, False], ids=["bell", "no-bell"])
async def waiting(request: pytest.FixtureRequest, db: Database, storage: LocalStorage) -> AsyncIterator[Waiting]:
    poller = Waiting(db, storage, ring=request.param)
    poller.start()
    yield poller
    await poller.close()


async def finish(db: Database, job_id: UUID) -> None:
    claim = await claimed(db, job_id)
    attempt = await dispatched(db, claim)
    await jobs.succeed(db, claim, picture(), key="results/a.jpg", served_by="x", attempt=attempt, since_response_s=0)


async def test_a_waiter_gets_the_final_row(db: Database, waiting: Waiting) -> None:
    job_id = await submitted(db)
    with waiting.waiter(job_id) as waiter:
        await finish(db, job_id)
        row = await asyncio.wait_for(waiter.final, FALLBACK_S * 4)
    assert (row["id"], row["status"]) == (job_id, "succeeded")


async def test_two_waiters_of_one_job_both_get_it(db: Database, waiting: Waiting) -> None:
    job_id = await submitted(db)
    with waiting.waiter(job_id) as one, waiting.waiter(job_id) as two:
        await finish(db, job_id)
        rows = await asyncio.wait_for(asyncio.gather(one.final, two.final), FALLBACK_S * 4)
    assert rows[0] == rows[1]


async def test_a_waiter_past_its_deadline_gets_the_timeout_that_its_own_poller_decided(
    db: Database, waiting: Waiting
) -> None:
    job_id = await submitted(db)
    await db.fetch("UPDATE job SET expires_at = clock_timestamp() WHERE id = %(id)s", {"id": job_id})
    with waiting.waiter(job_id) as waiter:
        waiter.deadline = time.monotonic()
        row = await asyncio.wait_for(waiter.final, FALLBACK_S * 4)
    assert row["status"] == "timed_out"


async def test_the_poller_survives_the_loss_of_its_connection(db: Database, waiting: Waiting) -> None:
    job_id = await submitted(db)
    with waiting.waiter(job_id) as waiter:
        await asyncio.wait({waiter.final}, timeout=FALLBACK_S)
        await db.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'photochanger web waiting'"
            " AND datname = current_database()"
        )
        await finish(db, job_id)
        row = await asyncio.wait_for(waiter.final, 5)
    assert row["status"] == "succeeded"
