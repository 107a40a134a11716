"""Signing in and staying so: guesses that wait, tokens that are exchanged, sessions that end."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from photochanger import accounts, audit, logins, sessions
from photochanger.db import Database
from photochanger.failures import Failure, InvalidCredentials, InvalidToken, LoginThrottled
from photochanger.permissions import PERMISSIONS
from photochanger.sessions import Kind, SignedIn
from photochanger.tokens import MasterKeys
from tests.api import HASHED, PASSWORD

pytestmark = pytest.mark.anyio

KEYS = MasterKeys({"k1": b"o" * 32})
ROTATED = MasterKeys({"k2": b"n" * 32, "k1": b"o" * 32})
HERE, THERE = "192.0.2.1", "198.51.100.7"


@pytest.fixture(autouse=True)
async def anna(db: Database) -> None:
    await db.fetch(
        "INSERT INTO account (name, password_hash, permissions, must_change) VALUES ('anna', %(hash)s, %(all)s, false)",
        {"hash": HASHED, "all": list(PERMISSIONS)},
    )


async def sign_in(
    db: Database, password: str = PASSWORD, *, name: str = "anna", address: str = HERE, kind: Kind = "api"
) -> SignedIn:
    return await sessions.sign_in(db, KEYS, name=name, password=password, address=address, kind=kind)


async def failed_before(db: Database, count: int, *, address: str = "", ago_s: float, name: str = "anna") -> None:
    """Writes failures down, each from an address of its own where none is given."""
    await db.fetch(
        "INSERT INTO login_failure (account, address, at) "
        "SELECT %(name)s, coalesce(nullif(%(address)s, ''), '203.0.113.' || n), "
        "clock_timestamp() - %(ago)s * interval '1 second' FROM generate_series(1, %(count)s) AS n",
        {"name": name, "address": address, "ago": ago_s, "count": count},
    )


async def code(db: Database, password: str = PASSWORD, *, name: str = "anna", address: str = HERE) -> str:
    try:
        await sign_in(db, password, name=name, address=address)
    except Failure as failure:
        return failure.code
    return "in"


async def wait_s(db: Database, *, name: str = "anna", address: str = HERE) -> float:
    with pytest.raises(LoginThrottled) as throttled:
        await sign_in(db, name=name, address=address)
    assert throttled.value.retry_after_s is not None
    return throttled.value.retry_after_s


# -- guesses --------------------------------------------------------------------------------------------------------


async def test_five_failures_of_an_address_make_it_wait_and_nobody_else(db: Database) -> None:
    assert [await code(db, "wrong password") for _ in range(5)] == ["invalid_credentials"] * 5
    assert 540 < await wait_s(db) <= 600
    assert await code(db, address=THERE) == "in"


async def test_ten_failures_a_minute_of_an_address_at_whatever_accounts_make_it_wait(db: Database) -> None:
    codes = await asyncio.gather(*(code(db, name=f"nobody-{number}") for number in range(14)))
    assert sorted(codes) == ["invalid_credentials"] * 10 + ["login_throttled"] * 4
    assert 0 < await wait_s(db) <= 60
    assert await code(db, address=THERE) == "in"
    await db.fetch("UPDATE login_failure SET at = at - interval '1 minute'")
    assert await code(db) == "in"


async def test_guesses_side_by_side_are_no_more_than_one_after_the_other(db: Database) -> None:
    codes = await asyncio.gather(*(code(db, f"guess {number}") for number in range(12)))
    assert sorted(codes) == ["invalid_credentials"] * 5 + ["login_throttled"] * 7


async def test_failures_are_forgotten_after_ten_minutes(db: Database) -> None:
    await failed_before(db, 5, address=HERE, ago_s=601)
    assert await code(db) == "in"


async def test_the_right_password_clears_its_addresss_failures(db: Database) -> None:
    await failed_before(db, 4, address=HERE, ago_s=5)
    await failed_before(db, 1, address=THERE, ago_s=5)
    assert await code(db) == "in"
    assert [row["address"] for row in await db.fetch("SELECT address FROM login_failure")] == [THERE]


@pytest.mark.parametrize(("failures", "longest_s"), [(10, 1), (13, 8), (15, 32), (16, 60), (400, 60)])
async def test_an_account_under_attack_waits_longer_each_time_and_never_over_a_minute(
    db: Database, failures: int, longest_s: float
) -> None:
    await failed_before(db, failures, ago_s=0)
    assert 0 < await wait_s(db, address=THERE) <= longest_s
    await db.fetch("UPDATE login_failure SET at = at - %(s)s * interval '1 second'", {"s": longest_s})
    assert await code(db, address=THERE) == "in"


async def test_the_owner_is_not_held_up_where_they_have_signed_in_before(db: Database) -> None:
    await sign_in(db)
    await failed_before(db, 400, ago_s=0)
    assert await code(db) == "in"
    assert await code(db, address=THERE) == "login_throttled"


async def test_an_unknown_account_is_treated_as_a_known_one(db: Database) -> None:
    assert [await code(db, name="nobody") for _ in range(6)] == ["invalid_credentials"] * 5 + ["login_throttled"]
    assert [await code(db, name="No Name!") for _ in range(6)] == ["invalid_credentials"] * 5 + ["login_throttled"]


def test_nobodys_hash_costs_as_much_as_anybodys() -> None:
    assert not accounts._HASHER.check_needs_rehash(logins.NOBODYS_HASH)


async def test_a_name_that_is_no_accounts_is_not_written_into_the_audit(db: Database) -> None:
    await code(db, name="my-password")
    await code(db, "wrong password")
    rows, _ = await audit.listing(db, action="login.")
    assert [(row["actor"], row["target"], row["action"]) for row in rows] == [
        (None, "user/anna", "login.failed"),
        (None, "user", "login.failed"),
    ]


async def test_a_name_may_be_written_in_capitals(db: Database) -> None:
    assert await code(db, name=" Anna ") == "in"


async def test_a_disabled_account_cannot_sign_in(db: Database) -> None:
    await db.fetch("UPDATE account SET is_active = false")
    assert await code(db) == "invalid_credentials"


# -- sessions -------------------------------------------------------------------------------------------------------


async def alive(db: Database, signed_in: SignedIn, keys: MasterKeys = KEYS) -> bool:
    try:
        if signed_in.access_token:
            await sessions.check(db, keys, signed_in.access_token)
        else:
            await sessions.check_cookie(db, keys, signed_in.token)
    except InvalidToken:
        return False
    return True


@pytest.mark.parametrize("kind", ["api", "browser"])
@pytest.mark.parametrize(
    "end",
    [
        "UPDATE session SET last_used_at = clock_timestamp() - interval '12 h 1 s'",
        "UPDATE session SET expires_at = clock_timestamp() - interval '1 s'",
        "UPDATE session SET revoked_at = clock_timestamp()",
        "UPDATE account SET is_active = false",
        "DELETE FROM session",
        "DELETE FROM account",
    ],
)
async def test_a_session_ends(db: Database, kind: Kind, end: str) -> None:
    signed_in = await sign_in(db, kind=kind)
    assert await alive(db, signed_in)
    await db.fetch(end)
    assert not await alive(db, signed_in)
    if kind == "api":
        with pytest.raises(InvalidToken):
            await sessions.refresh(db, KEYS, signed_in.token)


async def test_use_keeps_a_session_alive(db: Database) -> None:
    signed_in = await sign_in(db, kind="browser")
    await db.fetch("UPDATE session SET last_used_at = clock_timestamp() - interval '11 h'")
    assert await alive(db, signed_in)
    [row] = await db.fetch("SELECT clock_timestamp() - last_used_at < interval '1 min' AS noted FROM session")
    assert row["noted"]


async def test_a_session_lasts_seven_days_however_it_is_used(db: Database) -> None:
    signed_in = await sign_in(db)
    refreshed = await sessions.refresh(db, KEYS, signed_in.token)
    assert refreshed.expires_at == signed_in.expires_at
    [row] = await db.fetch("SELECT extract(epoch FROM expires_at - created_at) AS seconds FROM session")
    assert round(row["seconds"]) == 7 * 24 * 3600


async def test_tokens_outlive_a_rotation_of_the_master_keys(db: Database) -> None:
    api, browser = await sign_in(db), await sign_in(db, kind="browser")
    assert await alive(db, api, ROTATED)
    assert await alive(db, browser, ROTATED)
    assert (await sessions.refresh(db, ROTATED, api.token)).access_token


async def test_a_refresh_token_is_good_once_and_a_copy_ends_the_session(db: Database) -> None:
    first = await sign_in(db)
    second = await sessions.refresh(db, KEYS, first.token)
    third = await sessions.refresh(db, KEYS, second.token)
    assert await alive(db, third)
    with pytest.raises(InvalidToken):
        await sessions.refresh(db, KEYS, first.token)
    assert not await alive(db, third)
    with pytest.raises(InvalidToken):
        await sessions.refresh(db, KEYS, third.token)
    rows, _ = await audit.listing(db, action="session.reused")
    assert [row["target"] for row in rows] == ["user/anna"]


async def test_of_two_that_exchange_a_token_at_once_one_wins(db: Database) -> None:
    signed_in = await sign_in(db)
    got = await asyncio.gather(*(sessions.refresh(db, KEYS, signed_in.token) for _ in range(4)), return_exceptions=True)
    assert sum(isinstance(one, SignedIn) for one in got) == 1


async def test_no_cookie_does_for_another(db: Database) -> None:
    api, browser = await sign_in(db), await sign_in(db, kind="browser")
    session_id, _, rest = api.token.partition(".")
    for token in (browser.token, "", "x", f"{session_id}.1.{rest.partition('.')[2]}", f"{UUID(int=0)}.{rest}"):
        with pytest.raises(InvalidToken):
            await sessions.refresh(db, KEYS, token)
    for cookie in (api.token, api.access_token, "", f"{session_id}.{browser.token.partition('.')[2]}"):
        with pytest.raises(InvalidToken):
            await sessions.check_cookie(db, KEYS, cookie)
    assert await alive(db, api)


async def test_signing_out_twice_is_no_fault(db: Database) -> None:
    signed_in = await sign_in(db)
    await sessions.sign_out(db, KEYS, refresh_token=signed_in.token)
    await sessions.sign_out(db, KEYS, refresh_token=signed_in.token)
    assert not await alive(db, signed_in)
    assert len((await audit.listing(db, action="login.ended"))[0]) == 1


async def test_every_session_of_an_account_ends_at_once(db: Database) -> None:
    signed_in = [await sign_in(db), await sign_in(db, kind="browser")]
    assert await sessions.revoke_all(db, "anna", actor="admin") == 2
    assert [await alive(db, one) for one in signed_in] == [False, False]


async def test_ones_own_password_takes_the_present_one_and_ends_every_session(db: Database) -> None:
    signed_in = await sign_in(db)
    with pytest.raises(InvalidCredentials):
        await sessions.change_password(db, "anna", old="wrong password", new="another password", address=HERE)
    assert await alive(db, signed_in)
    await sessions.change_password(db, "anna", old=PASSWORD, new="another password", address=HERE)
    assert not await alive(db, signed_in)
    assert await code(db) == "invalid_credentials"
    assert await code(db, "another password") == "in"


async def test_nobody_slips_in_with_the_old_password_while_it_changes(db: Database) -> None:
    await asyncio.gather(
        *(code(db, address=f"192.0.2.{number}") for number in range(6)),
        accounts.set_password(db, "anna", "another password", actor="admin"),
        *(code(db, address=f"198.51.100.{number}") for number in range(6)),
    )
    assert await db.fetch("SELECT FROM session WHERE revoked_at IS NULL") == []


async def test_sweeping_takes_what_is_long_over_and_nothing_else(db: Database) -> None:
    old, new = await sign_in(db), await sign_in(db)
    await db.fetch(
        "UPDATE session SET expires_at = clock_timestamp() - interval '31 d' WHERE id = %(id)s",
        {"id": old.caller.session_id},
    )
    await failed_before(db, 2500, ago_s=601)
    await failed_before(db, 3, ago_s=1)
    assert await sessions.sweep(db) == 2501
    assert [row["id"] for row in await db.fetch("SELECT id FROM session")] == [new.caller.session_id]
    assert len(await db.fetch("SELECT FROM login_failure")) == 3


async def test_no_token_is_in_the_database(db: Database) -> None:
    signed_in = await sign_in(db)
    rows = str(await db.fetch("SELECT * FROM session")) + str(await db.fetch("SELECT * FROM audit"))
    assert signed_in.token.rpartition(".")[2] not in rows
    assert PASSWORD not in rows
