"""A route's rungs inside one budget: when the next one takes over, and when it must not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from ops.simulators import Simulator
from ops.simulators.turbotext import Turbotext
from photochanger import jobs, settings, slots
from photochanger.config import Config
from photochanger.db import Database
from photochanger.image_pool import ImagePool
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
        ("no_image", 2, "provider_no_image"),
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
    with simulated("turbotext") as turbotext:
        assert isinstance(turbotext, Turbotext)
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
