"""Statistics: every finished job counted once, with what it cost in the end; percentiles; days where they begin."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from photochanger import jobs, retention, rollups, settings, stats, zones
from photochanger.db import Database, fetch
from photochanger.failures import InvalidRequest, ProviderQuota, SyncTimeout
from photochanger.rollups import ABANDONED_S, BATCH, SETTLED_S, roll
from photochanger.stats import Stats
from tests.integration.jobs_made import claimed, dispatched, picture, submitted, succeeded

pytestmark = pytest.mark.anyio

BERLIN, MOSCOW = "Europe/Berlin", "Europe/Moscow"


async def move(db: Database, seconds: float, *job_ids: UUID) -> None:
    """Moves the instants of these jobs, or of all, into the past."""
    where = {"s": seconds, "ids": list(job_ids) or None}
    await db.fetch(
        "UPDATE job SET created_at = created_at - %(s)s * interval '1 s', finalized_at = finalized_at - %(s)s * "
        "interval '1 s', claimed_at = claimed_at - %(s)s * interval '1 s', expires_at = expires_at - %(s)s * "
        "interval '1 s' WHERE %(ids)s::uuid[] IS NULL OR id = ANY(%(ids)s)",
        where,
    )
    await db.fetch(
        "UPDATE attempt SET dispatched_at = dispatched_at - %(s)s * interval '1 s', responded_at = responded_at - "
        "%(s)s * interval '1 s' WHERE %(ids)s::uuid[] IS NULL OR job_id = ANY(%(ids)s)",
        where,
    )


async def ended(db: Database, count: int, *, at: str, slot_id: str = "slot-001", total_s: str = "4") -> None:
    """Jobs that have ended ``at``, after ``total_s`` (SQL of both), and are not counted."""
    await db.fetch(
        "WITH made AS (INSERT INTO job (id, slot_id, status, is_finalized, created_at, claimed_at, expires_at, "
        "finalized_at, snapshot, payload_mime, payload_bytes, payload_sha256, result_sha256, served_by) "
        f"SELECT gen_random_uuid(), %(slot)s, 'succeeded', true, at - total_s * interval '1 s', at - total_s * "
        "interval '0.5 s', at, at, '{}', 'image/jpeg', 1, 'x', 'x', 'local/filter' "
        f"FROM generate_series(1, %(count)s) AS n CROSS JOIN LATERAL (SELECT {at} AS at, {total_s} AS total_s) AS t "
        "RETURNING id) INSERT INTO job_ended SELECT id FROM made",
        {"count": count, "slot": slot_id},
    )


async def whole(db: Database, slot_id: str | None = None, **more: Any) -> Stats:
    now = await jobs.now(db)
    asked = {"since": now - timedelta(days=2), "until": now, "by": "hour", "time_zone": "UTC", **more}
    return await stats.read(db, slot_id=slot_id, **asked)


async def left(db: Database) -> int:
    rows = await db.fetch("SELECT count(*)::int AS n FROM job_ended")
    return int(rows[0]["n"])


async def test_a_job_is_seen_before_it_is_counted_and_the_same_afterwards(db: Database) -> None:
    await succeeded(db)
    before = await whole(db)
    assert before.whole.jobs == 1
    assert await roll(db) == 0, "it may still have an attempt that is not committed"
    await move(db, SETTLED_S + 1)
    assert await roll(db) == 1
    after = await whole(db)
    assert (after.whole.jobs, after.whole.outcomes) == (1, {"succeeded": 1})
    assert [(one.provider, one.succeeded) for one in after.providers] == [("local", 1)]
    assert after.whole.total.p50_s == before.whole.total.p50_s
    assert sum(point.jobs for point in after.points) == 1


async def test_every_way_to_end_is_counted_under_its_own_name(db: Database) -> None:
    await succeeded(db)
    await jobs.cancel(db, await submitted(db), detail="x")
    claim = await claimed(db, await submitted(db))
    await jobs.fail(db, claim, ProviderQuota("none left", cost=0.5), attempt=await dispatched(db, claim))
    late = await submitted(db)
    await db.fetch("UPDATE job SET expires_at = now() - interval '1 s' WHERE id = %(id)s", {"id": late})
    await jobs.expire(db)
    expected = {"succeeded": 1, "cancelled": 1, "provider_quota": 1, "timed_out": 1}
    assert (await whole(db)).whole.outcomes == expected
    await move(db, 10)
    assert await roll(db) == 4
    seen = await whole(db, "slot-001")
    assert (seen.whole.outcomes, seen.whole.cost, seen.whole.sync_timeout_share) == (expected, 0.5, 0.25)
    assert {one.code: one.jobs for one in seen.failures} == {"provider_quota": 1, "sync_timeout": 1}
    assert (await whole(db, "slot-002")).whole.jobs == 0


async def test_how_a_slots_last_photos_ended(db: Database) -> None:
    for failed in (True, False, True):
        claim = await claimed(db, await submitted(db))
        if failed:
            await jobs.fail(db, claim, ProviderQuota("none left"), attempt=await dispatched(db, claim))
        else:
            await jobs.fail(db, claim, SyncTimeout(), attempt=await dispatched(db, claim))
    await succeeded(db)
    await jobs.cancel(db, await submitted(db), detail="x")
    asked: dict[str, Any] = {"since_s": 900, "most": 20}
    found = await stats.lately(db, ["slot-001", "slot-002"], **asked)
    assert found == [{"slot_id": "slot-001", "jobs": 4, "failed": 3, "fell_back": 0, "cause": "provider_quota"}]
    assert (await stats.lately(db, ["slot-001"], since_s=900, most=1))[0]["jobs"] == 1
    await move(db, 901)
    assert await stats.lately(db, ["slot-001"], **asked) == []


async def test_photos_that_another_step_made_are_told(db: Database) -> None:
    claim = await claimed(db, await submitted(db))
    await jobs.close_attempt(db, await dispatched(db, claim, provider="gemini"), ProviderQuota("none left"))
    what: dict[str, Any] = {"key": "results/x.jpg", "attempt": await dispatched(db, claim), "since_response_s": 0}
    await jobs.succeed(db, claim, picture(), served_by="local/original", **what)
    await succeeded(db)  # by the first step
    [found] = await stats.lately(db, ["slot-001"], since_s=900, most=20)
    assert (found["jobs"], found["failed"], found["fell_back"], found["cause"]) == (2, 0, 1, "provider_quota")


async def test_each_provider_bears_what_its_own_calls_have_cost(db: Database) -> None:
    claim = await claimed(db, await submitted(db))
    refused = await dispatched(db, claim, provider="gemini")
    await jobs.close_attempt(db, refused, ProviderQuota("none left", cost=0.5))
    await jobs.succeed(
        db, claim, picture(), key="results/x.jpg", served_by="local/original",
        attempt=await dispatched(db, claim), since_response_s=0,
    )  # fmt: skip
    for _ in range(2):  # before it is counted, and after
        found = await whole(db)
        assert found.whole.cost == 0.5
        assert {one.provider: (one.jobs, one.succeeded, one.cost) for one in found.providers} == {
            "local": (1, 1, 0),
            "gemini": (0, 0, 0.5),
        }
        assert found.whole.outcomes == {"succeeded": 1}
        await move(db, 10)
        await roll(db)


async def test_many_who_count_at_once_count_every_job_once(db: Database) -> None:
    await ended(db, 3 * BATCH + 7, at="now() - interval '5 minutes'")
    while await left(db):
        await asyncio.gather(*(roll(db) for _ in range(4)))
    assert (await whole(db)).whole.jobs == 3 * BATCH + 7
    days = await db.fetch("SELECT sum(jobs)::int AS n FROM job_rollup WHERE zone = 'UTC' AND slot_id = 'slot-001'")
    assert days[0]["n"] == 3 * BATCH + 7


async def test_a_job_whose_end_is_committed_late_is_counted_all_the_same(db: Database) -> None:
    early, late = await succeeded(db), await submitted(db)
    async with db.transaction() as connection:
        await fetch(
            connection,
            "WITH one AS (UPDATE job SET status = 'cancelled', is_finalized = true, failure_reason = 'cancelled', "
            "finalized_at = now() - interval '1 hour' WHERE id = %(id)s RETURNING id) INSERT INTO job_ended "
            "SELECT id FROM one",
            {"id": late},
        )
        await move(db, 10, early)
        assert await roll(db) == 1
    assert await roll(db) == 1
    assert (await whole(db)).whole.jobs == 2


async def test_who_dies_while_counting_has_counted_nothing(db: Database) -> None:
    await ended(db, 5, at="now() - interval '1 minute'")
    with contextlib.suppress(ZeroDivisionError):
        async with db.transaction() as connection:
            assert await rollups.batch(connection, "UTC") == 5
            raise ZeroDivisionError
    assert (await left(db), (await whole(db)).whole.jobs) == (5, 5)
    assert (await roll(db), (await whole(db)).whole.jobs) == (5, 5)


async def test_a_timed_out_job_is_counted_when_its_late_picture_and_its_cost_are_known(db: Database) -> None:
    job_id = await submitted(db)
    claim = await claimed(db, job_id)
    attempt = await dispatched(db, claim)
    await db.fetch("UPDATE job SET expires_at = now() - interval '1 s' WHERE id = %(id)s", {"id": job_id})
    await jobs.expire(db)
    await move(db, 30)
    assert await roll(db) == 0, "its call runs"
    made = replace(picture(), cost=0.25)
    assert await jobs.keep_late(
        db, claim, made, key="results/a.jpg", served_by="gemini/image_edit", attempt=attempt, since_response_s=0
    )
    assert await roll(db) == 1
    seen = await whole(db)
    assert (seen.whole.outcomes, seen.whole.cost) == ({"timed_out": 1}, 0.25)
    assert seen.providers[0].provider == "gemini"


async def test_a_job_whose_worker_died_in_a_call_is_counted_in_the_end(db: Database) -> None:
    claim = await claimed(db, await submitted(db))
    await dispatched(db, claim)
    await jobs.cancel(db, claim.job_id, detail="x")
    await move(db, ABANDONED_S - 10)
    assert await roll(db) == 0
    await move(db, 11)
    assert await roll(db) == 1


async def test_reset_begins_a_slot_anew_and_leaves_what_all_have_spent(db: Database) -> None:
    counted, waiting = await succeeded(db), await succeeded(db)
    await move(db, 3600, counted)
    assert await roll(db) == 1
    async with db.transaction() as connection:
        await stats.reset(connection, "slot-001")
    assert (await whole(db, "slot-001")).whole.jobs == 0
    assert (await stats.today(db, "UTC"))["slot-001"].succeeded == 0
    await move(db, 10, waiting)
    assert await roll(db) == 1
    assert (await whole(db, "slot-001")).whole.jobs == 0, "it had ended before"
    assert (await whole(db)).whole.jobs == 2
    await succeeded(db)
    assert (await whole(db, "slot-001")).whole.jobs == 1
    assert (await stats.today(db, "UTC"))["slot-001"].succeeded == 1


async def test_history_keeps_a_job_until_it_is_counted(db: Database) -> None:
    job_id = await succeeded(db)
    await db.fetch("UPDATE job SET result_file_path = NULL")
    await move(db, 400 * 86400)
    assert await retention.clean_history(db) == 0
    assert await roll(db) == 1
    assert await retention.clean_history(db) == 1
    assert await jobs.find(db, job_id) is None
    now = await jobs.now(db)
    seen = await stats.read(db, slot_id=None, since=now - timedelta(days=402), until=now, by="month", time_zone=MOSCOW)
    assert seen.whole.jobs == 1


async def test_percentiles_are_within_five_percent(db: Database) -> None:
    await ended(db, 2000, at="now() - interval '1 minute'", total_s="0.002 * power(1.0053, n)")
    await roll(db)
    seen = (await whole(db)).whole
    for measured, exact in ((seen.total, 1.0), (seen.queue_wait, 0.5)):
        for value, rank in ((measured.p50_s, 1000), (measured.p95_s, 1900)):
            assert value == pytest.approx(0.002 * 1.0053**rank * exact, rel=0.05)
    assert seen.provider.p50_s is None


async def test_histograms_of_random_times_agree_with_the_times(db: Database) -> None:
    rng = random.Random(7)
    for _ in range(200):
        seconds = rng.lognormvariate(1, 2)
        if 0.001 <= seconds < 180:
            assert rollups.middle_s(rollups.bucket(seconds)) == pytest.approx(seconds, rel=0.05)


async def test_days_begin_at_midnight_where_the_administrator_is(db: Database) -> None:
    # Moscow's 10 January 2026 began at 21:00 UTC.
    await ended(db, 1, at="timestamptz '2026-01-09 20:59:59Z'")
    await ended(db, 2, at="timestamptz '2026-01-09 21:00:00Z'")
    await roll(db)
    asked: Any = {"since": datetime(2026, 1, 9, tzinfo=UTC), "until": datetime(2026, 1, 11, tzinfo=UTC), "by": "day"}
    moscow = await whole(db, time_zone=MOSCOW, **asked)
    assert [(point.began_at.isoformat(), point.jobs) for point in moscow.points] == [
        ("2026-01-09T00:00:00+03:00", 1),
        ("2026-01-10T00:00:00+03:00", 2),
        ("2026-01-11T00:00:00+03:00", 0),
    ]
    assert [point.jobs for point in (await whole(db, time_zone="UTC", **asked)).points] == [3, 0]


async def test_days_have_23_and_25_hours_where_clocks_change(db: Database) -> None:
    # Berlin, 29 March 2026: from 00:00+01:00 to 24:00+02:00; 25 October: back again.
    for at in ("2026-03-28 22:59:00Z", "2026-03-28 23:00:00Z", "2026-03-29 21:59:00Z", "2026-03-29 22:00:00Z",
               "2026-10-24 22:00:00Z", "2026-10-25 22:59:00Z", "2026-10-25 23:00:00Z"):  # fmt: skip
        await ended(db, 1, at=f"timestamptz '{at}'")
    await settings.save(db, {"time_zone": BERLIN})
    await roll(db)
    for month, day, expected in ((3, 28, [1, 2, 1]), (10, 24, [0, 2, 1])):
        since = datetime(2026, month, day, 12, tzinfo=UTC)
        seen = await whole(db, since=since, until=since + timedelta(days=2), by="day", time_zone=BERLIN)
        assert [point.jobs for point in seen.points] == expected
        assert {point.began_at.hour for point in seen.points} == {0}
    since = datetime(2026, 10, 24, 22, tzinfo=UTC)
    hours = await whole(db, since=since, until=since + timedelta(hours=25), by="hour", time_zone=BERLIN)
    assert len({point.began_at.astimezone(UTC) for point in hours.points}) == 25
    assert (hours.points[0].jobs, hours.points[-1].jobs) == (1, 1)


async def test_python_and_postgresql_mean_the_same_by_every_time_zone(db: Database) -> None:
    asked = "SELECT name, %(at)s::timestamptz AT TIME ZONE name AS time FROM unnest(%(names)s::text[]) AS name"
    for at in (datetime(2026, 1, 15, tzinfo=UTC), datetime(2026, 7, 15, tzinfo=UTC)):
        for row in await db.fetch(asked, {"at": at, "names": list(zones.names())}):
            assert row["time"] == at.astimezone(ZoneInfo(row["name"])).replace(tzinfo=None), row["name"]


async def test_another_time_zone_counts_the_days_anew(db: Database) -> None:
    await ended(db, 3, at="timestamptz '2026-01-09 22:00:00Z'")
    await roll(db)
    await settings.save(db, {"time_zone": MOSCOW})
    await ended(db, 4, at="timestamptz '2026-01-10 20:00:00Z'")
    await roll(db)
    rows = await db.fetch("SELECT DISTINCT zone FROM job_rollup ORDER BY zone")
    assert [row["zone"] for row in rows] == ["", MOSCOW]
    since = datetime(2026, 1, 10, tzinfo=UTC)
    for zone, expected in ((MOSCOW, [7]), ("UTC", [4])):
        seen = await whole(db, since=since, until=since + timedelta(hours=1), by="day", time_zone=zone)
        assert [point.jobs for point in seen.points] == expected


@pytest.mark.parametrize("by", ["day", "week", "month"])
async def test_days_and_hours_add_up_to_the_same(db: Database, by: str) -> None:
    await ended(db, 900, at="now() - n * interval '3 hours'", total_s="mod(n, 40)")
    await roll(db)
    now = await jobs.now(db)
    asked: Any = {"since": now - timedelta(days=100), "until": now, "by": by}
    rolled = await whole(db, "slot-001", time_zone="UTC", **asked)
    await db.fetch("DELETE FROM job_rollup WHERE zone <> ''")
    assert await whole(db, "slot-001", time_zone="UTC", **asked) == rolled
    assert rolled.whole.jobs >= 799


async def test_a_range_that_would_be_too_long_is_refused_with_what_to_do(db: Database) -> None:
    now = await jobs.now(db)
    with pytest.raises(InvalidRequest, match="more than 1000 points by hour; ask for a shorter time"):
        await whole(db, since=now - timedelta(days=60), until=now)
    assert len((await whole(db, since=now - timedelta(days=41), until=now)).points) <= stats.MOST_POINTS
    for wrong in ({"since": now, "until": now}, {"time_zone": "Mars/Olympus"}, {"since": datetime(2026, 1, 1)}):  # noqa: DTZ001
        with pytest.raises(InvalidRequest):
            await whole(db, **wrong)


async def test_today_tells_each_slot_its_own(db: Database) -> None:
    await ended(db, 2, at="now() - interval '1 second'", slot_id="slot-002")
    claim = await claimed(db, await submitted(db))
    await jobs.fail(db, claim, ProviderQuota("none left"), attempt=await dispatched(db, claim))
    last = await succeeded(db)
    await jobs.cancel(db, await submitted(db), detail="x")
    tiles = await stats.today(db, "UTC")
    assert len(tiles) == 15
    one = tiles["slot-001"]
    assert (one.succeeded, one.failed, one.cancelled) == (1, 1, 1)
    assert (one.last_error_code, one.last_error) == ("provider_quota", "none left")
    assert one.last_job_status == "cancelled"
    assert one.last_job_id != last
    assert (tiles["slot-003"].succeeded, tiles["slot-003"].last_job_id) == (0, None)


async def test_a_row_of_csv_for_every_point(db: Database) -> None:
    await succeeded(db)
    seen = await whole(db, "slot-001")
    rows = list(csv.DictReader(io.StringIO(stats.as_csv(seen))))
    assert len(rows) == len(seen.points)
    assert sum(int(row["succeeded"]) for row in rows) == 1
    assert rows[0]["total_p50_s"] == ""
    assert stats.as_csv(seen.model_copy(update={"slot_id": "=cmd()"})).count(",'=cmd()") == len(rows)
