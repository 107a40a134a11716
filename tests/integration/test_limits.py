"""Permits, rates and budgets: one ``acquire``, taken whole or not at all, never over, back when a worker dies."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from photochanger import limits
from photochanger.db import Database
from photochanger.limits import Exhausted, Grant, Limit

pytestmark = pytest.mark.anyio
PERMIT = Limit("calls/gemini/at-once", 3, "permit")


async def used(db: Database) -> dict[str, float]:
    return {str(row["key"]): row["used"] for row in await limits.in_use(db)}


async def permit(db: Database, holder: str, *more: Limit, worker_id: int | None = None) -> Grant:
    return await limits.acquire(db, [PERMIT, *more], holder=holder, worker_id=worker_id, lasts_s=60)


async def test_what_is_used_is_told_of_providers_and_slots_not_of_every_guest(db: Database) -> None:
    await limits.acquire(db, [Limit("gallery/address/192.0.2.7", 5, "minute"), Limit("api/server", 5, "minute")])
    await limits.acquire(db, [Limit("ingest/slot/address", 5, "minute")])
    assert list(await used(db)) == ["api/server", "ingest/slot/address"]


async def worker(db: Database) -> int:
    rows = await db.fetch("INSERT INTO dramatiq.worker (host, pid, threads) VALUES ('x', 1, 8) RETURNING id")
    return int(rows[0]["id"])


async def test_fifty_at_once_get_three_permits(db: Database) -> None:
    got = await asyncio.gather(*(permit(db, str(number)) for number in range(50)), return_exceptions=True)
    assert sum(isinstance(one, Grant) for one in got) == 3
    assert {type(one) for one in got} == {Grant, Exhausted}
    assert await used(db) == {PERMIT.key: 3}


async def test_a_released_permit_is_the_next_ones(db: Database) -> None:
    for number in range(3):
        await permit(db, str(number))
    with pytest.raises(Exhausted):
        await permit(db, "late")
    await limits.release(db, [PERMIT], holder="1", spent=None)
    await permit(db, "late")
    assert await used(db) == {PERMIT.key: 3}


async def test_a_dead_workers_permits_go_with_its_row(db: Database) -> None:
    mine = await worker(db)
    for number in range(3):
        await permit(db, str(number), worker_id=mine)
    await db.fetch("DELETE FROM dramatiq.worker WHERE id = %(id)s", {"id": mine})
    assert await used(db) == {}


async def test_a_worker_taken_for_dead_gets_no_permit(db: Database) -> None:
    with pytest.raises(Exhausted):
        await permit(db, "ghost", worker_id=4711)
    assert await used(db) == {}


async def test_nothing_is_taken_where_one_limit_is_used_up(db: Database) -> None:
    minute = Limit("calls/gemini/minute", 1, "minute")
    await limits.acquire(db, [minute])
    with pytest.raises(Exhausted) as short:
        await permit(db, "a", minute)
    assert short.value.limit is minute
    assert 55 < short.value.retry_after_s <= 65
    assert await used(db) == {minute.key: 1}


async def test_a_minute_ends_and_a_day_ends_at_midnight_of_the_time_zone(db: Database) -> None:
    minute, day = Limit("m", 1, "minute"), Limit("d", 1, "day")
    await limits.acquire(db, [minute, day], time_zone="Asia/Tokyo")
    rows = await db.fetch(
        "SELECT key, expires_at AT TIME ZONE 'Asia/Tokyo' AS local, clock_timestamp() AS now FROM limit_use"
    )
    ends = {row["key"]: row["local"] for row in rows}
    assert (ends["d"].hour, ends["d"].minute, ends["d"].second) == (0, 0, 0)
    await db.fetch("UPDATE limit_use SET expires_at = clock_timestamp() - interval '1 s', holder = holder || '-before'")
    await limits.acquire(db, [minute, day], time_zone="Asia/Tokyo")
    assert await limits.sweep(db) == 2


async def test_money_is_reserved_and_put_right(db: Database) -> None:
    end = datetime.now(UTC) + timedelta(hours=3)
    evening = Limit("budget/slot-001/evening", 1.0, "period", 0.4, end, is_money=True)
    await limits.acquire(db, [evening, PERMIT], holder="a", lasts_s=9)
    await limits.acquire(db, [evening], holder="b")
    with pytest.raises(Exhausted) as short:
        await limits.acquire(db, [evening], holder="c")
    assert short.value.standings[0].left == pytest.approx(0.2)
    for _ in range(2):  # the answer to the first was lost
        await limits.release(db, [evening, PERMIT], holder="a", spent=0.1)
    assert await used(db) == {evening.key: pytest.approx(0.5)}
    await limits.acquire(db, [evening], holder="c")
    await limits.release(db, [evening], holder="c", spent=None)
    assert await used(db) == {evening.key: pytest.approx(0.9)}, "what nobody knows is taken for spent"


async def test_who_asks_again_because_the_answer_was_lost_has_permit_and_money_once(db: Database) -> None:
    day = Limit("budget/slot-001/day", 1.0, "day", 0.6, is_money=True)
    for _ in range(3):
        await limits.acquire(db, [PERMIT, day], holder="a", lasts_s=9)
    assert await used(db) == {PERMIT.key: 1, day.key: pytest.approx(0.6)}


async def test_money_of_a_holder_that_died_counts_as_spent(db: Database) -> None:
    mine, day = await worker(db), Limit("budget/slot-001/day", 1.0, "day", 0.6, is_money=True)
    await permit(db, "a", day, worker_id=mine)
    await db.fetch("DELETE FROM dramatiq.worker WHERE id = %(id)s", {"id": mine})
    assert await used(db) == {day.key: pytest.approx(0.6)}


async def test_of_a_spent_budget_not_even_a_call_of_unknown_price_is_had(db: Database) -> None:
    nothing = Limit("budget/slot-001/day", 0.0, "day", 0.0, is_money=True)
    with pytest.raises(Exhausted):
        await limits.acquire(db, [nothing], holder="a")


async def test_millions_fit(db: Database) -> None:
    day = Limit("budget/slot-001/day", 5e8, "day", 2_500_000.5, is_money=True)
    await limits.acquire(db, [day], holder="a")
    await limits.release(db, [day], holder="a", spent=3_000_000.25)
    assert await used(db) == {day.key: 3_000_000.25}


async def test_a_sweep_deletes_what_has_run_out_and_nothing_else(db: Database) -> None:
    await db.fetch(
        "INSERT INTO limit_use SELECT 'k', n::text, 1, clock_timestamp() - interval '1 s' "
        "FROM generate_series(1, 2500) n"
    )
    await permit(db, "a")
    assert await limits.sweep(db) == 2500
    assert await used(db) == {PERMIT.key: 1}


async def test_many_limits_taken_in_any_order_never_lock_each_other_out(db: Database) -> None:
    names = [Limit(f"k{number}", 1000, "permit") for number in range(5)]
    wanted = [names[number:] + names[:number] for number in range(5)] * 20
    await asyncio.gather(*(limits.acquire(db, one, holder=str(n), lasts_s=9) for n, one in enumerate(wanted)))
    assert set((await used(db)).values()) == {100.0}


async def test_a_thousand_rushes_never_go_over(db: Database, database_url: str) -> None:
    """From two pools, taking and giving back; the table itself is asked all the while."""
    other = Database(database_url, connections=4, application_name="other")
    most = 0

    async def rush(pool: Database, name: str) -> None:
        for number in range(50):
            holder = f"{name}-{number}"
            try:
                await limits.acquire(pool, [PERMIT], holder=holder, lasts_s=9)
            except Exhausted:
                continue
            await asyncio.sleep(0)
            await limits.release(pool, [PERMIT], holder=holder, spent=None)

    async def watch(connection: psycopg.AsyncConnection[tuple[int]]) -> None:
        nonlocal most
        while True:
            row = await (await connection.execute("SELECT count(*) FROM limit_use")).fetchone()
            most = max(most, row[0] if row else 0)

    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        watching = asyncio.create_task(watch(connection))
        await asyncio.gather(*(rush(pool, f"{n}-{id(pool)}") for n in range(10) for pool in (db, other)))
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    await other.close()
    assert 1 <= most <= 3
    assert await used(db) == {}


async def test_a_period_is_no_limit_before_it_begins_and_after_it_has_ended(db: Database) -> None:
    now = datetime.now(UTC)
    hour = timedelta(hours=1)
    later = Limit("budget/a/period/later", 0.0, "period", 5, until=now + 2 * hour, begins=now + hour)
    over = Limit("budget/a/period/over", 0.0, "period", 5, until=now - hour, begins=now - 2 * hour)
    assert (await limits.acquire(db, [later, over])).standings == []
    with pytest.raises(Exhausted):
        await limits.acquire(db, [later, Limit("budget/a/day", 1.0, "day", 5)])
    assert await used(db) == {}
