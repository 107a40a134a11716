"""Accounts: made, changed, disabled; there is always one that may manage them. And the audit of it all."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

import pytest
from psycopg import Rollback

from photochanger import accounts, audit, logs
from photochanger.db import Database, Row, fetch
from photochanger.failures import Conflict, Failure, InvalidSettings, NotFound
from photochanger.permissions import MEANINGS, PERMISSIONS
from tests.api import HASHED, PASSWORD

pytestmark = pytest.mark.anyio


async def written(db: Database, name: str, permissions: list[str]) -> None:
    await db.fetch(
        "INSERT INTO account (name, password_hash, permissions) VALUES (%(name)s, %(hash)s, %(permissions)s)",
        {"name": name, "hash": HASHED, "permissions": permissions},
    )


async def entries(db: Database, **filters: Any) -> list[Row]:
    return (await audit.listing(db, **filters))[0]


def test_every_permission_has_its_meaning_in_a_sentence() -> None:
    assert list(MEANINGS) == list(PERMISSIONS)
    assert len(PERMISSIONS) == 10
    assert all(words.endswith(".") for words in MEANINGS.values())


async def test_the_first_administrator_may_do_everything(db: Database) -> None:
    assert await accounts.create_first_admin(db, None)
    assert (await accounts.get(db, "admin"))["permissions"] == list(PERMISSIONS)
    assert await accounts.create_first_admin(db, None) is None


async def test_an_account_is_made_with_a_password_to_be_changed(db: Database) -> None:
    made, password = await accounts.create(
        db, actor="admin", name="Anna.B", permissions=["slots:write", "slots:read", "slots:read"], language="ru"
    )
    assert made.keys() == (await accounts.get(db, "anna.b")).keys()
    assert (made["name"], made["language"], made["must_change"]) == ("anna.b", "ru", True)
    assert made["permissions"] == ["slots:read", "slots:write"]
    assert len(password) == 23
    [entry] = await entries(db)
    assert (entry["actor"], entry["action"], entry["target"]) == ("admin", "user.created", "user/anna.b")
    assert password not in str(entry)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "-anna"},
        {"name": "an na"},
        {"name": "a" * 64},
        {"name": "анна"},
        {"password": "too short"},
        {"password": "я" * 513},
        {"password": "with a NUL\0in it"},
        {"permissions": ["slots:delete"]},
    ],
    ids=str,
)
async def test_what_no_account_can_have_is_refused(db: Database, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidSettings) as refused:
        await accounts.create(db, **{"actor": "admin", "name": "anna", **wrong})
    assert [error.field for error in refused.value.errors] == list(wrong)
    assert await accounts.listing(db) == []
    assert await entries(db) == []


async def test_a_name_is_somebodys_once(db: Database) -> None:
    await written(db, "anna", [])
    with pytest.raises(Conflict):
        await accounts.create(db, actor="admin", name="anna", password=PASSWORD)


async def test_only_what_is_given_changes(db: Database) -> None:
    await written(db, "keeper", ["users:write"])
    await written(db, "anna", ["slots:read"])
    before = await accounts.get(db, "anna")
    saved = await accounts.update(db, "anna", {"language": "en"}, actor="keeper")
    assert {key for key in saved if saved[key] != before[key]} == {"language", "updated_at"}
    [entry] = await entries(db)
    assert entry["detail"] == {"language": "en"}


async def test_an_account_that_is_not_there_cannot_be_changed(db: Database) -> None:
    for change in (
        accounts.update(db, "nobody", {"is_active": False}, actor="admin"),
        accounts.set_password(db, "nobody", actor="admin"),
    ):
        with pytest.raises(NotFound):
            await change


@pytest.mark.parametrize("change", [{"is_active": False}, {"permissions": ["slots:read"]}], ids=str)
async def test_the_last_keeper_of_accounts_stays(db: Database, change: dict[str, Any]) -> None:
    await written(db, "keeper", ["users:write"])
    await written(db, "anna", ["slots:read"])
    await written(db, "off", ["users:write"])
    await accounts.update(db, "off", {"is_active": False}, actor="keeper")
    with pytest.raises(Conflict):
        await accounts.update(db, "keeper", change, actor="keeper")
    assert (await accounts.get(db, "keeper"))["is_active"]
    await accounts.update(db, "anna", {"permissions": ["users:write"]}, actor="keeper")
    await accounts.update(db, "keeper", change, actor="anna")


async def test_of_keepers_that_disable_each_other_at_once_one_is_left(db: Database) -> None:
    names = [f"keeper-{number}" for number in range(6)]
    for name in names:
        await written(db, name, ["users:write"])

    async def disable(name: str) -> str:
        try:
            await accounts.update(db, name, {"is_active": False}, actor="somebody")
        except Failure as failure:
            return failure.code
        return "disabled"

    said = await asyncio.gather(*(disable(name) for name in names))
    assert sorted(said) == ["conflict", *["disabled"] * 5]
    assert len([row for row in await accounts.listing(db) if row["is_active"]]) == 1


async def test_changes_that_cross_wait_for_each_other_in_one_order(db: Database) -> None:
    """One comes to manage accounts while its own change waits: the next change finds it among those that do."""
    for name, permissions in {"aa": [], "mm": ["users:write"], "zz": []}.items():
        await written(db, name, permissions)
    grant = "UPDATE account SET permissions = '{users:write}' WHERE name = 'aa'"
    tasks: list[asyncio.Task[Any]] = []

    async def begin(work: Coroutine[Any, Any, Any]) -> None:
        """Until all that are not done wait for a lock."""
        tasks.append(asyncio.create_task(work))
        async with asyncio.timeout(10):
            while len(await db.fetch(_WAITING)) != sum(not one.done() for one in tasks):  # noqa: ASYNC110 - asked anew
                await asyncio.sleep(0.01)

    async with db.transaction() as holder:
        await fetch(holder, "SELECT FROM account WHERE name = 'mm' FOR NO KEY UPDATE")
        await begin(accounts.update(db, "aa", {"language": "ru"}, actor="somebody"))
        await begin(db.fetch(grant))
        await begin(accounts.update(db, "zz", {"language": "ru"}, actor="somebody"))
    await asyncio.gather(*tasks)


_WAITING = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


# -- the audit ------------------------------------------------------------------------------------------------------


async def test_an_entry_goes_with_the_transaction_it_was_written_in(db: Database) -> None:
    async with db.transaction() as connection:
        await audit.record(connection, actor="anna", action="slot.saved", target="slot/slot-001")
        raise Rollback
    assert await entries(db) == []


async def test_an_entry_has_the_requests_id_and_address(db: Database) -> None:
    logs.request_id.set("a-request")
    logs.address.set("192.0.2.1")
    await audit.record(db, actor="anna", action="slot.saved", target="slot/slot-001", detail={"version": 2})
    [entry] = await entries(db)
    assert (entry["request_id"], entry["address"], entry["detail"]) == ("a-request", "192.0.2.1", {"version": 2})


async def test_pages_are_newest_first_and_miss_nothing(db: Database) -> None:
    for number in range(7):
        await audit.record(db, actor="anna", action="slot.saved", target=f"slot/{number}")
    found, before, has_more = [], None, True
    while has_more:
        rows, has_more = await audit.listing(db, limit=3, before=before)
        found += [row["target"] for row in rows]
        before = rows[-1]["id"]
    assert found == [f"slot/{number}" for number in reversed(range(7))]


async def test_no_more_than_two_hundred_come_at_once(db: Database) -> None:
    await db.fetch("INSERT INTO audit (action, target) SELECT 'slot.saved', n::text FROM generate_series(1, 205) AS n")
    rows, has_more = await audit.listing(db, limit=100_000)
    assert (len(rows), has_more) == (200, True)


async def test_entries_are_found_by_who_what_and_when(db: Database) -> None:
    for actor, action, target in (
        ("anna", "slot.saved", "slot/a"),
        ("anna", "slot.archived", "slot/b"),
        ("boris", "slots.saved", "slot/a"),
        (None, "login.failed", "user"),
    ):
        await audit.record(db, actor=actor, action=action, target=target)
    now = (await db.fetch("SELECT clock_timestamp() AS now"))[0]["now"]
    await db.fetch("UPDATE audit SET at = at - interval '1 h' WHERE actor = 'boris'")
    hour_ago = now - timedelta(minutes=30)

    async def found(**filters: Any) -> list[str]:
        return [row["action"] for row in await entries(db, **filters)]

    assert await found(actor="anna") == ["slot.archived", "slot.saved"]
    assert await found(action="slot.") == ["slot.archived", "slot.saved"]
    assert await found(action="slot.saved") == ["slot.saved"]
    assert await found(target="slot/a") == ["slot.saved", "slots.saved"]
    assert await found(until=hour_ago) == ["slots.saved"]
    assert await found(since=hour_ago, actor="anna", action="slot.a") == ["slot.archived"]
