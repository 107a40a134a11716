"""Photos that come twice: one job, one charge, whoever wins the race; and Idempotency-Keys."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from photochanger import jobs
from photochanger.db import Database
from photochanger.failures import BudgetSpent, IdempotencyMismatch, ProviderError
from photochanger.jobs import Submitted
from photochanger.storage.local import LocalStorage
from tests.integration.jobs_made import claimed, dispatched, picture, submission
from tests.photos import photo
from web.ingest import failure_of

pytestmark = pytest.mark.anyio


async def sent(db: Database, data: bytes, **more: Any) -> Submitted:
    made = submission(data=data)
    return await jobs.submit(db, replace(made, key=f"photo/{made.payload_sha256}", key_s=48.0, **more))


async def test_the_same_photo_sent_a_hundred_times_at_once_is_one_job(db: Database) -> None:
    data = photo(64, 48)
    got = await asyncio.gather(*(sent(db, data) for _ in range(100)))
    assert len({one.job_id for one in got}) == 1
    assert sum(not one.joined for one in got) == 1
    assert len(await db.fetch("SELECT FROM job")) == len(await db.fetch("SELECT FROM dramatiq.queue")) == 1
    assert (await db.fetch("SELECT waiters FROM job"))[0]["waiters"] == 100


async def test_another_photo_is_another_job(db: Database) -> None:
    got = [await sent(db, photo(64, 48)), await sent(db, photo(64, 48))]
    assert not any(one.joined for one in got)


async def test_a_job_that_ended_badly_is_never_joined(db: Database) -> None:
    data = photo(64, 48)
    first = await sent(db, data)
    claim = await claimed(db, first.job_id)
    await jobs.fail(db, claim, ProviderError("down"), attempt=await dispatched(db, claim))
    again = await sent(db, data)
    assert not again.joined
    third = await sent(db, data)
    assert (third.joined, third.job_id) == (True, again.job_id)


async def test_a_photo_may_come_again_after_its_window(db: Database) -> None:
    data = photo(64, 48)
    await sent(db, data)
    await db.fetch("UPDATE request_key SET expires_at = clock_timestamp() - interval '1 ms'")
    assert not (await sent(db, data)).joined
    assert await jobs.forget_keys(db) == 0
    await db.fetch("UPDATE request_key SET expires_at = clock_timestamp() - interval '1 ms'")
    assert await jobs.forget_keys(db) == 1


async def test_a_key_answers_with_its_job_even_where_that_failed(db: Database) -> None:
    data, key = photo(64, 48), {"key": "key/slot-001/abc", "key_s": 60.0, "key_is_final": True}
    first = await jobs.submit(db, replace(submission(data=data), **key))  # type: ignore[arg-type]
    await jobs.cancel(db, first.job_id, detail="x")
    again = await jobs.submit(db, replace(submission(data=data), **key))  # type: ignore[arg-type]
    assert (again.joined, again.job_id) == (True, first.job_id)


async def test_a_key_with_another_photo_is_refused(db: Database) -> None:
    key = {"key": "key/slot-001/abc", "key_s": 60.0, "key_is_final": True}
    await jobs.submit(db, replace(submission(data=photo(64, 48)), **key))  # type: ignore[arg-type]
    with pytest.raises(IdempotencyMismatch):
        await jobs.submit(db, replace(submission(data=photo(64, 48)), **key))  # type: ignore[arg-type]
    assert len(await db.fetch("SELECT FROM job")) == 1


async def test_the_last_who_leaves_takes_the_job_along(db: Database) -> None:
    data = photo(64, 48)
    first = await sent(db, data)
    await sent(db, data)
    assert await jobs.leave(db, first.job_id, detail="gone") is None
    assert await jobs.leave(db, first.job_id, detail="gone") is not None
    row = await jobs.find(db, first.job_id)
    assert row is not None
    assert row["status"] == "cancelled"
    assert await jobs.leave(db, uuid4(), detail="gone") is None


async def test_who_joins_while_the_last_one_leaves_keeps_the_job(db: Database) -> None:
    data = photo(64, 48)
    first = await sent(db, data)
    await db.fetch("UPDATE job SET waiters = 0")  # the last has left, and not cancelled yet
    await sent(db, data)
    assert await jobs.cancel(db, first.job_id, detail="gone", guard="waiters <= 0") is None


async def test_a_failure_that_says_when_to_come_back_is_remembered_with_it(db: Database) -> None:
    first = await sent(db, photo(64, 48))
    claim = await claimed(db, first.job_id)
    await jobs.fail(db, claim, BudgetSpent("spent", retry_after_s=3600), attempt=None)
    row = await jobs.find(db, first.job_id)
    assert row is not None
    assert 3590 < (failure_of(row).retry_after_s or 0) <= 3600


async def test_a_late_picture_is_kept_for_its_guest_and_the_job_stays_timed_out(
    db: Database, storage: LocalStorage
) -> None:
    await db.fetch("""UPDATE slot SET options = options || '{"keep_late_result": true}'""")
    first = await sent(db, photo(64, 48))
    claim = await claimed(db, first.job_id)
    attempt = await dispatched(db, claim)
    await db.fetch("UPDATE job SET expires_at = clock_timestamp() - interval '1 s'")
    await jobs.expire(db)
    held = {first.job_id: claim.claim_no}
    assert await jobs.unfinished(db, held) == {first.job_id}, "its call may go on"
    assert ((await jobs.find(db, first.job_id)) or {})["comes_late"]
    made: dict[str, Any] = {"key": "results/x.jpg", "served_by": "gemini/image_edit", "attempt": attempt}
    assert await jobs.succeed(db, claim, picture(), **made, since_response_s=0) is None
    assert await jobs.keep_late(db, claim, picture(), **made, since_response_s=0)
    assert not await jobs.keep_late(db, claim, picture(), **made, since_response_s=0), "only once"
    row = await jobs.find(db, first.job_id)
    assert row is not None
    assert not row["comes_late"], "it is there"
    assert (row["status"], row["result_file_path"], row["failure_reason"]) == (
        "timed_out",
        "results/x.jpg",
        "sync_timeout",
    )
    assert (row["result_expires_at"] - row["now"]).total_seconds() == pytest.approx(72 * 3600, abs=5)
    await db.fetch("UPDATE job SET expires_at = clock_timestamp() - interval '61 s'")
    assert await jobs.unfinished(db, held) == set(), "not for ever"
