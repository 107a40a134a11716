"""Jobs over HTTP: found, looked at, cancelled, done again, one or many; and the pictures that can be fetched now."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from ops.simulators.openai import OpenAI
from tests.api import Api
from tests.e2e.conftest import PAID
from tests.installation import Installation, until
from tests.photos import photo

pytestmark = pytest.mark.xdist_group("api")

_numbers = itertools.count()


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


@pytest.fixture
def word() -> str:
    """A word that one photo's form alone has."""
    return f"word{next(_numbers)}of{uuid4().hex[:6]}"


@pytest.fixture
def back(boss: httpx.Client) -> Iterator[None]:
    before = boss.get("/api/settings").json()
    yield
    boss.patch("/api/settings", json=before)


def sent(house: Installation, *, slot: str = "slot-001", **fields: Any) -> str:
    """The id of a photo's job that has ended."""
    answer = house.post(photo(64, 48), slot=slot, **fields)
    job_id: str = answer.headers["x-job-id"]
    return job_id


def started(house: Installation, count: int = 1, **fields: Any) -> list[str]:
    """Jobs of ``PAID`` that nobody waits for."""
    answers = [
        house.post(photo(64, 48), slot=PAID, headers={"Prefer": "respond-async"}, **fields) for _ in range(count)
    ]
    return [answer.json()["job_id"] for answer in answers]


def ended(boss: httpx.Client, job_id: str) -> dict[str, Any]:
    def final() -> dict[str, Any] | None:
        job: dict[str, Any] = boss.get(f"/api/jobs/{job_id}").json()
        return job if job["finalized_at"] else None

    job = until(final, within_s=25, what="the job's end")
    assert job is not None
    return job


def test_everything_about_a_job(house: Installation, boss: httpx.Client, word: str) -> None:
    data = photo(64, 48)
    job_id = house.post(data, name="a.jpg", guest=word).headers["x-job-id"]
    job = boss.get(f"/api/jobs/{job_id}").json()
    assert (job["status"], job["served_by"], job["fields"], job["has_result"]) == (
        "succeeded",
        "local/filter",
        {"guest": word},
        True,
    )
    assert (job["payload_bytes"], job["payload_mime"], job["has_original"]) == (len(data), "image/jpeg", True)
    assert [one["provider"] for one in job["attempts"]] == ["local"]
    events = [one["event"] for one in job["log"]]
    assert events == ["received", "claimed", "dispatched", "provider_responded", "succeeded"]
    assert 0 < job["timings"]["total_s"] < job["timings"]["budget_s"] == 20
    assert httpx.get(job["result_url"], trust_env=False).status_code == 200
    assert httpx.get(job["thumbnail_url"], trust_env=False).headers["content-type"] == "image/webp"
    original = boss.get(job["original_url"])
    assert (original.content, original.headers["content-type"]) == (data, "image/jpeg")
    assert original.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert original.headers["cache-control"] == "private, no-store"


def test_jobs_are_found_by_what_is_asked(house: Installation, boss: httpx.Client, openai: OpenAI, word: str) -> None:
    good = [sent(house, guest=word) for _ in range(3)]
    openai.mode = "moderation"
    bad = sent(house, slot=PAID, guest=word)

    def found(**asked: Any) -> list[str]:
        answer = boss.get("/api/jobs", params=asked)
        assert answer.status_code == 200, answer.text
        return [one["job_id"] for one in answer.json()["items"]]

    assert found(text=word) == [bad, *good[::-1]]
    assert found(text=good[0][:13]) == [good[0]]
    assert found(text=word, status="failed") == [bad]
    assert found(text=word, status=["failed", "succeeded"]) == [bad, *good[::-1]]
    assert found(text=word, failure_reason="provider_refused") == [bad]
    assert found(text=word, slot_id=PAID) == [bad]
    assert found(text=word, provider="openai") == [bad]
    assert found(text=word, provider="local", limit=2) == good[:0:-1]
    made_at = boss.get(f"/api/jobs/{bad}").json()["created_at"]
    assert found(text=word, since=made_at) == [bad]
    assert found(text=word, until=made_at) == good[::-1]
    page = boss.get("/api/jobs", params={"text": word, "limit": 3}).json()
    assert page["next"] is not None
    assert found(text=word, limit=3, after=page["next"]) == good[:1]
    suggested = boss.get("/api/jobs/suggestions").json()
    assert {"slot-001", PAID} <= set(suggested["slots"])
    assert "provider_refused" in until(
        lambda: boss.get("/api/jobs/suggestions").json()["failure_reasons"], within_s=15, what="rollups"
    )


