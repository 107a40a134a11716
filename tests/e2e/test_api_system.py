"""The machinery over HTTP: as it stands, what has failed, and whether the public address leads here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from photochanger import __version__
from photochanger.broker import messages
from photochanger.db import Database
from photochanger.schedules import EVERY_S
from tests.api import Api
from tests.installation import Installation, free_port, until

pytestmark = pytest.mark.xdist_group("api")

LETTERS = "/api/system/dead-letters"


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


@pytest.fixture
def back(boss: httpx.Client) -> Iterator[None]:
    before = boss.get("/api/settings").json()
    yield
    boss.patch("/api/settings", json=before)


def test_the_machinery_as_it_stands(house: Installation, boss: httpx.Client) -> None:
    found = boss.get("/api/system").json()
    assert found["versions"]["photochanger"] == __version__
    assert found["versions"]["migration"]
    assert found["queue"]["workers"] == 1
    [worker] = [one for one in found["workers"] if one["silent_s"] < 5]
    assert worker["pid"] == house.worker_pid()
    assert (worker["draining"], worker["threads"] >= 1) == (False, True)
    assert found["scheduler"]
    assert found["disk"]["total_bytes"] > found["disk"]["free_bytes"] > 0
    assert isinstance(found["limits"], list)
    assert {one["name"] for one in found["schedules"]} == set(EVERY_S)
    schedules = {one["name"]: one for one in boss.get("/api/system/schedules").json()["items"]}
    assert schedules["expire"]["last_run_at"] < schedules["expire"]["next_run_at"]


def test_a_backup_is_made_one_at_a_time(house: Installation, known: Api, boss: httpx.Client) -> None:
    url = "/api/system/backups"
    before = {one["name"] for one in boss.get(url).json()["items"]}
    known.sql("INSERT INTO lease VALUES ('backup', 'somebody', clock_timestamp() + interval '1 minute')")
    assert code(boss.post(url)) == (409, "conflict")
    known.sql("DELETE FROM lease WHERE name = 'backup'")
    begun = boss.post(url)
    assert begun.status_code == 202
    assert begun.json()["running"]["expected_bytes"] >= 0
    until(lambda: boss.get(url).json()["running"] is None, within_s=90, what="it has ended")
    found = boss.get(url).json()
    [made] = [one for one in found["items"] if one["name"] not in before]
    assert found["failure"] is None
    assert made["bytes"] == (house.home / "backups" / made["name"]).stat().st_size
    assert made["made_at"] < found["next_at"]


def fail(known: Api) -> str:
    """Sends the workers a message that cannot be done; its id, once it has failed."""
    message = messages.message("sweep", task=f"no-such-{uuid4().hex[:8]}")

    async def send() -> None:
        db = Database(known.database_url, connections=1, application_name="test")
        async with db.transaction() as connection:
            await messages.enqueue(connection, message, priority=0)
        await db.close()

    asyncio.run(send())
    return message.message_id


def dead(boss: httpx.Client, letter_id: str) -> dict[str, Any] | None:
    items = boss.get(LETTERS, params={"limit": 200}).json()["items"]
    return next((one for one in items if one["id"] == letter_id), None)


def test_a_dead_letter_is_shown_tried_again_and_deleted(known: Api, boss: httpx.Client) -> None:
    letter_id = fail(known)
    letter = until(lambda: dead(boss, letter_id), within_s=10, what="it has failed")
    assert letter is not None
    assert letter["actor"] == "sweep"
    assert letter["arguments"]["task"].startswith("no-such-")
    assert "RuntimeError" in letter["trace"]
    assert boss.post(f"{LETTERS}/{letter_id}/requeue").status_code == 204

    def failed_again() -> bool:
        now = dead(boss, letter_id)
        return now is not None and now["failed_at"] > letter["failed_at"]

    until(failed_again, within_s=10, what="it has failed again")
    assert boss.delete(f"{LETTERS}/{letter_id}").status_code == 204
    assert dead(boss, letter_id) is None
    assert code(boss.delete(f"{LETTERS}/{letter_id}")) == (404, "not_found")
    assert code(boss.post(f"{LETTERS}/{letter_id}/requeue")) == (404, "not_found")


def test_dead_letters_come_page_by_page(known: Api, boss: httpx.Client) -> None:
    made = {fail(known) for _ in range(3)}
    until(lambda: all(dead(boss, one) for one in made), within_s=10, what="they have failed")
    found: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = boss.get(LETTERS, params={"limit": 1, **after}).json()
        found += [one["id"] for one in page["items"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert made <= set(found)
    assert len(found) == len(set(found))
    for one in made:
        boss.delete(f"{LETTERS}/{one}")
    assert code(boss.get(LETTERS, params={"after": "x"})) == (400, "invalid_request")


@pytest.mark.parametrize("letter_id", ["x", "%00", "00000000-0000-4000-8000-000000000000"])
def test_a_dead_letter_that_is_not_there_is_not_found(boss: httpx.Client, letter_id: str) -> None:
    url = f"{LETTERS}/{letter_id}"
    assert {code(boss.delete(url)), code(boss.post(f"{url}/requeue"))} == {(404, "not_found")}


@pytest.mark.usefixtures("back")
def test_the_public_address_is_tried(house: Installation, boss: httpx.Client) -> None:
    url = "/api/system/public-address/check"
    assert code(boss.post(url)) == (422, "invalid_settings")
    tried = boss.post(url, json={"public_base_url": f"{house.url}/"}).json()
    assert tried["public_base_url"] == house.url
    assert boss.get("/api/settings").json()["public_base_url"] is None  # it was only tried
    refused = boss.post(url, json={"public_base_url": "https://example.com/photos"}).json()
    assert [one["field"] for one in refused["errors"]] == ["public_base_url"]
    boss.patch("/api/settings", json={"public_base_url": house.url})
    found = boss.post(url).json()
    assert found["public_base_url"] == house.url
    assert not any("Something else" in words or "No connection" in words for words in found["problems"])
    boss.patch("/api/settings", json={"public_base_url": f"http://127.0.0.1:{free_port()}"})
    found = boss.post(url).json()
    assert any("No connection" in words for words in found["problems"])
    assert [one["words"] for one in found["obstacles"]] == found["problems"]
    assert "no_connection" in {one["code"] for one in found["obstacles"]}
