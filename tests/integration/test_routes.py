"""A route's rungs inside one budget: when the next one takes over, and when it must not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from ops.simulators import Simulator, serving
from ops.simulators.turbotext import Turbotext
from photochanger import jobs, settings, slots, usual
from photochanger.config import Config
from photochanger.db import Database
from photochanger.image_pool import ImagePool
from photochanger.providers import Picture, Request
from photochanger.providers.local import Local
from photochanger.rungs import AttemptFailed, Served
from photochanger.slots import Route, Rung
from photochanger.storage.local import LocalStorage
from tests.integration.calls import simulated
from tests.integration.test_provider_failures import Bench, configured
from tests.photos import photo

pytestmark = pytest.mark.anyio
LONG_S = 20.0
LAST = Rung(provider="local", operation="original")


@pytest.fixture
async def bench(db: Database, storage: LocalStorage, pool: ImagePool, config: Config) -> Bench:
    return Bench(db, storage, pool, config)


@pytest.fixture
def openai() -> Iterator[Simulator]:
    with simulated("openai") as running:
        assert running is not None
        yield running


async def routed(bench: Bench, openai: Simulator, *more: Rung, **first: Any) -> None:
    """OpenAI first, then ``more``."""
    await configured(bench, "openai", openai, "https://photos.example.com")
    given = {"provider": "openai", "operation": "image_edit", "settings": {"prompt": "x"}, "pause_s": 0.05}
    route = Route(rungs=[Rung.model_validate({**given, **first}), *more])
    slot = (await slots.all_slots(bench.db))["slot-001"]
    await slots.save(bench.db, slot.model_copy(update={"route": route}))


async def causes(bench: Bench, job_id: Any) -> list[tuple[int, str, str | None]]:
    return [(row["rung"], row["provider"], row["cause"]) for row in await bench.attempts(job_id)]


@pytest.mark.parametrize(
    ("mode", "calls", "cause"),
    [
        ("http_503", 2, "provider_error"),
        ("auth", 1, "provider_auth"),
        ("quota", 1, "provider_quota"),
        ("bad_request", 1, "invalid_settings"),
        ("no_image", 1, "provider_refused"),
        ("truncated", 2, "provider_bad_output"),
        ("moderation", 1, "provider_refused"),
    ],
)
async def test_the_next_rung_makes_the_picture_that_the_first_could_not(
    mode: str, calls: int, cause: str, bench: Bench, openai: Simulator
) -> None:
    await routed(bench, openai, LAST)
    openai.mode = mode
    claim = await bench.claimed(t_sync_s=LONG_S)
    ended = await bench.served(claim)
    assert isinstance(ended, Served)
    assert (ended.served_by, ended.rung) == ("local/original", 1)
    assert openai.calls["edit"] == calls
    found = await causes(bench, claim.job_id)
    assert found[:-1] == [(0, "openai", cause)] * calls
    assert found[-1] == (1, "local", None)


async def test_a_rung_that_hangs_leaves_the_next_one_its_time(bench: Bench, openai: Simulator) -> None:
    await routed(bench, openai, LAST)
    openai.mode = "hang"
    began = time.monotonic()
    ended = await bench.served(await bench.claimed(t_sync_s=4))
    assert isinstance(ended, Served)
    assert ended.served_by == "local/original"
    assert time.monotonic() - began < 4 - 0.5
    assert openai.calls["edit"] == 1


async def test_a_rung_without_a_key_or_driver_is_passed_over(bench: Bench, openai: Simulator) -> None:
    from photochanger import vault

    await routed(bench, openai, LAST)
    await vault.forget(bench.db, "openai")
    claim = await bench.claimed(t_sync_s=LONG_S)
    ended = await bench.served(claim)
    assert isinstance(ended, Served)
    assert await causes(bench, claim.job_id) == [(1, "local", None)]
    await bench.db.fetch("UPDATE slot SET route = jsonb_set(route, '{rungs,0,provider}', '\"nobody\"')")
    assert isinstance(await bench.served(await bench.claimed(t_sync_s=LONG_S)), Served)


@pytest.mark.parametrize(("zone", "day"), [("Europe/Moscow", 30), ("Asia/Yekaterinburg", 1)])
async def test_a_photo_s_day_is_the_studio_s_when_it_came(
    zone: str, day: int, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    made = Local.transform

    async def transform(self: Local, request: Request, budget_s: float) -> Picture:
        seen.append(request.came_on)
        return await made(self, request, budget_s)

    monkeypatch.setattr(Local, "transform", transform)
    await settings.save(bench.db, {"time_zone": zone})
    await bench.slot("local", "frame", {"date": True})
    claim = await bench.claimed(t_sync_s=LONG_S)
    assert isinstance(await bench.served(replace(claim, created_at=datetime(2026, 11, 30, 20, 30, tzinfo=UTC))), Served)
    assert [one.day for one in seen] == [day]


async def test_a_refusal_ends_the_job_where_the_slot_wants_that(bench: Bench, openai: Simulator) -> None:
    await routed(bench, openai, LAST, on_refusal="fail")
    openai.mode = "moderation"
    ended = await bench.served(await bench.claimed(t_sync_s=LONG_S))
    assert isinstance(ended, AttemptFailed)
    assert ended.failure.code == "provider_refused"


async def test_a_damaged_photo_is_not_tried_with_every_rung(bench: Bench, openai: Simulator) -> None:
    await routed(bench, openai, LAST)
    whole = photo(400, 300)
    claim = await bench.claimed(t_sync_s=LONG_S, data=whole[: len(whole) // 2])
    ended = await bench.served(claim)
    assert isinstance(ended, AttemptFailed)
    assert ended.failure.code == "invalid_image"
    assert await causes(bench, claim.job_id) == []


async def test_a_next_rung_that_the_time_does_not_hold_is_not_begun(bench: Bench, openai: Simulator) -> None:
    slow = Rung(provider="openai", operation="image_edit", settings={"prompt": "y", "model": "gpt-image-2"})
    await routed(bench, openai, slow, max_tries=1)
    current = await settings.load(bench.db)
    models = current.providers["openai"]["models"]
    models["gpt-image-2"] = {**models["gpt-image-2"], "usual_s": 2.5}
    await settings.save(bench.db, {"providers": {"openai": {**current.providers["openai"], "models": models}}})
    openai.mode, openai.latency_s = "http_503", 0.3
    ended = await bench.served(await bench.claimed(t_sync_s=3.7))
    assert isinstance(ended, AttemptFailed)
    assert ended.failure.code == "provider_error"
    assert openai.calls["edit"] == 1


async def test_three_rungs_are_walked_in_order(bench: Bench, openai: Simulator) -> None:
    middle = Rung(provider="openai", operation="image_edit", settings={"prompt": "second"}, max_tries=1)
    await routed(bench, openai, middle, LAST, max_tries=1)
    openai.mode = "http_500"
    claim = await bench.claimed(t_sync_s=LONG_S)
    assert isinstance(await bench.served(claim), Served)
    assert [(rung, cause) for rung, _, cause in await causes(bench, claim.job_id)] == [
        (0, "provider_error"),
        (1, "provider_error"),
        (2, None),
    ]


async def test_after_a_crash_a_quick_rung_may_still_save_the_guest(bench: Bench, openai: Simulator) -> None:
    await routed(bench, openai, LAST)
    current = await settings.load(bench.db)
    slow = {name: {"usual_s": 15} for name in current.providers["openai"]["models"]}
    await settings.save(bench.db, {"providers": {"openai": {**current.providers["openai"], "models": slow}}})
    claim = await bench.claimed(t_sync_s=10)
    again = await jobs.claim(bench.db, claim.job_id, usual_s=await bench.router.usual_s())
    assert again is not None
    ended = await bench.served(again)
    assert isinstance(ended, Served)
    assert ended.served_by == "local/original"
    assert openai.calls["edit"] == 0, "there was no time for it, and the next rung was quick"


async def test_after_a_crash_the_walk_goes_on_where_something_is_paid_for(bench: Bench, openai: Simulator) -> None:
    second = Rung(provider="turbotext", operation="image_edit", settings={"prompt": "x"})
    with serving(Turbotext()) as turbotext:
        await configured(bench, "turbotext", turbotext, "https://photos.example.com")
        theirs = (await settings.load(bench.db)).model_dump()
        await routed(bench, openai, second)
        ours = (await settings.load(bench.db)).providers
        await settings.save(
            bench.db,
            {
                "providers": {**ours, **theirs["providers"]},
                "allowed_private_hosts": theirs["allowed_private_hosts"],
            },
        )
        claim = await bench.claimed(t_sync_s=LONG_S)
        await jobs.remember(bench.db, claim, "turbotext/77")
        turbotext.jobs["77"] = {"mode": "success", "polls": 0, "photo": photo(64, 48), "lost": 0}
        again = await jobs.claim(bench.db, claim.job_id, usual_s=await bench.router.usual_s())
        assert again is not None
        ended = await bench.served(again)
    assert isinstance(ended, Served)
    assert ended.served_by == "turbotext/image_edit"
    assert openai.calls["edit"] == 0


# -- what was measured -----------------------------------------------------------------------------------------------


async def measured(bench: Bench, p90_s: float, model: str = "gpt-image-1-mini") -> None:
    await bench.db.fetch(
        "INSERT INTO usual_time (provider, operation, model, calls, p50_s, p90_s, mean_s, mean_cost) "
        "VALUES ('openai', 'image_edit', %(model)s, 100, %(s)s, %(s)s, %(s)s, 0)",
        {"s": p90_s, "model": model},
    )


async def test_recent_calls_are_measured_by_provider_operation_and_model(bench: Bench, openai: Simulator) -> None:
    await routed(bench, openai)
    for seconds, cause in [(n / 10, None) for n in range(1, 11)] + [(5.0, "provider_error"), (99.0, "cancelled")]:
        claim = await bench.claimed(t_sync_s=LONG_S)
        attempt = await jobs.dispatch(bench.db, claim, rung=0, provider="openai", operation="image_edit")
        await bench.db.fetch(
            "UPDATE attempt SET responded_at = dispatched_at + %(s)s * interval '1 second', cause = %(cause)s "
            "WHERE id = %(id)s",
            {"s": seconds, "cause": cause, "id": attempt},
        )
    assert await usual.measure(bench.db) == 1
    row = (await bench.db.fetch("SELECT * FROM usual_time"))[0]
    assert (row["provider"], row["operation"], row["model"]) == ("openai", "image_edit", "gpt-image-1-mini")
    assert row["p90_s"] == pytest.approx(0.91)
    assert row["mean_s"] == pytest.approx((5.5 + 5.0) / 11), "time that failures took is time that threads were busy"


async def test_a_rung_that_by_measure_does_not_fit_is_neither_begun_nor_kept_time_for(
    bench: Bench, openai: Simulator
) -> None:
    slow = Rung(provider="openai", operation="image_edit", settings={"prompt": "y", "model": "gpt-image-2"})
    await routed(bench, openai, slow, max_tries=1)
    await measured(bench, 2.8, "gpt-image-2")
    openai.mode = "http_503"
    claim = await bench.claimed(t_sync_s=2.5)
    ended = await bench.served(claim)
    assert isinstance(ended, AttemptFailed)
    assert await causes(bench, claim.job_id) == [(0, "openai", "provider_error")]


async def test_a_photo_that_waited_long_leaves_a_rung_that_no_longer_fits(bench: Bench, openai: Simulator) -> None:
    await routed(bench, openai, LAST)
    await measured(bench, 6)
    claim = replace(await bench.claimed(t_sync_s=5), queue_wait_s=15.0)
    ended = await bench.served(claim)
    assert isinstance(ended, Served)
    assert (ended.served_by, openai.calls["edit"]) == ("local/original", 0)


# -- limits, breaker, budgets ----------------------------------------------------------------------------------------


async def limited(
    bench: Bench, openai: Simulator, *more: Rung, first: dict[str, Any] | None = None, **limits: Any
) -> None:
    await routed(bench, openai, *more, **(first or {}))
    current = await settings.load(bench.db)
    await settings.save(bench.db, {"providers": {"openai": {**current.providers["openai"], **limits}}})


async def in_use(bench: Bench) -> dict[str, float]:
    rows = await bench.db.fetch("SELECT key, sum(amount)::float8 AS used FROM limit_use GROUP BY key")
    return {row["key"]: row["used"] for row in rows}


@pytest.mark.parametrize("mode", ["success", "http_503", "moderation", "truncated", "hang"])
async def test_permits_come_back_whatever_became_of_the_call(bench: Bench, openai: Simulator, mode: str) -> None:
    await limited(bench, openai, max_concurrent=1)
    openai.mode = mode
    await bench.served(await bench.claimed(t_sync_s=3))
    assert await in_use(bench) == {}


async def test_a_busy_provider_is_waited_for_and_then_left_to_the_next_rung(bench: Bench, openai: Simulator) -> None:
    await limited(bench, openai, LAST, max_concurrent=1)
    await bench.db.fetch(
        "INSERT INTO limit_use VALUES ('calls/openai/at-once', 'somebody', 1, clock_timestamp() + interval '1 hour')"
    )
    began = time.monotonic()
    ended = await bench.served(await bench.claimed(t_sync_s=4))
    assert isinstance(ended, Served)
    assert (ended.served_by, openai.calls["edit"]) == ("local/original", 0)
    assert 0.5 < time.monotonic() - began < 3.5
    await bench.db.fetch("DELETE FROM limit_use")
    assert isinstance(await bench.served(await bench.claimed(t_sync_s=4)), Served)
    assert openai.calls["edit"] == 1


async def test_calls_of_a_day_that_are_used_up_are_a_quota(bench: Bench, openai: Simulator) -> None:
    await limited(bench, openai, calls_per_day=1)
    assert isinstance(await bench.served(await bench.claimed(t_sync_s=LONG_S)), Served)
    ended = await bench.served(await bench.claimed(t_sync_s=LONG_S))
    assert isinstance(ended, AttemptFailed)
    assert ended.failure.code == "provider_quota"
    assert "1 times a day" in ended.failure.detail
    assert openai.calls["edit"] == 1


async def test_an_open_breaker_spares_the_call_and_says_why(bench: Bench, openai: Simulator) -> None:
    await routed(bench, openai, max_tries=5)
    openai.mode = "http_503"
    first = await bench.served(await bench.claimed(t_sync_s=LONG_S))
    assert isinstance(first, AttemptFailed)
    ended = await bench.served(await bench.claimed(t_sync_s=LONG_S))
    assert isinstance(ended, AttemptFailed)
    assert ended.failure.code == "provider_error"
    assert "openai is not asked for the next" in ended.failure.detail
    assert "overloaded" in ended.failure.detail
    assert openai.calls["edit"] == 5
    await routed(bench, openai, LAST)  # saving what is set about providers asks them anew
    await bench.served(await bench.claimed(t_sync_s=LONG_S))
    assert openai.calls["edit"] > 5


async def test_a_wrong_key_is_tried_once_and_a_new_one_at_once(bench: Bench, openai: Simulator) -> None:
    from photochanger import vault

    await routed(bench, openai)
    openai.mode = "auth"
    for _ in range(3):
        ended = await bench.served(await bench.claimed(t_sync_s=LONG_S))
        assert isinstance(ended, AttemptFailed)
        assert ended.failure.code == "provider_auth"
    assert openai.calls["edit"] == 1
    openai.mode = "success"
    await vault.store(bench.db, bench.keys, "openai", "simulator-key")
    assert isinstance(await bench.served(await bench.claimed(t_sync_s=LONG_S)), Served)


async def budgeted(bench: Bench, **budget: Any) -> None:
    slot = (await slots.all_slots(bench.db))["slot-001"]
    await slots.save(bench.db, slot.model_copy(update={"options": slots.Options(**budget)}))


async def test_a_budget_is_reserved_before_the_call_and_spent_money_goes_to_the_next_rung(
    bench: Bench, openai: Simulator
) -> None:
    await limited(bench, openai, LAST, prices={"image_edit": 0.4})
    await budgeted(bench, budget_per_day=1.0)
    served = [await bench.served(await bench.claimed(t_sync_s=LONG_S)) for _ in range(3)]
    assert [one.served_by for one in served if isinstance(one, Served)] == ["openai/image_edit"] * 2 + [
        "local/original"
    ]
    assert openai.calls["edit"] == 2
    assert await in_use(bench) == {"budget/slot-001/day": 0.8}


async def test_a_spent_budget_without_another_rung_has_its_own_code(bench: Bench, openai: Simulator) -> None:
    from datetime import UTC, datetime, timedelta

    await limited(bench, openai, prices={"image_edit": 0.4})
    now = datetime.now(UTC)
    evening = {"name": "Свадьба, 5 июля", "begins_at": now, "ends_at": now + timedelta(hours=4), "amount": 0.1}
    await budgeted(bench, budget_period=evening)
    ended = await bench.served(await bench.claimed(t_sync_s=LONG_S))
    assert isinstance(ended, AttemptFailed)
    assert ended.failure.code == "budget_spent"
    assert "Свадьба, 5 июля: 0.1" in ended.failure.detail
    assert openai.calls["edit"] == 0
    for name in ("", " ", "a/b", "a\nb", "a\0"):
        with pytest.raises(ValidationError):
            slots.BudgetPeriod.model_validate(evening | {"name": name})


async def test_a_call_that_the_provider_refused_costs_the_budget_nothing(bench: Bench, openai: Simulator) -> None:
    await limited(bench, openai, prices={"image_edit": 0.4})
    await budgeted(bench, budget_per_day=1.0)
    openai.mode = "moderation"
    await bench.served(await bench.claimed(t_sync_s=LONG_S))
    assert (await in_use(bench)).get("budget/slot-001/day", 0) == 0


# -- hedging ---------------------------------------------------------------------------------------------------------


async def hedged(bench: Bench, openai: Simulator, *more: Rung, **first: Any) -> None:
    await routed(bench, openai, *more, **first)
    slot = (await slots.all_slots(bench.db))["slot-001"]
    await slots.save(bench.db, slot.model_copy(update={"route": slot.route.model_copy(update={"hedge": True})}))
    await measured(bench, 0.4)


async def test_a_slow_call_is_raced_by_the_next_rung_and_cut_off(bench: Bench, openai: Simulator) -> None:
    await hedged(bench, openai, LAST)
    openai.mode = "hang"
    began = time.monotonic()
    claim = await bench.claimed(t_sync_s=LONG_S)
    ended = await bench.served(claim)
    assert isinstance(ended, Served)
    assert ended.served_by == "local/original"
    assert 0.5 <= time.monotonic() - began < 5
    assert await causes(bench, claim.job_id) == [(0, "openai", "cancelled"), (1, "local", None)]
    assert await in_use(bench) == {}


async def test_a_call_in_its_usual_time_is_not_raced(bench: Bench, openai: Simulator) -> None:
    await hedged(bench, openai, LAST)
    openai.latency_s = 0.1
    claim = await bench.claimed(t_sync_s=LONG_S)
    ended = await bench.served(claim)
    assert isinstance(ended, Served)
    assert ended.served_by == "openai/image_edit"
    assert await causes(bench, claim.job_id) == [(0, "openai", None)]


async def test_a_refusal_ends_the_race_where_the_slot_wants_that(bench: Bench, openai: Simulator) -> None:
    second = Rung(provider="openai", operation="image_edit", settings={"prompt": "y"})
    await hedged(bench, openai, second, on_refusal="fail")
    openai.latency_s, openai.mode = 1.0, "moderation"
    ended = await bench.served(await bench.claimed(t_sync_s=LONG_S))
    assert isinstance(ended, AttemptFailed)
    assert ended.failure.code == "provider_refused"


async def test_the_first_may_still_win_when_the_rung_that_raced_it_failed(bench: Bench, openai: Simulator) -> None:
    second = Rung(provider="openai", operation="image_edit", settings={"prompt": "second"}, max_tries=1)
    await hedged(bench, openai, second, max_tries=1)
    openai.script.extend(["success", "http_500"])
    openai.latency_s = 1.0
    claim = await bench.claimed(t_sync_s=LONG_S)
    ended = await bench.served(claim)
    assert isinstance(ended, Served)
    assert ended.rung == 0


async def test_a_refused_rung_takes_nothing_from_the_first_that_it_raced(bench: Bench, openai: Simulator) -> None:
    second = Rung(provider="openai", operation="image_edit", settings={"prompt": "second"}, on_refusal="fail")
    await hedged(bench, openai, second)
    openai.script.extend(["success", "moderation"])
    openai.latency_s = 1.0
    ended = await bench.served(await bench.claimed(t_sync_s=LONG_S))
    assert isinstance(ended, Served)
    assert ended.rung == 0


# -- late ------------------------------------------------------------------------------------------------------------


async def test_a_call_that_runs_at_the_deadline_may_finish_where_the_slot_keeps_late_results(
    bench: Bench, openai: Simulator
) -> None:
    await routed(bench, openai)
    await budgeted(bench, keep_late_result=True)
    openai.latency_s = 3.0
    began = time.monotonic()
    ended = await bench.served(await bench.claimed(t_sync_s=2))
    assert isinstance(ended, Served)
    assert time.monotonic() - began > 2.5
