"""Every operation that changes something is in the audit, under its own request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from photochanger.broker import messages
from photochanger.db import Database
from spec import drift
from tests.api import PASSWORD, Api
from tests.e2e.conftest import PAID
from tests.installation import Installation, until
from tests.photos import photo

pytestmark = [pytest.mark.xdist_group("api"), pytest.mark.usefixtures("openai")]

#: Operations that change nothing: a look at what is outside, or the next token of a session that is known already.
LOOKS = {"refresh", "checkPublicAddress", "testProviderKey"}
WRITES = {
    operation["operationId"]
    for method, path, operation in drift.operations(drift.load())
    if path.startswith("/api/") and method not in ("GET", "HEAD")
} - LOOKS
KEY = "an-api-key-of-nobody"


class Walk:
    """Does every operation once; each sends its own name as the request's id."""

    def __init__(self, house: Installation, api: Api, boss: httpx.Client) -> None:
        self.house, self.api, self.boss = house, api, boss
        self.mark = uuid4().hex[:8]

    def send(self, name: str, method: str, url: str, client: httpx.Client | None = None, **how: Any) -> httpx.Response:
        headers = {"X-Request-Id": f"{self.mark}-{name}", **how.pop("headers", {})}
        answer = (client or self.boss).request(method, url, headers=headers, **how)
        assert answer.status_code < 300, (name, answer.text)
        return answer

    def accounts(self) -> None:
        made = {"name": f"walker-{self.mark}", "password": PASSWORD}
        url = f"/api/users/{made['name']}"
        self.send("createUser", "POST", "/api/users", json=made)
        self.send("changeUser", "PATCH", url, json={"must_change": False, "permissions": ["jobs:read"]})
        given = {"name": made["name"], "password": PASSWORD}
        token = self.send("login", "POST", "/api/login", json=given).json()["access_token"]
        bearer = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=self.api.url, headers=bearer, trust_env=False, timeout=30) as walker:
            self.send("changeMe", "PATCH", "/api/me", walker, json={"language": "ru"})
            self.send("logout", "POST", "/api/logout", walker)
            walker.headers["Authorization"] = f"Bearer {self.api.login(made['name']).json()['access_token']}"
            chosen = {"old": PASSWORD, "new": "one of my own"}
            self.send("changeMyPassword", "POST", "/api/me/password", walker, json=chosen)
        self.send("setUserPassword", "POST", f"{url}/password", json={})
        self.send("signOutUser", "POST", f"{url}/sign-out")

    def slots(self) -> None:
        route = {"rungs": [{"provider": "local", "operation": "filter"}]}
        made = self.send("createSlot", "POST", "/api/slots", json={"name": "Walked", "route": route})
        url = made.headers["location"]
        self.send("changeSlot", "PATCH", url, json={"name": "Changed"}, headers={"If-Match": '"1"'})
        self.send("duplicateSlot", "POST", f"{url}/duplicate")
        self.send("resetSlotStats", "POST", f"{url}/reset-stats")
        self.send("testSlot", "POST", f"{url}/test-run", files={"file": photo(64, 48)})
        self.send("archiveSlot", "POST", f"{url}/archive", headers={"If-Match": '"2"'})
        self.send("restoreSlot", "POST", f"{url}/restore", headers={"If-Match": '"3"'})

    def settings(self) -> None:
        days = self.boss.get("/api/settings").json()["t_job_history_d"]
        self.send("changeSettings", "PATCH", "/api/settings", json={"t_job_history_d": days})
        password = "/api/settings/ingest-password"
        [(stored,)] = self.api.sql("SELECT value::text FROM app_settings WHERE key = 'ingest_passwords'")
        self.send("rotateIngestPassword", "POST", password, json={})
        self.send("endIngestGrace", "DELETE", password)
        self.api.sql("UPDATE app_settings SET value = %s::jsonb WHERE key = 'ingest_passwords'", stored)
        until(lambda: self.house.post(photo(64, 48)).status_code == 200, within_s=5, what="the tests' own password")

    def providers(self) -> None:
        self.send("changeProvider", "PATCH", "/api/providers/gemini", json={"options": {}})
        self.send("storeProviderKey", "PUT", "/api/providers/gemini/key", json={"key": KEY})
        self.send("forgetProviderKey", "DELETE", "/api/providers/gemini/key")
        self.api.sql(
            "INSERT INTO breaker (provider, failures, failed_at, openings, cause, detail) "
            "VALUES ('gemini', 1, clock_timestamp(), 0, 'provider_error', 'x')"
        )
        self.send("resetProvider", "POST", "/api/providers/gemini/reset")

    def media(self) -> None:
        self.send("registerMedia", "POST", "/api/media/register", files={"file": photo(64, 48)})
        made = self.send("registerTemplate", "POST", "/api/template-media/register", files={"file": photo(64, 48)})
        self.send("deleteTemplate", "DELETE", made.headers["location"])
        self.send("purgeCache", "POST", "/api/media/cache/purge")

    def jobs(self, started: Callable[[], str]) -> None:
        self.send("cancelAnyJob", "POST", f"/api/jobs/{started()}/cancel")
        self.send("cancelJobs", "POST", "/api/jobs/cancel", json={"job_ids": [started()]})
        done = self.house.post(photo(64, 48)).headers["x-job-id"]
        self.send("rerunJob", "POST", f"/api/jobs/{done}/rerun")
        self.send("rerunJobs", "POST", "/api/jobs/rerun", json={"job_ids": [done]})
        share = self.send("openShare", "POST", "/api/gallery-shares", json={})
        end = (datetime.now(UTC) + timedelta(hours=2)).isoformat()
        self.send("changeShare", "PATCH", share.headers["location"], json={"expires_at": end})
        self.send("closeShare", "DELETE", share.headers["location"])

    def backups(self) -> None:
        self.send("makeBackup", "POST", "/api/system/backups")

    def dead_letters(self, letters: list[str]) -> None:
        url = "/api/system/dead-letters"
        self.send("requeueDeadLetter", "POST", f"{url}/{letters[0]}/requeue")
        self.send("deleteDeadLetter", "DELETE", f"{url}/{letters[1]}")


