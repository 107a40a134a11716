"""Circuit breakers: what opens one, who may try again, what closes it."""

from __future__ import annotations

import asyncio

import pytest

from photochanger import breakers
from photochanger.db import Database
from photochanger.failures import (
    Failure,
    InvalidImage,
    ProviderAuth,
    ProviderError,
    ProviderFailure,
    ProviderNoImage,
    ProviderQuota,
    ProviderRefused,
)

pytestmark = pytest.mark.anyio


async def fails(db: Database, failure: Failure, times: int = 1) -> None:
    for _ in range(times):
        await breakers.report(db, "gemini", failure)


async def asked(db: Database) -> bool:
    try:
        await breakers.ask(db, "gemini")
    except ProviderFailure:
        return False
    return True


async def passes(db: Database) -> None:
    """The pause is over."""
    await db.fetch("UPDATE breaker SET open_until = clock_timestamp() - interval '1 ms'")


async def pause_s(db: Database) -> float:
    return float((await breakers.standing(db))[0]["left_s"])


async def test_five_outages_in_a_row_open_it_and_four_do_not(db: Database) -> None:
    await fails(db, ProviderError("down"), 4)
    assert await asked(db)
    await fails(db, ProviderError("down"))
    with pytest.raises(ProviderError, match="is not asked for the next 5 s, after: down") as refused:
        await breakers.ask(db, "gemini")
    assert not refused.value.retryable
    assert await breakers.ask(db, "openai") is False, "another provider is none of its business"


async def test_a_success_between_them_begins_the_count_anew(db: Database) -> None:
    await fails(db, ProviderError("down"), 4)
    await breakers.report(db, "gemini", None)
    await fails(db, ProviderError("down"), 4)
    assert await asked(db)


async def test_outages_a_minute_apart_are_not_in_a_row(db: Database) -> None:
    await fails(db, ProviderError("down"), 4)
    await db.fetch("UPDATE breaker SET failed_at = failed_at - interval '61 s'")
    await fails(db, ProviderError("down"))
    assert await asked(db)


@pytest.mark.parametrize("failure", [ProviderAuth("no such key"), ProviderQuota("the day's quota is used up")])
async def test_a_wrong_key_and_a_used_up_quota_open_it_at_once(db: Database, failure: Failure) -> None:
    await fails(db, failure)
    with pytest.raises(type(failure)):
        await breakers.ask(db, "gemini")


@pytest.mark.parametrize(
    "failure", [ProviderRefused("no"), ProviderNoImage("none"), ProviderQuota("soon", retry_after_s=2), InvalidImage()]
)
async def test_what_says_nothing_bad_of_the_provider_never_opens_it(db: Database, failure: Failure) -> None:
    await fails(db, failure, 20)
    assert await asked(db)


async def test_after_the_pause_one_call_tries_and_the_others_wait(db: Database) -> None:
    await fails(db, ProviderAuth("no such key"))
    await passes(db)
    got = await asyncio.gather(*(breakers.ask(db, "gemini") for _ in range(20)), return_exceptions=True)
    assert got.count(True) == 1
    assert sum(isinstance(one, ProviderAuth) for one in got) == 19


async def test_a_trial_that_fails_doubles_the_pause_up_to_a_minute(db: Database) -> None:
    await fails(db, ProviderError("down"), 5)
    pauses = [await pause_s(db)]
    for _ in range(5):
        await passes(db)
        assert await breakers.ask(db, "gemini") is True
        await fails(db, ProviderError("still down"))
        pauses.append(await pause_s(db))
    assert [round(pause) for pause in pauses] == [5, 10, 20, 40, 60, 60]


async def test_a_trial_that_succeeds_closes_it(db: Database) -> None:
    await fails(db, ProviderError("down"), 5)
    await passes(db)
    assert await breakers.ask(db, "gemini") is True
    await breakers.report(db, "gemini", None)
    assert await breakers.standing(db) == []


async def test_a_trial_that_was_cut_off_leaves_it_to_somebody_else(db: Database) -> None:
    await fails(db, ProviderError("down"), 5)
    await passes(db)
    assert await breakers.ask(db, "gemini") is True
    await breakers.report(
        db, "gemini", InvalidImage("the photo is damaged")
    )  # of a call from before: the trial goes on
    with pytest.raises(ProviderError):
        await breakers.ask(db, "gemini")
    await breakers.report(db, "gemini", InvalidImage("the photo is damaged"), trial=True)
    assert await breakers.ask(db, "gemini") is True


async def test_calls_that_end_while_it_is_open_do_not_lengthen_the_pause(db: Database) -> None:
    await fails(db, ProviderError("down"), 30)
    assert await pause_s(db) <= 5


async def test_somebody_who_put_it_right_may_say_so(db: Database) -> None:
    await fails(db, ProviderAuth("no such key"))
    assert await breakers.reset(db, "gemini")
    assert await asked(db)
    assert not await breakers.reset(db, "gemini")
