"""What is wrong tonight: each thing by itself, from how the machinery stands."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from photochanger.slots import BudgetPeriod, Options, Route, Rung, Slot
from web.api.providers import BreakerView, ProviderView
from web.api.system import DiskView
from web.live import QueueNews
from web.pages import words
from web.pages.alerts import Machinery, Spent, calls_today, firing, spent
from web.pages.overview import light_of

AT = datetime(2026, 11, 25, tzinfo=UTC)
SLOT = Slot(id="slot-001", name="Booth", is_active=True, route=Route(rungs=[Rung(provider="gemini", operation="edit")]))
WELL = Machinery(
    queue=QueueNews(queued=0, running=0, dead=0, oldest_s=0, workers=1),
    scheduler="here:1",
    disk=DiskView(free_bytes=100, total_bytes=200, reserve_bytes=10, is_there=True),
    patience_s=48,
    providers=[],
    budgets=[],
    slots_on=1,
    grace_ends_at=None,
)


def ended(*, jobs: int, failed: int = 0, fell_back: int = 0) -> dict[str, Any]:
    return {"slot_id": "slot-001", "jobs": jobs, "failed": failed, "fell_back": fell_back, "cause": "provider_error"}


def provider(*, is_configured: bool = True, is_open: bool = False, **options: Any) -> ProviderView:
    breaker = BreakerView(
        is_open=is_open, failures=5, code="provider_quota", detail="used up", failed_at=AT, asked_again_in_s=30
    )
    return ProviderView(
        name="gemini", operations=[], models=[], needs_key=True, is_configured=is_configured, key_source=None,
        key_stored_at=None, is_healthy=is_configured and not is_open, breaker=breaker if is_open else None,
        options=options, options_schema={}, usual=[],
    )  # fmt: skip


def test_nothing_is_wrong_when_all_is_well() -> None:
    assert firing(WELL) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"endings": [ended(jobs=2, failed=2)]},
        {"endings": [ended(jobs=20, fell_back=9)]},
        {"refused": {("slot-001", "invalid_password"): 2}},
        {"providers": [provider(calls_per_day=100)], "calls": {"gemini": 79, "openai": 100}},
        {"providers": [provider()], "calls": {"gemini": 1000}},
    ],
)
def test_what_happens_now_and_then_is_no_alarm(changes: dict[str, Any]) -> None:
    assert firing(replace(WELL, **changes)) == []


def test_the_calls_of_a_day_are_found_among_what_is_used() -> None:
    keys = ("calls/gemini/day", "calls/gemini/minute", "budget/gemini/day", "calls/openai/at-once")
    assert calls_today([{"key": key, "used": 7.0} for key in keys]) == {"gemini": 7.0}


@pytest.mark.parametrize(
    ("code", "level", "changes"),
    [
        ("no_workers", "failed", {"queue": QueueNews(queued=0, running=0, dead=0, oldest_s=0, workers=0)}),
        ("queue_long", "failed", {"queue": QueueNews(queued=9, running=1, dead=0, oldest_s=25, workers=1)}),
        ("dead_letters", "waiting", {"queue": QueueNews(queued=0, running=0, dead=2, oldest_s=0, workers=1)}),
        ("no_scheduler", "failed", {"scheduler": None}),
        ("disk_gone", "failed", {"disk": DiskView(free_bytes=0, total_bytes=0, reserve_bytes=0, is_there=False)}),
        ("disk_full", "failed", {"disk": DiskView(free_bytes=9, total_bytes=200, reserve_bytes=10, is_there=True)}),
        ("disk_low", "waiting", {"disk": DiskView(free_bytes=29, total_bytes=200, reserve_bytes=10, is_there=True)}),
        ("key_missing", "failed", {"providers": [provider(is_configured=False)]}),
        ("breaker_open", "failed", {"providers": [provider(is_open=True)]}),
        ("budget_spent", "failed", {"budgets": [Spent(SLOT, "", 10, 10)]}),
        ("budget_nearly", "waiting", {"budgets": [Spent(SLOT, "wedding", 8, 10)]}),
        ("no_slots", "waiting", {"slots_on": 0}),
        ("grace", "waiting", {"grace_ends_at": AT}),
        ("backup_failed", "waiting", {"backup_failed": "storage_full"}),
        ("photos_fail", "failed", {"endings": [ended(jobs=6, failed=3)]}),
        ("photos_fail", "waiting", {"endings": [ended(jobs=20, failed=9)]}),
        ("photos_fall_back", "waiting", {"endings": [ended(jobs=6, failed=2, fell_back=3)]}),
        ("photos_refused", "waiting", {"refused": {("slot-001", "invalid_password"): 3}}),
        ("photos_refused", "waiting", {"refused": {("slot-x", "slot_not_found"): 9}}),
        ("photos_refused", "waiting", {"refused": {(f"made up {n}", "slot_not_found"): 1 for n in range(9)}}),
        ("calls_nearly", "waiting", {"providers": [provider(calls_per_day=100)], "calls": {"gemini": 80}}),
        ("calls_nearly", "failed", {"providers": [provider(calls_per_day=100)], "calls": {"gemini": 100}}),
    ],
)
def test_each_thing_that_goes_wrong_is_told(code: str, level: str, changes: dict[str, Any]) -> None:
    assert [(one.code, one.level) for one in firing(replace(WELL, **changes))] == [(code, level)]
    assert {f"alert.{code}", f"alert.{code}.do"} <= words("en").keys()


@pytest.mark.parametrize(
    ("code", "path"),
    [
        ("invalid_password", "/slots/slot-001"),
        ("payload_too_large", "/settings?part=limits"),
        ("queue_full", "/jobs?status=pending"),
        ("slot_disabled", "/slots/slot-001"),
        ("invalid_image", "/slots/slot-001"),
    ],
)
def test_what_is_to_be_done_about_refused_photos_depends_on_why(code: str, path: str) -> None:
    names = {"slot-001": "Booth"}
    [alert] = firing(replace(WELL, refused={("slot-001", code): 3}, slot_names=names))
    assert alert.path == path
    assert {f"alert.photos_refused.do{alert.advice}", f"alert.photos_refused.go{alert.advice}"} <= words("en").keys()


def test_refusals_that_another_alert_tells_of_are_not_told_twice() -> None:
    names = {"slot-001": "Booth"}
    assert firing(replace(WELL, refused={("slot-001", "storage_full"): 30}, slot_names=names)) == []


def test_what_stops_the_evening_comes_first() -> None:
    found = firing(replace(WELL, slots_on=0, scheduler=None))
    assert [one.code for one in found] == ["no_scheduler", "no_slots"]


def test_what_is_spent_is_found_by_the_budget_s_own_key() -> None:
    period = BudgetPeriod(name="wedding", begins_at=AT, ends_at=AT.replace(day=26), amount=20)
    slot = SLOT.model_copy(update={"options": Options(budget_per_day=10, budget_period=period)})
    in_use = [
        {"key": "budget/slot-001/day", "used": 4.0},
        {"key": "budget/slot-001/period/wedding", "used": 5.0},
        {"key": "calls/gemini/at-once", "used": 1.0},
    ]
    assert [(one.period, one.used, one.most) for one in spent([slot], in_use)] == [("", 4, 10), ("wedding", 5, 20)]


def test_a_slot_s_light_says_whether_its_route_can_be_walked() -> None:
    assert light_of(SLOT, None, {"gemini": provider()}) == "good"
    assert light_of(SLOT, None, {"gemini": provider(is_open=True)}) == "failed"
    fallback = Route(rungs=[*SLOT.route.rungs, Rung(provider="local", operation="original")])
    both = SLOT.model_copy(update={"route": fallback})
    local = provider().model_copy(update={"name": "local"})
    assert light_of(both, None, {"gemini": provider(is_open=True), "local": local}) == "waiting"
    assert light_of(SLOT.model_copy(update={"is_active": False}), None, {}) == ""


def test_every_alert_says_what_to_do_and_where_it_leads() -> None:
    known = words("en")
    codes = {key.split(".")[1] for key in known if key.startswith("alert.")}
    assert [code for code in codes if not {f"alert.{code}", f"alert.{code}.do", f"alert.{code}.go"} <= set(known)] == []