def failed(api: Api) -> list[str]:
    """Two messages that have failed."""
    made = [messages.message("sweep", task=f"no-such-{uuid4().hex[:8]}") for _ in range(2)]

    async def send() -> None:
        db = Database(api.database_url, connections=1, application_name="test")
        async with db.transaction() as connection:
            for one in made:
                await messages.enqueue(connection, one, priority=0)
        await db.close()

    asyncio.run(send())
    ids = [one.message_id for one in made]
    sql = "SELECT 1 FROM dramatiq.queue WHERE state = 'rejected' AND message_id::text = ANY(%s)"
    until(lambda: len(api.sql(sql, ids)) == 2, within_s=10, what="both have failed")
    return ids


def test_every_write_is_in_the_audit(house: Installation, known: Api, boss: httpx.Client, openai: Any) -> None:
    walk = Walk(house, known, boss)
    walk.accounts()
    walk.slots()
    walk.settings()
    walk.providers()
    walk.media()
    walk.backups()
    openai.mode = "hang"

    def started() -> str:
        sent = house.post(photo(64, 48), slot=PAID, headers={"Prefer": "respond-async"})
        job_id: str = sent.json()["job_id"]
        return job_id

    walk.jobs(started)
    walk.dead_letters(failed(known))
    rows = known.sql(
        "SELECT request_id, actor, action, target, detail::text FROM audit WHERE request_id LIKE %s", f"{walk.mark}-%"
    )
    assert {row[0].removeprefix(f"{walk.mark}-") for row in rows} == WRITES
    assert {row[1] for row in rows} == {"boss", f"walker-{walk.mark}"}
    assert all(("." in row[2] and "/" in row[3]) or row[3] in ("settings", "ingest-password") for row in rows)
    for secret in (PASSWORD, "one of my own", KEY):
        assert secret not in str(rows)
