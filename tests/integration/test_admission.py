"""Who is let in: what waits and runs against the threads and lanes there are, and when a refused photo may return."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest

from photochanger import jobs
from photochanger.admission import Admission, NoRoom, Work, work_of
from photochanger.db import Database
from photochanger.failures import NoWorkers, QueueFull
from photochanger.jobs import Submission, Submitted
from photochanger.providers import Options, registry
from photochanger.slots import Route, Rung
from photochanger.usual import Times, Usual
from tests.integration.jobs_made import submission

pytestmark = pytest.mark.anyio
T_SYNC_S = 10.0
GEMINI = Work(lane="gemini", need_s=4.0, work_s=3.0)
LOCAL = Work(lane="local", need_s=1.5, work_s=0.5)


async def crew(db: Database, threads: int = 8, lanes: dict[str, int] | None = None) -> None:
    await db.fetch("INSERT INTO dramatiq.worker (host, pid, threads) VALUES ('x', 1, %(n)s)", {"n": threads})
    for name, width in (lanes or {}).items():
        await db.fetch("INSERT INTO dramatiq.lane VALUES (%(name)s, %(width)s)", {"name": name, "width": width})


def wanted(work: Work, **more: Any) -> Submission:
    return replace(submission(t_sync_s=T_SYNC_S), work=work, **more)


async def enters(db: Database, work: Work, **more: Any) -> Submitted | NoRoom:
    try:
        return await jobs.submit(db, wanted(work, **more))
    except NoRoom as full:
        return full


async def fill(db: Database, work: Work) -> int:
    """Photos that are let in one after the other, until one is refused; as if they came in one instant."""
    count = 0
    while isinstance(await enters(db, work), Submitted):
        await db.fetch("UPDATE dramatiq.queue SET due_at = clock_timestamp()")
        count += 1
        assert count < 500
    return count


async def test_an_idle_worker_takes_what_comes_even_if_it_usually_takes_too_long(db: Database) -> None:
    await crew(db)
    assert isinstance(await enters(db, Work(lane="openai", need_s=41, work_s=40)), Submitted)


async def test_photos_are_let_in_until_the_next_would_be_late(db: Database) -> None:
    """Two at once of 3 s each, 10 s less 4 for the call itself: 6 s of waiting, less caution, hold the work of three
    photos on two threads, and a fourth may wait for them."""
    await crew(db, lanes={"gemini": 2})
    assert await fill(db, GEMINI) == 4


async def test_a_lane_that_is_full_keeps_nobody_else_out(db: Database) -> None:
    await crew(db, threads=8, lanes={"gemini": 2})
    await fill(db, GEMINI)
    assert isinstance(await enters(db, LOCAL), Submitted)
    assert await fill(db, LOCAL) > 50


async def test_a_flood_without_lane_fills_the_threads_for_everybody(db: Database) -> None:
    await crew(db, threads=2, lanes={"gemini": 2})
    await fill(db, LOCAL)
    assert isinstance(await enters(db, GEMINI), NoRoom)


async def test_who_comes_all_at_once_is_let_in_as_if_one_came_after_the_other(db: Database) -> None:
    await crew(db, threads=32, lanes={"gemini": 32})
    began = time.monotonic()
    got = await asyncio.gather(*(enters(db, GEMINI) for _ in range(300)))
    late_s = time.monotonic() - began
    let_in = sum(isinstance(one, Submitted) for one in got)
    assert 48 - late_s * 8 - 1 <= let_in <= 51, "6 s on 32 threads, less caution and what passed while they came in"
    assert len(await db.fetch("SELECT FROM job")) == let_in


async def test_a_refused_photo_leaves_nothing_behind(db: Database) -> None:
    await crew(db, lanes={"gemini": 2})
    await fill(db, GEMINI)
    before = await db.fetch("SELECT count(*) AS n FROM job")
    assert isinstance(await enters(db, GEMINI, key="photo/x", key_s=60.0), NoRoom)
    assert await db.fetch("SELECT count(*) AS n FROM job") == before
    assert await db.fetch("SELECT FROM request_key") == []


async def test_what_is_less_urgent_makes_nobody_wait(db: Database) -> None:
    await crew(db, lanes={"gemini": 2})
    for _ in range(4):
        assert isinstance(await enters(db, GEMINI, priority=5), Submitted)
    assert isinstance(await enters(db, GEMINI, priority=5), NoRoom)
    assert await fill(db, GEMINI) == 4


async def test_work_that_is_nearly_done_counts_for_what_is_left_of_it(db: Database) -> None:
    await crew(db, lanes={"gemini": 2})
    await fill(db, GEMINI)
    await _taken(db, 2, seconds_ago=2.5)
    assert isinstance(await enters(db, GEMINI), Submitted)


async def test_who_has_another_rung_is_let_in_although_its_lane_is_full(db: Database) -> None:
    await crew(db, threads=8, lanes={"gemini": 2})
    await fill(db, GEMINI)
    routed = replace(GEMINI, need_s=1.5, lane_wait_s=4.0, rest_s=0.3)
    assert isinstance(await enters(db, routed), Submitted)
    assert isinstance(await enters(db, routed), Submitted)
    assert 88 <= await fill(db, routed) <= 110, "as many as six free threads serve between 4 s and 8.5"


async def test_another_rung_helps_nobody_where_the_lane_holds_every_thread(db: Database) -> None:
    await crew(db, threads=2, lanes={"gemini": 2})
    routed = replace(GEMINI, need_s=1.5, lane_wait_s=4.0, rest_s=0.3)
    assert await fill(db, routed) <= 8


async def test_calls_that_take_much_longer_than_usual_count_for_what_they_have_taken(db: Database) -> None:
    await crew(db, lanes={"gemini": 2})
    quick = replace(GEMINI, work_s=0.1)
    for _ in range(6):
        assert isinstance(await enters(db, quick), Submitted)
    await _taken(db, 2, seconds_ago=4)
    assert isinstance(await enters(db, quick), NoRoom), "four more of 4 s on two threads"


async def _taken(db: Database, count: int, *, seconds_ago: float) -> None:
    await db.fetch(
        "WITH at AS (SELECT clock_timestamp() - %(ago)s * interval '1 second' AS then) "
        "UPDATE dramatiq.queue SET state = 'consumed', worker_id = 1, leased_at = at.then, mtime = at.then FROM at "
        "WHERE message_id IN (SELECT message_id FROM dramatiq.queue LIMIT %(count)s)",
        {"ago": seconds_ago, "count": count},
    )


# -- the door ----------------------------------------------------------------------------------------------------------


async def test_the_door_refuses_before_the_database_is_asked_again(db: Database) -> None:
    await crew(db, lanes={"gemini": 2})
    door, slack_s = Admission(db), T_SYNC_S - GEMINI.need_s
    await fill(db, GEMINI)
    with pytest.raises(QueueFull) as refused:
        await door.check(GEMINI, slot_id="a", slack_s=slack_s)
    assert refused.value.retry_after_s is not None
    assert 1 <= refused.value.retry_after_s <= 5


async def test_the_door_counts_whom_it_let_in_since_it_looked(db: Database) -> None:
    await crew(db, lanes={"gemini": 2})
    door, slack_s = Admission(db), T_SYNC_S - GEMINI.need_s
    for _ in range(4):
        with await door.check(GEMINI, slot_id="a", slack_s=slack_s) as coming:
            coming.is_known()
            coming.let_in()
    with pytest.raises(QueueFull):
        await door.check(GEMINI, slot_id="a", slack_s=slack_s)


async def test_the_door_counts_whom_another_slot_of_the_same_lane_has_let_in(db: Database) -> None:
    await crew(db, lanes={"gemini": 2})
    door, slack_s = Admission(db), T_SYNC_S - GEMINI.need_s
    await door.check(GEMINI, slot_id="b", slack_s=slack_s)
    for _ in range(4):
        with await door.check(GEMINI, slot_id="a", slack_s=slack_s) as coming:
            coming.is_known()
            coming.let_in()
    with pytest.raises(QueueFull):
        await door.check(GEMINI, slot_id="b", slack_s=slack_s)
    routed = replace(GEMINI, lane_wait_s=1.0, rest_s=0.3)
    await door.check(routed, slot_id="c", slack_s=slack_s)


async def test_who_came_with_too_many_others_is_refused_as_soon_as_the_password_is_known(db: Database) -> None:
    await crew(db, lanes={"gemini": 2})
    door, slack_s = Admission(db), T_SYNC_S - GEMINI.need_s
    coming = [await door.check(GEMINI, slot_id="a", slack_s=slack_s) for _ in range(8)]
    for one in coming[:4]:
        one.is_known()
    with pytest.raises(QueueFull):
        coming[4].is_known()


async def test_the_door_counts_whose_upload_is_under_way_until_it_is_given_up(db: Database) -> None:
    await crew(db, lanes={"gemini": 2})
    door, slack_s = Admission(db), T_SYNC_S - GEMINI.need_s
    coming = [await door.check(GEMINI, slot_id="a", slack_s=slack_s) for _ in range(40)][:4]
    await door.check(GEMINI, slot_id="a", slack_s=slack_s)  # forty without a password take no place
    for one in coming:
        one.is_known()
    with pytest.raises(QueueFull):
        await door.check(GEMINI, slot_id="a", slack_s=slack_s)
    with coming[0]:
        pass  # it was refused for something else
    coming.append(await door.check(GEMINI, slot_id="a", slack_s=slack_s))
    coming[-1].is_known()
    for one in coming:
        one.at -= 2.0
    await door.check(GEMINI, slot_id="a", slack_s=slack_s)


async def test_a_thousand_refused_do_not_come_back_in_the_same_second(db: Database) -> None:
    await crew(db, threads=32, lanes={"gemini": 32})
    door, slack_s = Admission(db), T_SYNC_S - GEMINI.need_s
    full = NoRoom(wait_s=8.0, capacity=32)
    promised = [door.refusal(GEMINI, full, slack_s=slack_s).retry_after_s or 0 for _ in range(1000)]
    assert promised == sorted(promised)
    assert promised[0] <= 4
    assert 90 <= promised[-1] <= 100, "32 photos every 3 s"
    most = max(promised.count(second) for second in set(promised))
    assert most <= 12, "at most as many a second as are served in one"


async def test_without_a_worker_for_ten_seconds_photos_are_refused(db: Database) -> None:
    door = Admission(db)
    await door.check(LOCAL, slot_id="a", slack_s=5)
    door.alone_since -= 10
    with pytest.raises(NoWorkers):
        await door.check(LOCAL, slot_id="a", slack_s=5)
    await crew(db)
    door.forecasts.clear()
    await door.check(LOCAL, slot_id="a", slack_s=5)


# -- what a route asks for ---------------------------------------------------------------------------------------------


def asked(*rungs: Rung, t_sync_s: float = 48, **measured: Usual) -> Work:
    times = Times({(name, "image_edit", ""): usual for name, usual in measured.items()})
    return work_of(
        Route(rungs=list(rungs)),
        times,
        t_sync_response_s=t_sync_s,
        provider=registry().get,
        options=lambda provider: provider.options() if provider.name != "local" else Options(),
    )


def test_a_route_needs_the_time_of_its_quickest_rung_and_a_thread_for_its_first() -> None:
    first = Rung(provider="turbotext", operation="image_edit")
    last = Rung(provider="local", operation="original")
    alone = asked(first, turbotext=Usual(p90_s=12, mean_s=9))
    assert (alone.lane, alone.lane_wait_s) == ("turbotext", None)
    assert (alone.need_s, alone.work_s) == pytest.approx((13.25, 9.25), abs=0.3)
    routed = asked(first, last, turbotext=Usual(p90_s=12, mean_s=9))
    assert (routed.need_s, routed.work_s) == pytest.approx((2.05, 9.25), abs=0.3)
    assert routed.lane_wait_s == pytest.approx(48 - 1 - 12 - 0.8 - 1, abs=0.3)
    assert routed.rest_s == pytest.approx(1.05)


def test_a_provider_that_is_not_asked_now_counts_for_nothing() -> None:
    route = Route(
        rungs=[Rung(provider="turbotext", operation="image_edit"), Rung(provider="local", operation="original")]
    )
    closed = work_of(
        route,
        Times({}),
        t_sync_response_s=48,
        provider=registry().get,
        options=lambda provider: provider.options(),
        closed={"turbotext"},
    )
    assert (closed.lane, closed.lane_wait_s) == ("local", None)
    assert closed.work_s < 2


def test_a_provider_never_seen_counts_as_its_driver_says() -> None:
    assert asked(Rung(provider="turbotext", operation="image_edit")).work_s == pytest.approx(15.25)


def test_a_few_quick_calls_do_not_make_a_slow_provider_quick() -> None:
    one = Rung(provider="turbotext", operation="image_edit")
    few = asked(one, turbotext=Usual(p90_s=0.1, mean_s=0.1, calls=3))
    many = asked(one, turbotext=Usual(p90_s=0.1, mean_s=0.1, calls=200))
    assert few.work_s > 10
    assert many.work_s < 1.5
