"""The verbs on a job: who may move it, who wins, and what is written down."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from photochanger import jobs
from photochanger.db import Database
from photochanger.failures import ProviderError, SlotDisabled, SyncTimeout
from photochanger.states import FINAL, JobStatus
from tests.integration.jobs_made import USUAL_S, claimed, dispatched, events, picture, submitted, succeeded

pytestmark = pytest.mark.anyio


async def state(db: Database, job_id: object) -> dict[str, object]:
    rows = await db.fetch("SELECT * FROM job WHERE id = %(id)s", {"id": job_id})
    return rows[0]


async def overdue(db: Database, job_id: object) -> None:
    await db.fetch(
        "UPDATE job SET created_at = created_at - interval '1 hour', expires_at = expires_at - interval '1 hour' "
        "WHERE id = %(id)s",
        {"id": job_id},
    )


async def messages(db: Database) -> int:
    return int((await db.fetch("SELECT count(*) AS n FROM dramatiq.queue"))[0]["n"])


async def test_a_job_goes_its_whole_way_and_logs_it(db: Database) -> None:
    job_id = await succeeded(db)
    row = await state(db, job_id)
    assert row["status"] == "succeeded"
    assert row["is_finalized"]
    assert await events(db, job_id) == ["received", "claimed", "dispatched", "provider_responded", "succeeded"]
    attempt = (await db.fetch("SELECT * FROM attempt"))[0]
    assert attempt["responded_at"] > attempt["dispatched_at"]
    assert attempt["cause"] is None


async def test_job_message_and_event_are_written_together(db: Database) -> None:
    job_id = await submitted(db)
    rows = await db.fetch("SELECT message_id, state::text, message->>'actor_name' AS actor FROM dramatiq.queue")
    assert rows == [{"message_id": job_id, "state": "queued", "actor": "process_job"}]
    assert await events(db, job_id) == ["received"]


async def test_a_slot_that_was_switched_off_takes_nothing(db: Database) -> None:
    await db.fetch("UPDATE slot SET is_active = false WHERE id = 'slot-001'")
    with pytest.raises(SlotDisabled):
        await submitted(db)
    assert await messages(db) == 0


async def test_the_time_spent_uploading_counts_against_the_deadline(db: Database) -> None:
    row = await state(db, await submitted(db, t_sync_s=48, elapsed_s=5))
    now = (await db.fetch("SELECT clock_timestamp() AS now"))[0]["now"]
    assert 42 < (row["expires_at"] - now).total_seconds() <= 43
    assert (row["expires_at"] - row["created_at"]).total_seconds() == 48  # type: ignore[operator]


async def test_later_edits_of_the_slot_do_not_change_a_running_job(db: Database) -> None:
    job_id = await submitted(db)
    await db.fetch("UPDATE slot SET route = '{\"rungs\": []}', version = version + 1")
    claim = await claimed(db, job_id)
    assert claim.route["rungs"][0]["operation"] == "filter"


async def test_of_two_claimants_the_later_one_fences_off_the_earlier(db: Database) -> None:
    job_id = await submitted(db)
    first = await claimed(db, job_id)
    attempt = await dispatched(db, first)
    second = await claimed(db, job_id)
    assert second.claim_no == 2
    lost = await jobs.succeed(db, first, picture(), key="results/a.jpg", served_by="x", attempt=attempt,
                              since_response_s=0)  # fmt: skip
    assert lost is None
    assert await jobs.dispatch(db, first, rung=0, provider="local", operation="filter") is None
    again = await dispatched(db, second)
    assert await jobs.succeed(db, second, picture(), key="results/b.jpg", served_by="x", attempt=again,
                              since_response_s=0)  # fmt: skip
    assert (await state(db, job_id))["result_file_path"] == "results/b.jpg"


async def test_a_third_claim_is_refused_and_the_job_fails_as_worker_lost(db: Database) -> None:
    job_id = await submitted(db)
    await claimed(db, job_id)
    await claimed(db, job_id)
    assert await jobs.claim(db, job_id, usual_s=USUAL_S) is None
    assert await jobs.lose(db, job_id) is not None
    assert (await state(db, job_id))["failure_reason"] == "worker_lost"


async def test_a_takeover_needs_the_providers_usual_time(db: Database) -> None:
    job_id = await submitted(db, t_sync_s=10)
    await claimed(db, job_id)
    assert await jobs.claim(db, job_id, usual_s={"local": 11}) is None
    assert await jobs.claim(db, job_id, usual_s={"local": 1}) is not None


async def test_work_goes_on_only_under_the_newest_claim(db: Database) -> None:
    taken, lost, done = await submitted(db), await submitted(db), await submitted(db)
    claims = {job_id: (await claimed(db, job_id)).claim_no for job_id in (taken, lost, done)}
    await claimed(db, lost)
    await jobs.cancel(db, done, detail="x")
    assert await jobs.unfinished(db, claims) == {taken}


async def test_nobody_loses_a_job_that_was_never_claimed(db: Database) -> None:
    job_id = await submitted(db)
    assert await jobs.lose(db, job_id) is None
    assert (await state(db, job_id))["status"] == "pending"


async def test_success_after_the_deadline_is_no_success(db: Database) -> None:
    job_id = await submitted(db)
    claim = await claimed(db, job_id)
    attempt = await dispatched(db, claim)
    await overdue(db, job_id)
    late = await jobs.succeed(db, claim, picture(), key="results/a.jpg", served_by="x", attempt=attempt,
                              since_response_s=0)  # fmt: skip
    assert late is None
    assert [final.job_id for final in await jobs.expire(db)] == [job_id]
    row = await state(db, job_id)
    assert (row["status"], row["failure_reason"]) == ("timed_out", "sync_timeout")
    assert (await db.fetch("SELECT responded_at FROM attempt"))[0]["responded_at"] is not None


async def test_a_success_that_waited_for_a_lock_past_the_deadline_is_no_success(
    db: Database, database_url: str
) -> None:
    """The guard is evaluated after the lock is held: an UPDATE that merely waited would not look again."""
    job_id = await submitted(db, t_sync_s=1.0)
    claim = await claimed(db, job_id)
    attempt = await dispatched(db, claim)
    async with await psycopg.AsyncConnection.connect(database_url) as holder:
        await holder.execute("SELECT FROM job WHERE id = %s FOR UPDATE", (job_id,))
        waiting = asyncio.create_task(
            jobs.succeed(db, claim, picture(), key="results/a.jpg", served_by="x", attempt=attempt, since_response_s=0)
        )
        await holder.execute(
            "SELECT pg_sleep(extract(epoch FROM expires_at - clock_timestamp()) + 0.05) FROM job WHERE id = %s",
            (job_id,),
        )
        assert not waiting.done()
        await holder.rollback()
    assert await waiting is None
    assert (await state(db, job_id))["status"] == "processing"


async def test_expiry_takes_only_what_is_overdue_and_its_message_with_it(db: Database) -> None:
    late, early = await submitted(db), await submitted(db)
    await overdue(db, late)
    assert [final.job_id for final in await jobs.expire(db)] == [late]
    assert (await state(db, early))["status"] == "pending"
    assert await messages(db) == 1
    assert await events(db, late) == ["received", "timed_out"]


async def test_a_failure_keeps_its_cause_for_the_operator(db: Database) -> None:
    job_id = await submitted(db)
    claim = await claimed(db, job_id)
    attempt = await dispatched(db, claim)
    failure = ProviderError("The provider is down for maintenance", request_id="r-1", finish_reason="MAINT")
    assert await jobs.fail(db, claim, failure, attempt=attempt)
    row = await state(db, job_id)
    assert (row["status"], row["failure_reason"]) == ("failed", "provider_error")
    assert row["failure_detail"] == "The provider is down for maintenance"
    recorded = (await db.fetch("SELECT cause, detail, request_id, finish_reason FROM attempt"))[0]
    assert list(recorded.values()) == ["provider_error", "The provider is down for maintenance", "r-1", "MAINT"]


async def test_a_row_names_the_provider_that_served_or_was_asked_last(db: Database) -> None:
    never, made, late = await submitted(db), await succeeded(db), await submitted(db)
    claim = await claimed(db, late)
    for provider in ("gemini", "openai"):
        assert await jobs.dispatch(db, claim, rung=0, provider=provider, operation="image_edit")
    for job_id in (never, late):
        await overdue(db, job_id)
    await jobs.expire(db)
    rows = {row["id"]: row["last_provider"] for row in await db.fetch(jobs.FINAL_OF, {"ids": [never, made, late]})}
    assert rows == {never: None, made: "local", late: "openai"}


async def test_running_out_of_budget_is_a_timeout_not_a_failure(db: Database) -> None:
    job_id = await submitted(db)
    claim = await claimed(db, job_id)
    assert await jobs.fail(db, claim, SyncTimeout("local did not answer"), attempt=await dispatched(db, claim))
    assert (await state(db, job_id))["status"] == "timed_out"


@pytest.mark.parametrize("run", [False, True], ids=["pending", "processing"])
async def test_cancel_wins_once_and_removes_the_message(db: Database, run: bool) -> None:
    job_id = await submitted(db)
    if run:
        await claimed(db, job_id)
    assert await jobs.cancel(db, job_id, detail="by a test") is not None
    assert await jobs.cancel(db, job_id, detail="again") is None
    assert (await state(db, job_id))["status"] == "cancelled"
    assert await messages(db) == 0


async def test_no_final_state_is_ever_left(db: Database) -> None:
    job_id = await succeeded(db)
    before = await state(db, job_id)
    await overdue(db, job_id)
    assert await jobs.expire(db) == []
    assert await jobs.cancel(db, job_id, detail="too late") is None
    assert await jobs.lose(db, job_id) is None
    assert await jobs.claim(db, job_id, usual_s=USUAL_S) is None
    after = await state(db, job_id)
    assert {name: after[name] for name in before if name not in ("created_at", "expires_at")} == {
        name: before[name] for name in before if name not in ("created_at", "expires_at")
    }


async def test_exactly_one_of_many_racing_writers_wins(db: Database) -> None:
    """Success, failure, cancel, expiry and loss race for the same job; one final event each time."""
    for _ in range(40):
        job_id = await submitted(db)
        claim = await claimed(db, job_id)
        attempt = await dispatched(db, claim)
        await asyncio.gather(
            jobs.succeed(db, claim, picture(), key="results/a.jpg", served_by="x", attempt=attempt, since_response_s=0),
            jobs.fail(db, claim, ProviderError(), attempt=attempt),
            jobs.cancel(db, job_id, detail="x"),
            jobs.lose(db, job_id),
            overdue(db, job_id),
            jobs.expire(db),
        )
        await jobs.expire(db)
        finals = [event for event in await events(db, job_id) if event in {str(status) for status in FINAL}]
        assert len(finals) == 1
        assert (await state(db, job_id))["status"] == finals[0]


async def test_the_database_itself_refuses_a_half_final_row(db: Database) -> None:
    job_id = await submitted(db)
    for wrong in ("is_finalized = true", f"status = '{JobStatus.SUCCEEDED}'", "failure_reason = 'x'"):
        with pytest.raises(psycopg.errors.CheckViolation):
            await db.fetch(f"UPDATE job SET {wrong} WHERE id = %(id)s", {"id": job_id})
