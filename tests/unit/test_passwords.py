"""The ingest password: remembered when right, throttled by distinct wrong ones, side by side too."""

from __future__ import annotations

import asyncio

import pytest

from photochanger import accounts
from photochanger.failures import InvalidPassword, RateLimited
from photochanger.settings import PasswordHash
from web.passwords import DISTINCT_WRONG, IngestPassword

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def valid() -> list[PasswordHash]:
    return [PasswordHash(hash=asyncio.run(accounts.hash_password("the right one")))]


async def outcome(checker: IngestPassword, given: str, valid: list[PasswordHash], address: str = "10.0.0.1") -> str:
    try:
        await checker.check(given, valid, address=address, slot_id="slot-001")
    except (InvalidPassword, RateLimited) as failure:
        return failure.code
    return "ok"


async def test_guesses_side_by_side_count_as_much_as_one_after_the_other(valid: list[PasswordHash]) -> None:
    checker = IngestPassword()
    got = await asyncio.gather(*(outcome(checker, f"guess {n}", valid) for n in range(DISTINCT_WRONG * 2)))
    assert got.count("invalid_password") == DISTINCT_WRONG
    assert got.count("rate_limited") == DISTINCT_WRONG


async def test_the_right_password_of_many_cameras_at_once_is_right_for_each(valid: list[PasswordHash]) -> None:
    checker = IngestPassword()
    got = await asyncio.gather(*(outcome(checker, "the right one", valid) for _ in range(30)))
    assert set(got) == {"ok"}


async def test_the_same_wrong_password_counts_once_and_another_address_not_at_all(valid: list[PasswordHash]) -> None:
    checker = IngestPassword()
    assert {await outcome(checker, "misconfigured", valid) for _ in range(30)} == {"invalid_password"}
    for number in range(DISTINCT_WRONG):
        await outcome(checker, f"guess {number}", valid)
    assert await outcome(checker, "one more", valid) == "rate_limited"
    assert await outcome(checker, "one more", valid, address="10.0.0.2") == "invalid_password"


async def test_a_password_that_was_right_before_is_never_throttled(valid: list[PasswordHash]) -> None:
    checker = IngestPassword()
    assert await outcome(checker, "the right one", valid) == "ok"
    for number in range(DISTINCT_WRONG + 2):
        await outcome(checker, f"guess {number}", valid)
    assert await outcome(checker, "the right one", valid) == "ok"


async def test_a_rotated_password_is_forgotten(valid: list[PasswordHash]) -> None:
    checker = IngestPassword()
    assert await outcome(checker, "the right one", valid) == "ok"
    assert await outcome(checker, "the right one", []) == "invalid_password"
