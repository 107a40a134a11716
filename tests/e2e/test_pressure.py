"""What cameras are told when there is too much of something, and photos that come twice or late, over real HTTP."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest

from ops.simulators import KEY, serving
from ops.simulators.openai import OpenAI
from tests.installation import INGEST_PASSWORD, Installation, until
from tests.integration.calls import options
from tests.photos import photo

EDIT = {"provider": "openai", "operation": "image_edit", "settings": {"prompt": "x"}}


@pytest.fixture
def openai() -> Iterator[OpenAI]:
    with serving(OpenAI()) as simulator:
        yield simulator


def set_up(running: Installation, openai: OpenAI, *, t_sync_s: float = 20, **more: Any) -> None:
    models = {"gpt-image-1-mini": {"usual_s": 0.3}}
    given = options("openai", openai.url, models=models, **more)
    running.done("secrets", "set", "openai", stdin=KEY)
    running.done("settings", f"providers={json.dumps({'openai': given})}", f"t_sync_response_s={t_sync_s}")


def slot(running: Installation, name: str = "slot-002", **slot_options: Any) -> None:
    """Sends the slot through OpenAI with these options, and waits until the web process knows."""
    route = json.dumps({"rungs": [EDIT]})
    running.done("slot", "set", name, "--on", "--route", route, "--options", json.dumps(slot_options))
    until(
        lambda: running.post(photo(64, 48), slot=name, headers={"Prefer": "respond-async"}).status_code == 202,
        within_s=5,
        what="the slot switched on",
    )
    time_to_know(running, name)


def time_to_know(running: Installation, name: str) -> None:
    version = str(running.sql("SELECT version FROM slot WHERE id = %s", name)[0]["version"])

    def known() -> bool:
        answer = running.post(photo(64, 48), slot=name, headers={"Prefer": "respond-async"})
        rows = running.sql("SELECT snapshot->>'slot_version' AS v FROM job WHERE id = %s", answer.headers["x-job-id"])
        return bool(rows[0]["v"] == version)

    until(known, within_s=5, what="the slot's new version")
    until(lambda: not running.sql("SELECT 1 FROM job WHERE NOT is_finalized"), within_s=30, what="quiet")


def answered(ask: Callable[[], httpx.Response], status: int, *, within_s: float, what: str) -> httpx.Response:
    """The first answer with ``status``."""
    got: list[httpx.Response] = []

    def asked() -> bool:
        got.append(ask())
        return got[-1].status_code == status

    until(asked, within_s=within_s, what=what)
    return got[-1]


def refused(answer: httpx.Response, status: int, code: str) -> httpx.Response:
    assert (answer.status_code, answer.json().get("code")) == (status, code), answer.text
    if status in (429, 503):
        assert int(answer.headers["retry-after"]) >= 1
    return answer


def test_limits_of_requests_are_told_and_kept(installation: Installation) -> None:
    plain = installation.post(photo(64, 48))
    assert "ratelimit" not in plain.headers
    installation.done("settings", "ingest_per_minute=100", "ingest_per_minute_slot=3")
    until(lambda: "ratelimit" in installation.post(photo(64, 48)).headers, within_s=5, what="the limit is known")
    first = installation.post(photo(64, 48))
    assert first.status_code == 200
    assert first.headers["ratelimit-policy"] == '"server";q=100;w=60, "slot";q=3;w=60'
    assert first.headers["ratelimit"].startswith('"server";r=')
    answers = [installation.post(photo(64, 48)) for _ in range(3)]
    assert [answer.status_code for answer in answers][-1] == 429
    over = refused(answers[-1], 429, "rate_limited")
    assert 50 <= int(over.headers["retry-after"]) <= 66
    assert '"slot";r=0' in over.headers["ratelimit"]
    installation.done("slot", "set", "slot-002", "--on")
    until(
        lambda: installation.post(photo(64, 48), slot="slot-002").status_code == 200,
        within_s=5,
        what="another slot is served",
    )


def test_a_full_disk_is_told_before_anything_is_read_or_paid(installation: Installation, openai: OpenAI) -> None:
    set_up(installation, openai)
    slot(installation)
    calls, jobs = openai.calls["edit"], installation.sql("SELECT count(*) AS n FROM job")
    installation.done("settings", f"disk_reserve_bytes={10**18}")
    full = answered(
        lambda: installation.post(photo(64, 48), slot="slot-002"), 503, within_s=5, what="the reserve is known"
    )
    refused(full, 503, "storage_full")
    jobs_then = installation.sql("SELECT count(*) AS n FROM job")
    files = installation.files("payloads") + installation.files("tmp")
    for _ in range(5):
        refused(installation.post(photo(1600, 1200), slot="slot-002"), 503, "storage_full")
    assert installation.sql("SELECT count(*) AS n FROM job") == jobs_then
    assert installation.files("payloads") + installation.files("tmp") == files
    assert openai.calls["edit"] - calls <= jobs_then[0]["n"] - jobs[0]["n"]
    not_ready = httpx.get(f"{installation.url}/readyz", trust_env=False)
    assert (not_ready.status_code, [one["field"] for one in not_ready.json()["errors"]]) == (503, ["room"])
    installation.done("settings", "disk_reserve_bytes=0")
    until(
        lambda: installation.post(photo(64, 48), slot="slot-002").status_code == 200, within_s=60, what="there is room"
    )


def test_without_a_worker_cameras_are_told_at_once_and_served_again_when_it_is_back(installation: Installation) -> None:
    worker = psutil.Process(installation.worker_pid())
    worker.send_signal(signal.SIGSTOP)
    try:
        answer = answered(
            lambda: installation.post(photo(64, 48), headers={"Prefer": "wait=0"}),
            503,
            within_s=20,
            what="the missing worker is noticed",
        )
        refused(answer, 503, "no_workers")
        began = time.monotonic()
        refused(installation.post(photo(64, 48)), 503, "no_workers")
        assert time.monotonic() - began < 1
    finally:
        worker.send_signal(signal.SIGCONT)
    until(lambda: installation.post(photo(64, 48)).status_code == 200, within_s=15, what="it is served again")


def test_an_idempotency_key_answers_with_its_job(installation: Installation) -> None:
    data, other = photo(64, 48), photo(64, 48)
    key = {"Idempotency-Key": '"booth-7-photo-3"'}
    first, again = (installation.post(data, headers=key) for _ in range(2))
    assert first.status_code == again.status_code == 200
    assert first.headers["x-job-id"] == again.headers["x-job-id"]
    assert first.content == again.content
    refused(installation.post(other, headers=key), 422, "idempotency_mismatch")
    different = installation.post(data, headers={"Idempotency-Key": "another"})
    assert different.headers["x-job-id"] != first.headers["x-job-id"]
    for wrong in ("", '""', "x" * 256, "a\tb"):
        refused(installation.post(data, headers={"Idempotency-Key": wrong}), 400, "invalid_request")
    assert len(installation.sql("SELECT 1 FROM job")) == 2
    assert installation.files("payloads") == []


def test_a_photo_sent_again_while_it_is_made_gets_the_same_answer_unless_the_slot_does_not_want_that(
    installation: Installation, openai: OpenAI
) -> None:
    set_up(installation, openai)
    slot(installation)
    openai.latency_s = 1.0
    before, data = openai.calls["edit"], photo(64, 48)
    with ThreadPoolExecutor(3) as threads:
        answers = list(threads.map(lambda _: installation.post(data, slot="slot-002"), range(3)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.headers["x-job-id"] for answer in answers}) == 1
    assert installation.post(data, slot="slot-002").headers["x-job-id"] == answers[0].headers["x-job-id"]
    assert openai.calls["edit"] == before + 1
    openai.latency_s = 0.0
    slot(installation, join_duplicates=False)

    def two() -> set[str]:
        return {installation.post(data, slot="slot-002").headers["x-job-id"] for _ in range(2)}

    until(lambda: len(two()) == 2, within_s=5, what="the web process knows the option")
    before = openai.calls["edit"]
    assert len(two()) == 2
    assert openai.calls["edit"] == before + 2


def test_a_joined_job_is_not_cancelled_by_one_who_hangs_up_but_by_the_last(
    installation: Installation, openai: OpenAI
) -> None:
    set_up(installation, openai)
    slot(installation, on_disconnect="cancel")
    openai.latency_s = 2.0
    data, known = photo(64, 48), len(installation.sql("SELECT 1 FROM job"))

    def hangs_up(after_s: float) -> None:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{installation.url}/ingest/slot-002",
                data={"password": INGEST_PASSWORD},
                files={"fileToUpload": ("a.jpg", data, "image/jpeg")},
                timeout=httpx.Timeout(5, read=after_s),
                trust_env=False,
            )

    with ThreadPoolExecutor(2) as threads:
        stays = threads.submit(installation.post, data, slot="slot-002")
        until(lambda: len(installation.sql("SELECT 1 FROM job")) > known, within_s=5, what="the job")
        threads.submit(hangs_up, 0.5).result()
        assert stays.result().status_code == 200
        data = photo(64, 48)
        openai.latency_s = 15.0
        began = time.monotonic()
        for one in [threads.submit(hangs_up, 0.7), threads.submit(hangs_up, 1.0)]:
            one.result()
    until(lambda: installation.sql("SELECT 1 FROM job WHERE status = 'cancelled'"), within_s=5, what="it is cancelled")
    assert time.monotonic() - began < 8


def test_a_late_picture_is_kept_for_the_guest_although_the_camera_had_its_504(
    installation: Installation, openai: OpenAI
) -> None:
    set_up(installation, openai, t_sync_s=10)
    slot(installation, keep_late_result=True)
    openai.latency_s = 12.0
    began = time.monotonic()
    answer = refused(installation.post(photo(64, 48), slot="slot-002"), 504, "sync_timeout")
    assert time.monotonic() - began < 11
    link = answer.json()["result_url"]
    early = httpx.get(link, trust_env=False)
    assert (early.status_code, early.json()["retryable"]) == (404, True)
    page = httpx.get(link, headers={"Accept": "text/html"}, trust_env=False)
    assert "refresh" in page.text.lower()
    got = answered(lambda: httpx.get(link, trust_env=False), 200, within_s=10, what="the picture")
    assert got.headers["content-type"] == "image/jpeg"
    job = installation.sql("SELECT * FROM job WHERE id = %s", answer.headers["x-job-id"])[0]
    assert (job["status"], job["served_by"]) == ("timed_out", "openai/image_edit")
    assert installation.sql("SELECT 1 FROM limit_use") == []
    openai.mode = "hang"
    known = len(openai.hang_ups)
    lost = refused(installation.post(photo(64, 48), slot="slot-002"), 504, "sync_timeout")
    assert len(openai.hang_ups) == known, "its call goes on, for a minute"
    assert installation.cli("cancel", lost.headers["x-job-id"]).returncode == 1


def test_a_spent_budget_is_told_with_its_own_code_and_shown(installation: Installation, openai: OpenAI) -> None:
    set_up(installation, openai, prices={"image_edit": 2.5})
    slot(installation, budget_per_day=100)
    spent = installation.sql("SELECT sum(amount)::float8 AS n FROM limit_use WHERE key = 'budget/slot-002/day'")[0]["n"]
    slot(installation, budget_per_day=spent + 10)
    codes: list[str] = []
    while len(codes) < 6 and "budget_spent" not in codes:
        answer = installation.post(photo(64, 48), slot="slot-002")
        codes.append(answer.json()["code"] if answer.status_code != 200 else "picture")
    assert codes[-1] == "budget_spent"
    assert int(answer.headers["retry-after"]) >= 60
    assert "budget/slot-002/day" in installation.done("limits", "show")
    assert 'photochanger_limit_used{limit="budget/slot-002/day"}' in httpx.get(f"{installation.url}/metrics").text
    costs = installation.sql("SELECT DISTINCT cost::float8 AS cost FROM job WHERE status = 'succeeded' AND cost > 0")
    assert costs == [{"cost": 2.5}]


def test_who_is_not_asked_is_shown_and_may_be_asked_again(installation: Installation, openai: OpenAI) -> None:
    set_up(installation, openai)
    slot(installation)
    openai.mode = "auth"
    refused(installation.post(photo(64, 48), slot="slot-002"), 502, "provider_auth")
    assert "openai       not asked for" in installation.done("limits", "show")
    looked = installation.cli("doctor")
    assert (looked.returncode, "openai is not asked for" in looked.stdout) == (1, True)
    assert (
        'photochanger_breaker_open{cause="provider_auth",provider="openai"} 1.0'
        in httpx.get(f"{installation.url}/metrics").text
    )
    openai.mode = "success"
    refused(installation.post(photo(64, 48), slot="slot-002"), 502, "provider_auth")
    assert installation.done("limits", "reset", "openai") == "openai is asked again\n"
    assert installation.post(photo(64, 48), slot="slot-002").status_code == 200


def test_a_request_that_is_known_is_answered_although_the_queue_is_full(
    installation: Installation, openai: OpenAI
) -> None:
    set_up(installation, openai, t_sync_s=10, max_concurrent=1)
    slot(installation, join_duplicates=False)
    openai.latency_s = 3.0
    data, key = photo(64, 48), {"Idempotency-Key": "again"}
    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(installation.post, data, slot="slot-002", headers=key)
        until(lambda: installation.sql("SELECT 1 FROM request_key"), within_s=5, what="the job")
        full = answered(
            lambda: installation.post(photo(64, 48), slot="slot-002", headers={"Prefer": "respond-async"}),
            503,
            within_s=20,
            what="the queue is full",
        )
        refused(full, 503, "queue_full")
        again = installation.post(data, slot="slot-002", headers=key)
        assert (again.status_code, first.result().status_code) == (200, 200)
        assert again.headers["x-job-id"] == first.result().headers["x-job-id"]
