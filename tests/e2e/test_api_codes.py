"""Every failure code, provoked over HTTP: its status, and the one shape of its body."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest

from ops.simulators.openai import OpenAI
from tests.api import PASSWORD, Api
from tests.contract.test_drift import schema
from tests.e2e.conftest import PAID
from tests.installation import Installation, result_link, until
from tests.photos import photo, png_header
from web import models, problems

pytestmark = pytest.mark.xdist_group("api")


class Place:
    """Where a failure is provoked."""

    def __init__(self, house: Installation, api: Api, boss: httpx.Client, openai: OpenAI) -> None:
        self.house, self.api, self.boss, self.openai = house, api, boss, openai

    def ingest(self, picture: bytes | None = None, **how: Any) -> httpx.Response:
        return self.house.post(photo(64, 48) if picture is None else picture, **how)

    def get(self, path: str) -> httpx.Response:
        return self.api.client.get(path)

    def as_provider(self, mode: str) -> httpx.Response:
        """A photo while the provider answers like this."""
        self.openai.mode = mode
        return self.ingest(slot=PAID)

    def as_it_ended(self, status: str, code: str) -> httpx.Response:
        """The answer to a photo that comes again under its key, when its job had ended with ``code``."""
        self.openai.mode = "moderation"
        data, key = photo(64, 48), {"Idempotency-Key": uuid4().hex}
        job_id = self.ingest(data, slot=PAID, headers=key).headers["x-job-id"]
        self.api.sql("UPDATE job SET status = %s, failure_reason = %s WHERE id = %s", status, code, job_id)
        return self.ingest(data, slot=PAID, headers=key)

    def slot(self) -> str:
        route = {"rungs": [{"provider": "local", "operation": "filter"}]}
        answer = self.boss.post("/api/slots", json={"name": "Provoked", "route": route})
        return str(answer.headers["location"])

    def with_setting(self, name: str, value: Any, ask: Callable[[], httpx.Response], status: int) -> httpx.Response:
        """The first answer of this status, once the setting is known."""
        before = self.boss.get("/api/settings").json()
        try:
            assert self.boss.patch("/api/settings", json={name: value}).status_code == 200
            return first(ask, status)
        finally:
            self.boss.patch("/api/settings", json={name: before[name]})
            until(lambda: self.ingest().status_code == 200, within_s=10, what="the setting as it was")

    @contextlib.contextmanager
    def no_worker(self) -> Iterator[None]:
        worker = psutil.Process(self.house.worker_pid())
        worker.suspend()
        try:
            yield
        finally:
            worker.resume()
            until(lambda: self.ingest().status_code == 200, within_s=20, what="a worker")

    # -- one each ---------------------------------------------------------------------------------------------------

    def forbidden(self) -> httpx.Response:
        with self.api.signed_in(f"nobody-{uuid4().hex[:8]}", []) as client:
            return client.get("/api/slots")

    def conflict(self) -> httpx.Response:
        return self.boss.post(f"/api/jobs/{self.ingest().headers['x-job-id']}/cancel")

    def in_use(self) -> httpx.Response:
        made = self.boss.post("/api/template-media/register", files={"file": photo(64, 48)})
        rung = {"provider": "local", "operation": "frame", "settings": {"template": made.json()["id"]}}
        self.boss.post("/api/slots", json={"name": "Uses it", "route": {"rungs": [rung]}})
        return self.boss.delete(made.headers["location"])

    def cancelled(self) -> httpx.Response:
        self.openai.mode = "hang"
        got: list[httpx.Response] = []
        camera = threading.Thread(target=lambda: got.append(self.ingest(slot=PAID)), daemon=True)
        camera.start()
        until(lambda: self.openai.flying, within_s=10, what="the call runs")
        self.boss.post("/api/jobs/cancel", json={"filter": {"slot_id": PAID}})
        camera.join(10)
        return got[0]

    def result_expired(self) -> httpx.Response:
        sent = self.ingest()
        self.api.sql("UPDATE job SET result_expires_at = clock_timestamp() WHERE id = %s", sent.headers["x-job-id"])
        return httpx.get(result_link(sent), trust_env=False)

    def media_expired(self) -> httpx.Response:
        made = self.boss.post("/api/media/register", files={"file": photo(64, 48)}).json()
        self.api.sql("UPDATE media_object SET expires_at = clock_timestamp() WHERE id = %s", made["id"])
        return httpx.get(made["url"], trust_env=False)

    def idempotency_mismatch(self) -> httpx.Response:
        key = {"Idempotency-Key": uuid4().hex}
        self.ingest(headers=key)
        return self.ingest(headers=key)

    def rate_limited(self) -> httpx.Response:
        share = self.boss.post("/api/gallery-shares", json={"minutes": 1}).json()["url"]
        return self.with_setting("gallery_per_minute_address", 1, lambda: httpx.get(share, trust_env=False), 429)

    def login_throttled(self) -> httpx.Response:
        name = f"guessed-{uuid4().hex[:8]}"
        return first(lambda: self.api.login(name, f"wrong {PASSWORD}"), 429)

    def queue_full(self) -> httpx.Response:
        """A provider that takes as long as the camera waits, one call at a time."""
        given = self.boss.get("/api/settings").json()["providers"]
        slow = {**given["openai"], "max_concurrent": 1, "models": {"gpt-image-1-mini": {"usual_s": 12}}}
        self.openai.mode = "hang"
        try:
            self.boss.patch("/api/providers/openai", json={"options": slow})
            self.api.sql("DELETE FROM usual_time")
            return first(lambda: self.ingest(slot=PAID, headers={"Prefer": "respond-async"}), 503)
        finally:
            self.boss.post("/api/jobs/cancel", json={"filter": {"slot_id": PAID}})
            self.boss.patch("/api/providers/openai", json={"options": given["openai"]})

    def storage_full(self) -> httpx.Response:
        return self.with_setting("disk_reserve_bytes", 10**18, self.ingest, 503)

    def budget_spent(self) -> httpx.Response:
        given = self.boss.get("/api/settings").json()["providers"]
        url = f"/api/slots/{PAID}"
        read = self.boss.get(url)
        priced = {**given["openai"], "prices": {"image_edit": 2.5}}
        try:
            self.boss.patch("/api/providers/openai", json={"options": priced})
            poor = {"options": {**read.json()["slot"]["options"], "budget_per_day": 1}}
            version = {"If-Match": read.headers["etag"]}
            version = {"If-Match": self.boss.patch(url, json=poor, headers=version).headers["etag"]}
            return first(lambda: self.ingest(slot=PAID), 503)
        finally:
            self.boss.patch("/api/providers/openai", json={"options": given["openai"]})
            self.boss.patch(url, json={"options": read.json()["slot"]["options"]}, headers=version)
            until(lambda: self.ingest(slot=PAID).status_code == 200, within_s=10, what="the slot as it was")

    def no_workers(self) -> httpx.Response:
        with self.no_worker():
            self.api.sql("UPDATE dramatiq.worker SET beat_at = clock_timestamp() - interval '1 minute'")
            return first(lambda: self.ingest(headers={"Prefer": "respond-async"}), 503)

    def unavailable(self) -> httpx.Response:
        with self.no_worker():
            self.api.sql("UPDATE dramatiq.worker SET beat_at = clock_timestamp() - interval '1 minute'")
            return first(lambda: self.get("/readyz"), 503)


def first(ask: Callable[[], httpx.Response], status: int) -> httpx.Response:
    got = until(
        lambda: (answer := ask()).status_code == status and answer, within_s=20, what=f"an answer with {status}"
    )
    assert got
    return got


PROVOKED: dict[str, Callable[[Place], httpx.Response]] = {
    "invalid_request": lambda at: at.boss.get("/api/users?limit=0"),
    "invalid_image": lambda at: at.ingest(b""),
    "invalid_password": lambda at: at.ingest(password="not the password"),
    "invalid_credentials": lambda at: at.api.login("nobody"),
    "invalid_token": lambda at: at.get("/api/me"),
    "forbidden": Place.forbidden,
    "not_found": lambda at: at.get("/nothing"),
    "slot_not_found": lambda at: at.ingest(slot="no-such-slot"),
    "slot_disabled": lambda at: at.ingest(slot="slot-015"),
    "job_not_found": lambda at: at.get(f"/public/jobs/{uuid4()}"),
    "result_not_found": lambda at: at.get(f"/public/results/{uuid4()}"),
    "media_not_found": lambda at: at.get(f"/public/media/{'a' * 40}"),
    "conflict": Place.conflict,
    "in_use": Place.in_use,
    "cancelled": Place.cancelled,
    "version_mismatch": lambda at: at.boss.patch(at.slot(), json={}, headers={"If-Match": '"9"'}),
    "version_required": lambda at: at.boss.patch(at.slot(), json={}),
    "result_expired": Place.result_expired,
    "media_expired": Place.media_expired,
    "payload_too_large": lambda at: at.ingest(note="x" * 70_000),
    "image_too_large": lambda at: at.ingest(png_header(60_000, 60_000)),
    "unsupported_media_type": lambda at: at.ingest(b"no picture at all"),
    "invalid_settings": lambda at: at.boss.post("/api/users", json={}),
    "idempotency_mismatch": Place.idempotency_mismatch,
    "provider_refused": lambda at: at.as_provider("moderation"),
    "rate_limited": Place.rate_limited,
    "login_throttled": Place.login_throttled,
    "provider_error": lambda at: at.as_provider("http_500"),
    # OpenAI's is a refusal; Gemini's own is provoked in tests/integration/test_provider_failures.py
    "provider_no_image": lambda at: at.as_it_ended("failed", "provider_no_image"),
    "provider_bad_output": lambda at: at.as_provider("truncated"),
    "provider_auth": lambda at: at.as_provider("auth"),
    "provider_quota": lambda at: at.as_provider("quota"),
    "queue_full": Place.queue_full,
    "storage_full": Place.storage_full,
    "budget_spent": Place.budget_spent,
    "no_workers": Place.no_workers,
    "worker_lost": lambda at: at.as_it_ended("failed", "worker_lost"),
    "unavailable": Place.unavailable,
    "sync_timeout": lambda at: at.as_it_ended("timed_out", "sync_timeout"),
    "internal_error": lambda at: at.as_it_ended("failed", "internal_error"),
}


def test_every_code_has_its_place() -> None:
    assert PROVOKED.keys() == problems.STATUS.keys()


@pytest.mark.parametrize("code", sorted(PROVOKED))
def test_every_code_is_answered_with_its_status_in_the_one_shape(
    house: Installation, known: Api, boss: httpx.Client, openai: OpenAI, code: str
) -> None:
    boss.post("/api/providers/openai/reset")
    answer = PROVOKED[code](Place(house, known, boss, openai))
    boss.post("/api/providers/openai/reset")
    assert (answer.status_code, answer.json().get("code")) == (problems.STATUS[code], code), answer.text
    assert answer.headers["content-type"] == problems.MEDIA_TYPE
    schema("error").validate(json.loads(answer.content))
    body = models.Problem.model_validate_json(answer.content)
    assert (body.status, body.type) == (answer.status_code, f"urn:photochanger:failure:{code}")
    assert body.title
    assert body.detail
    if answer.status_code in (429, 503):
        assert int(answer.headers["retry-after"]) >= 1
    for inside in ("Traceback", 'File "', ".py", "psycopg", "falcon"):
        assert inside not in answer.text
