"""The list of jobs: every filter, counted or not; pages without a loss or a repeat; everything about one job."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from photochanger import job_list, jobs
from photochanger.db import Database
from photochanger.failures import InvalidRequest, JobNotFound, ProviderFailure, ProviderQuota, ProviderRefused
from photochanger.job_search import Place
from photochanger.rollups import roll
from photochanger.states import JobStatus
from tests.integration.jobs_made import claimed, dispatched, picture, submission, submitted, succeeded
from tests.integration.test_stats import ended, move

pytestmark = pytest.mark.anyio

#: Every filter is to find the same before a job is counted and after.
COUNTED = pytest.mark.parametrize("counted", [False, True], ids=["new", "counted"])


async def settle(db: Database, counted: bool) -> None:
    if counted:
        await move(db, 10)
        while await roll(db):
            pass
        await db.fetch("ANALYZE job_search")


async def ids(db: Database, **asked: Any) -> list[UUID]:
    return [job.job_id for job in (await job_list.listing(db, **asked)).jobs]


async def failed(db: Database, failure: ProviderFailure, *, provider: str = "gemini", **more: Any) -> UUID:
    job_id = (await jobs.submit(db, replace(submission(), **more))).job_id
    claim = await claimed(db, job_id)
    attempt = await jobs.dispatch(db, claim, rung=0, provider=provider, operation="image_edit")
    assert attempt is not None
    await jobs.fail(db, claim, failure, attempt=attempt)
    return job_id


@COUNTED
async def test_status_and_failure_reason(db: Database, counted: bool) -> None:
    good = await succeeded(db)
    quota = await failed(db, ProviderQuota("none left"))
    refused = await failed(db, ProviderRefused("no"))
    gone = await submitted(db)
    await jobs.cancel(db, gone, detail="x")
    late = await submitted(db)
    await db.fetch("UPDATE job SET expires_at = now() - interval '1 s' WHERE id = %(id)s", {"id": late})
    await jobs.expire(db)
    await settle(db, counted)
    waiting = await submitted(db)
    for status, expected in (
        ("succeeded", [good]), ("failed", [refused, quota]), ("cancelled", [gone]), ("timed_out", [late]),
        ("pending", [waiting]), ("processing", []),
    ):  # fmt: skip
        assert await ids(db, statuses=[JobStatus(status)]) == expected
    assert await ids(db, failure_reasons=["provider_quota"]) == [quota]
    assert await ids(db, failure_reasons=["sync_timeout", "cancelled"]) == [late, gone]
    assert await ids(db, statuses=[JobStatus.FAILED], failure_reasons=["sync_timeout"]) == []
    assert await ids(db, failure_reasons=["of_another_version"]) == []
    assert await ids(db) == [waiting, late, gone, refused, quota, good]


@COUNTED
async def test_slot_provider_and_time(db: Database, counted: bool) -> None:
    local = await succeeded(db)
    gemini = await failed(db, ProviderQuota("none left"))
    both = await submitted(db)
    claim = await claimed(db, both)
    first = await jobs.dispatch(db, claim, rung=0, provider="gemini", operation="image_edit")
    assert first is not None
    await jobs.close_attempt(db, first, ProviderQuota("none left"))
    attempt = await dispatched(db, claim)
    await jobs.succeed(db, claim, picture(), key="results/a.jpg", served_by="local/filter", attempt=attempt,
                       since_response_s=0)  # fmt: skip
    await settle(db, counted)
    assert await ids(db, provider="gemini") == [both, gemini]
    assert await ids(db, provider="local") == [both, local]
    assert await ids(db, provider="gemini", statuses=[JobStatus.SUCCEEDED]) == [both]
    assert await ids(db, provider="gem") == []
    assert await ids(db, slot_id="slot-001") == [both, gemini, local]
    assert await ids(db, slot_id="slot-002") == await ids(db, slot_id="slot-002", provider="local") == []
    at = (await job_list.detail(db, gemini)).created_at
    assert await ids(db, since=at) == [both, gemini]
    assert await ids(db, until=at) == [local]
    assert await ids(db, since=at, until=at + timedelta(microseconds=1), provider="gemini") == [gemini]


@COUNTED
async def test_text_finds_ids_and_whole_words(db: Database, counted: bool) -> None:
    for _ in range(3):
        await succeeded(db)
    fields = {"profile": r"C:\Photos\Wedding\IMG_0042.JPG", "name": "Зал-1"}
    one = await failed(db, ProviderQuota("The day's limit is reached", request_id="req-Zx9_77"), fields=fields)
    other = await failed(db, ProviderRefused("The day's prompt"), provider="openai", fields={"n": "IMG_0043"})
    await settle(db, counted)
    for text in ("img_0042", "IMG_0042.jpg wedding", r"c:\photos", "req-Zx9_77", "limit reached", str(one),
                 str(one)[:10], one.hex[:8].upper()):  # fmt: skip
        assert await ids(db, text=text) == [one], text
    assert await ids(db, text="day's") == [other, one]
    assert await ids(db, text="day's", provider="openai") == [other]
    assert await ids(db, text="day's", failure_reasons=["provider_quota"], slot_id="slot-001") == [one]
    assert await ids(db, text=str(one), provider="openai") == []
    assert await ids(db, text="Зал-1") == [one]
    for nothing in ("img", "img_0042 prompt", "0f0f0f0f0f0f"):
        assert await ids(db, text=nothing) == []


async def test_a_word_of_most_jobs_is_found_too(db: Database) -> None:
    await ended(db, 300, at="now() - n * interval '1 minute'")
    await db.fetch("UPDATE job SET fields = jsonb_build_object('model', 'Canon', 'n', substr(id::text, 30))")
    await settle(db, True)
    page = await job_list.listing(db, text="canon", limit=200)
    assert len(page.jobs) == 200
    assert page.next is not None
    assert len(await ids(db, text="canon", after=page.next, limit=200)) == 100
    assert len(await ids(db, text="canon", slot_id="slot-001", limit=200)) == 200
    assert await ids(db, text="canon", statuses=[JobStatus.FAILED]) == []
    assert await ids(db, text="canon", statuses=[JobStatus.FAILED], failure_reasons=["sync_timeout"]) == []


@pytest.mark.parametrize("asked", [{}, {"slot_id": "slot-001"}, {"statuses": [JobStatus.SUCCEEDED]}, {"provider": "x"}])
async def test_pages_lose_and_repeat_nothing_while_photos_come(db: Database, asked: dict[str, Any]) -> None:
    await ended(db, 60, at="timestamptz '2026-01-01 00:00Z' + mod(n, 7) * interval '1 minute'")
    await db.fetch("UPDATE job SET served_by = 'x/y'")
    await db.fetch("INSERT INTO attempt (job_id, claim_no, rung, provider, operation, responded_at) "
                   "SELECT id, 1, 0, 'x', 'y', now() FROM job")  # fmt: skip
    before = {row["id"] for row in await db.fetch("SELECT id FROM job")}
    seen: list[UUID] = []
    after: Place | None = None
    for number in range(20):
        page = await job_list.listing(db, after=after, limit=7, **asked)
        seen += [job.job_id for job in page.jobs]
        await ended(db, 2, at="now()")
        if number == 3:
            assert await roll(db) == 60, "in the middle of it they are counted"
        if (after := page.next) is None:
            break
    assert len(seen) == len(set(seen))
    assert set(seen) == before


async def test_what_cannot_be_asked_is_refused(db: Database) -> None:
    for wrong in ({"limit": 0}, {"limit": 201}, {"text": "  ?! "}, {"text": "x" * 201}, {"text": "\0"},
                  {"since": datetime(2026, 1, 1)}):  # fmt: skip # noqa: DTZ001
        with pytest.raises(InvalidRequest):
            await job_list.listing(db, **wrong)


async def test_everything_about_a_job(db: Database) -> None:
    job_id = (await jobs.submit(db, replace(submission(), fields={"name": "Booth"}))).job_id
    claim = await claimed(db, job_id)
    first = await jobs.dispatch(db, claim, rung=0, provider="gemini", operation="image_edit")
    assert first is not None
    await jobs.close_attempt(db, first, ProviderQuota("none left", cost=0.1, request_id="r1"))
    await jobs.succeed(
        db, claim, replace(picture(), cost=0.2), key="results/a.jpg", served_by="local/filter",
        attempt=await dispatched(db, claim), since_response_s=0.0001,
    )  # fmt: skip
    seen = await job_list.detail(db, job_id)
    assert (seen.status, seen.fields, seen.claim_no, seen.has_result) == ("succeeded", {"name": "Booth"}, 1, True)
    assert [(one.provider, one.cause, one.request_id) for one in seen.attempts] == [
        ("gemini", "provider_quota", "r1"),
        ("local", None, None),
    ]
    assert [entry.event for entry in seen.log][:2] == ["received", "claimed"]
    assert seen.log[-1].event == "succeeded"
    assert seen.route["rungs"][0]["provider"] == "local"
    assert seen.timings.budget_s == 48
    assert seen.timings.total_s is not None
    assert seen.timings.provider_s is not None
    assert seen.timings.total_s >= seen.timings.provider_s > 0
    assert seen.cost == pytest.approx(0.3)
    with pytest.raises(JobNotFound):
        await job_list.detail(db, uuid4())


async def test_suggestions_are_what_was_seen_lately(db: Database) -> None:
    await failed(db, ProviderQuota("none left"))
    await succeeded(db)
    await settle(db, True)
    seen = await job_list.suggestions(db)
    assert seen.model_dump() == {
        "failure_reasons": ["provider_quota"],
        "providers": ["local"],
        "slots": ["slot-001"],
    }


async def test_the_latest_pictures_come_in_pages_while_they_can_be_fetched(db: Database) -> None:
    made = [await succeeded(db) for _ in range(5)]
    await failed(db, ProviderQuota("none left"))
    await db.fetch("UPDATE job SET result_expires_at = now() WHERE id = %(id)s", {"id": made[4]})
    first = await job_list.latest_results(db, limit=3)
    assert [one.job_id for one in first.pictures] == [made[3], made[2], made[1]]
    rest = await job_list.latest_results(db, "slot-001", after=first.next, limit=3)
    assert ([one.job_id for one in rest.pictures], rest.next) == ([made[0]], None)
    assert (await job_list.latest_results(db, "slot-002")).pictures == []
    assert "result_file_path" not in first.pictures[0].model_dump()