@pytest.mark.parametrize(
    "asked", ["status=done", "limit=0", "since=2026-01-01T00:00:00", "text=", "after=x", "text=%00", "slot=x"]
)
def test_what_cannot_be_asked_is_refused(boss: httpx.Client, asked: str) -> None:
    assert code(boss.get(f"/api/jobs?{asked}")) == (400, "invalid_request")


@pytest.mark.parametrize("job_id", ["x", "%00", "00000000-0000-4000-8000-000000000000"])
def test_a_job_that_is_not_there_is_not_found(boss: httpx.Client, job_id: str) -> None:
    wanted = (404, "not_found" if job_id == "%00" else "job_not_found")
    url = f"/api/jobs/{job_id}"
    answers = [boss.get(url), boss.get(f"{url}/original"), boss.post(f"{url}/cancel"), boss.post(f"{url}/rerun")]
    assert {code(answer) for answer in answers} == {wanted}


def test_a_running_job_is_cancelled_and_its_provider_is_hung_up_on_at_once(
    house: Installation, boss: httpx.Client, openai: OpenAI
) -> None:
    openai.mode = "hang"

    def cancelled_after_s() -> float:
        [job_id] = started(house)
        until(lambda: openai.flying, within_s=10, what="the call runs")
        before, began = len(openai.hang_ups), time.monotonic()
        answer = boss.post(f"/api/jobs/{job_id}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
        until(lambda: len(openai.hang_ups) > before, within_s=5, what="the call is given up")
        assert code(boss.post(f"/api/jobs/{job_id}/cancel")) == (409, "conflict")
        assert boss.get(f"/api/jobs/{job_id}").json()["failure_detail"] == "Cancelled by an administrator"
        return openai.hang_ups[-1] - began

    assert min(cancelled_after_s() for _ in range(3)) <= 0.25


def test_many_jobs_are_cancelled_by_name_or_by_what_they_have_in_common(
    house: Installation, boss: httpx.Client, openai: OpenAI, word: str
) -> None:
    done = sent(house, guest=word)
    openai.mode = "hang"
    named, common = started(house, 3), started(house, 3, guest=word)
    by_name = boss.post("/api/jobs/cancel", json={"job_ids": [*named, named[0], done, str(uuid4())]})
    assert by_name.json() == {"cancelled": 3, "ended_before": 2, "more": False}
    by_filter = boss.post("/api/jobs/cancel", json={"filter": {"text": word}})
    assert by_filter.json() == {"cancelled": 3, "ended_before": 0, "more": False}
    assert {ended(boss, job_id)["status"] for job_id in (*named, *common)} == {"cancelled"}
    assert boss.get(f"/api/jobs/{done}").json()["status"] == "succeeded"
    nothing = boss.post("/api/jobs/cancel", json={"filter": {"text": word, "status": ["succeeded"]}})
    assert nothing.json() == {"cancelled": 0, "ended_before": 0, "more": False}
    until(lambda: not openai.flying, within_s=5, what="every call is given up")


@pytest.mark.parametrize(
    "given",
    [{}, {"job_ids": [], "filter": {}}, {"job_ids": ["x"]}, {"filter": {"more": 1}}, {"job_ids": [str(uuid4())] * 201}],
)
def test_a_bulk_that_says_neither_or_too_much_is_refused(boss: httpx.Client, given: dict[str, Any]) -> None:
    assert code(boss.post("/api/jobs/cancel", json=given)) == (422, "invalid_settings")


def test_a_photo_that_was_kept_is_done_again_as_its_slot_is_set_now(house: Installation, boss: httpx.Client) -> None:
    route = {"rungs": [{"provider": "local", "operation": "original"}]}
    made = boss.post("/api/slots", json={"name": "Done again", "route": route, "is_active": True})
    slot = made.json()["id"]
    until(lambda: house.post(photo(64, 48), slot=slot).status_code == 200, within_s=5, what="the slot is on")
    job_id = sent(house, slot=slot, guest="Anna")
    filtered = {"rungs": [{"provider": "local", "operation": "filter"}]}
    boss.patch(made.headers["location"], json={"route": filtered}, headers={"If-Match": made.headers["etag"]})

    def again() -> dict[str, Any] | None:
        answer = boss.post(f"/api/jobs/{job_id}/rerun")
        assert answer.status_code == 202, answer.text
        job = ended(boss, answer.json()["job_id"])
        return job if job["served_by"] == "local/filter" else None

    job = until(again, within_s=10, what="the slot's new route")
    assert job is not None
    assert (job["status"], job["fields"]) == ("succeeded", {"guest": "Anna"})
    assert job["payload_sha256"] == boss.get(f"/api/jobs/{job_id}").json()["payload_sha256"]
    assert (job["rerun_of"], job["reruns"]) == (job_id, [])
    assert job["job_id"] in boss.get(f"/api/jobs/{job_id}").json()["reruns"]
    several = boss.post("/api/jobs/rerun", json={"job_ids": [job_id, str(uuid4())]}).json()["items"]
    assert ended(boss, several[0]["job_id"])["status"] == "succeeded"
    assert (several[1]["job_id"], several[1]["failure"]["code"]) == (None, "job_not_found")
    boss.patch("/api/settings", json={"disk_reserve_bytes": 10**18})
    full = until(
        lambda: (answer := boss.post(f"/api/jobs/{job_id}/rerun")).status_code != 202 and answer,
        within_s=5,
        what="the reserve is known",
    )
    boss.patch("/api/settings", json={"disk_reserve_bytes": 0})
    until(lambda: boss.get("/readyz").status_code == 200, within_s=5, what="there is room again")
    assert full
    assert code(full) == (503, "storage_full")
    boss.patch(made.headers["location"], json={"is_active": False}, headers={"If-Match": '"2"'})
    off = until(
        lambda: (answer := boss.post(f"/api/jobs/{job_id}/rerun")).status_code == 404 and answer,
        within_s=5,
        what="the slot is off",
    )
    assert off
    assert code(off) == (404, "slot_disabled")


@pytest.mark.usefixtures("back")
def test_a_photo_that_was_not_kept_cannot_be_done_again_and_the_words_say_why(
    house: Installation, boss: httpx.Client
) -> None:
    boss.patch("/api/settings", json={"t_original_retention_h": 0})

    def gone() -> str | None:
        job_id = sent(house)
        return None if boss.get(f"/api/jobs/{job_id}").json()["has_original"] else job_id

    job_id = until(gone, within_s=5, what="originals are not kept")
    answer = boss.post(f"/api/jobs/{job_id}/rerun")
    assert code(answer) == (409, "conflict")
    assert "t_original_retention_h" in answer.json()["detail"]
    assert boss.get(f"/api/jobs/{job_id}").json()["original_url"] is None
    assert code(boss.get(f"/api/jobs/{job_id}/original")) == (404, "result_not_found")


def test_a_job_that_runs_cannot_be_done_again(house: Installation, boss: httpx.Client, openai: OpenAI) -> None:
    openai.mode = "hang"
    [job_id] = started(house)
    assert code(boss.post(f"/api/jobs/{job_id}/rerun")) == (409, "conflict")
    boss.post(f"/api/jobs/{job_id}/cancel")


def test_the_pictures_that_can_be_fetched_now(house: Installation, known: Api, boss: httpx.Client) -> None:
    made = [sent(house) for _ in range(3)]
    page = boss.get("/api/results", params={"slot_id": "slot-001", "limit": 2}).json()
    assert [one["job_id"] for one in page["items"]] == made[:0:-1]
    following = boss.get("/api/results", params={"slot_id": "slot-001", "limit": 2, "after": page["next"]}).json()
    assert following["items"][0]["job_id"] == made[0]
    known.sql("UPDATE job SET result_expires_at = clock_timestamp() WHERE id = %s", made[0])
    assert made[0] not in boss.get("/api/results").text
    assert boss.get("/api/results", params={"slot_id": "nobody"}).json() == {"items": [], "next": None}
    assert code(boss.get("/api/results?limit=500")) == (400, "invalid_request")
    listed = boss.get("/api/jobs", params={"text": made[0]}).json()["items"][0]
    assert (listed["has_result"], listed["result_url"], listed["thumbnail_url"]) == (False, None, None)
