"""The URLs beside the picture: a job's state and cancelling for its sender; health, readiness and numbers for us."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import httpx
import pytest
from prometheus_client import Counter, Histogram
from prometheus_client.parser import text_string_to_metric_families

from photochanger import metrics
from photochanger.config import Config
from photochanger.tokens import Links, master_keys
from tests.installation import Installation, until
from tests.photos import photo

pytestmark = pytest.mark.xdist_group("shared")


def get(url: str, **headers: str) -> httpx.Response:
    return httpx.get(url, headers=headers, timeout=70, trust_env=False)


def post(url: str) -> httpx.Response:
    return httpx.post(url, timeout=30, trust_env=False)


def assert_problem(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text[:500]
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == code
    assert answer.json()["status"] == status


def submitted(installation: Installation) -> dict[str, str]:
    """Sends a photo without waiting for it; its URLs."""
    answer = installation.post(photo(), headers={"Prefer": "respond-async"})
    assert answer.status_code == 202, answer.text
    urls: dict[str, str] = answer.json()
    return urls


def final(urls: dict[str, str]) -> dict[str, Any]:
    """The job's state once it is final."""
    state: dict[str, Any] = get(urls["status_url"], Prefer="wait=30").json()
    assert state["status"] not in ("pending", "processing")
    return state


@contextmanager
def paused_worker(installation: Installation) -> Iterator[int]:
    """Nobody claims anything inside the block."""
    pid = installation.worker_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGCONT)


# -- state ----------------------------------------------------------------------------------------------------------


def test_the_status_url_tells_how_a_job_ended(shared: Installation) -> None:
    urls = submitted(shared)
    state = final(urls)
    row = shared.sql("SELECT * FROM job WHERE id = %s", urls["job_id"])[0]
    assert state["job_id"] == urls["job_id"]
    assert state["slot_id"] == "slot-001"
    assert state["status"] == "succeeded"
    assert state["failure"] is None
    assert state["result"]["sha256"] == row["result_sha256"]
    assert datetime.fromisoformat(state["expires_at"]) == row["expires_at"]
    assert datetime.fromisoformat(state["finalized_at"]) == row["finalized_at"]
    assert datetime.fromisoformat(state["result"]["expires_at"]) == row["result_expires_at"]
    assert len(get(state["result"]["url"]).content) == row["result_bytes"]


def test_a_status_is_never_cached(shared: Installation) -> None:
    assert get(submitted(shared)["status_url"]).headers["cache-control"] == "no-store"


def test_a_failed_jobs_state_says_why(shared: Installation) -> None:
    whole = photo()
    answer = shared.post(whole[: len(whole) // 2], headers={"Prefer": "respond-async"})
    assert answer.status_code == 202, answer.text
    state = final(answer.json())
    assert state["status"] == "failed"
    assert state["result"] is None
    assert state["failure"]["code"] == "invalid_image"
    assert state["failure"]["status"] == 400
    assert_problem(get(answer.json()["result_url"]), 404, "result_not_found")


def test_a_long_poll_ends_as_soon_as_the_job_does(installation: Installation) -> None:
    with paused_worker(installation):
        urls = submitted(installation)
        assert get(urls["status_url"]).json()["status"] == "pending"
        began = time.monotonic()
        short = get(urls["status_url"], Prefer="wait=1")
        assert time.monotonic() - began >= 1
        assert short.headers["preference-applied"] == "wait=1"
        assert short.json()["status"] == "pending"
        answers: list[tuple[httpx.Response, float]] = []
        poll = threading.Thread(
            target=lambda: answers.append((get(urls["status_url"], Prefer="wait=40"), time.time())), daemon=True
        )
        poll.start()
    poll.join(45)
    answer, at = answers[0]
    assert answer.json()["status"] == "succeeded"
    assert at - datetime.fromisoformat(answer.json()["finalized_at"]).timestamp() < 3


def test_a_long_poll_of_a_final_job_does_not_wait(shared: Installation) -> None:
    urls = submitted(shared)
    final(urls)
    began = time.monotonic()
    answer = get(urls["status_url"], Prefer="wait=5")
    assert time.monotonic() - began < 2.5
    assert answer.json()["status"] == "succeeded"


# -- who may --------------------------------------------------------------------------------------------------------


def token_of(url: str) -> str:
    return parse_qs(urlsplit(url).query)["token"][0]


def test_every_token_opens_its_own_url_only(shared: Installation) -> None:
    urls = submitted(shared)
    final(urls)
    job = f"{shared.url}/public/jobs/{urls['job_id']}"
    status, cancel, result = (token_of(urls[name]) for name in ("status_url", "cancel_url", "result_url"))
    assert len({status, cancel, result}) == 3
    for foreign in (cancel, result, "", "k1.zzzzzz.AAAA", status[:-1]):
        assert_problem(get(f"{job}?token={foreign}"), 404, "job_not_found")
    for foreign in (status, result, "", "k1.zzzzzz.AAAA", cancel[:-1]):
        assert_problem(post(f"{job}/cancel?token={foreign}"), 404, "job_not_found")
    for foreign in (status, cancel):
        answer = get(f"{shared.url}/public/results/{urls['job_id']}?token={foreign}")
        assert_problem(answer, 404, "result_not_found")


def test_another_jobs_token_opens_nothing(shared: Installation) -> None:
    one, other = submitted(shared), submitted(shared)
    answer = get(f"{shared.url}/public/jobs/{one['job_id']}?token={token_of(other['status_url'])}")
    assert_problem(answer, 404, "job_not_found")
    answer = post(f"{shared.url}/public/jobs/{one['job_id']}/cancel?token={token_of(other['cancel_url'])}")
    assert_problem(answer, 404, "job_not_found")
    assert final(one)["status"] == final(other)["status"] == "succeeded"


@pytest.mark.parametrize("job_id", [str(UUID(int=7)), "nonsense", "%00", "a" * 3000])
def test_a_job_that_never_was_is_not_found(shared: Installation, job_id: str) -> None:
    assert_problem(get(f"{shared.url}/public/jobs/{job_id}?token=k1.z.A"), 404, "job_not_found")
    assert_problem(post(f"{shared.url}/public/jobs/{job_id}/cancel?token=k1.z.A"), 404, "job_not_found")


def test_a_deleted_job_is_not_found(shared: Installation) -> None:
    job_id = str(uuid4())
    links = Links(master_keys(Config(home=shared.home)), "status")
    token = links.token(job_id, datetime.now(UTC) + timedelta(hours=1))
    assert_problem(get(f"{shared.url}/public/jobs/{job_id}?token={token}"), 404, "job_not_found")


# -- cancelling -----------------------------------------------------------------------------------------------------


def test_a_finished_job_cannot_be_cancelled(shared: Installation) -> None:
    urls = submitted(shared)
    final(urls)
    assert_problem(post(urls["cancel_url"]), 409, "conflict")
    assert final(urls)["status"] == "succeeded"


def test_a_pending_job_is_cancelled_and_its_waiting_camera_told(installation: Installation) -> None:
    answers: list[httpx.Response] = []
    with paused_worker(installation):
        camera = threading.Thread(target=lambda: answers.append(installation.post(photo())), daemon=True)
        camera.start()
        row = until(lambda: installation.sql("SELECT id::text AS id FROM job"), within_s=15, what="the camera's job")[0]
        links = Links(master_keys(Config(home=installation.home)), "cancel")
        token = links.token(row["id"], datetime.now(UTC) + timedelta(hours=1))
        cancelled = post(f"{installation.url}/public/jobs/{row['id']}/cancel?token={token}")
        assert cancelled.status_code == 200, cancelled.text
        assert cancelled.json()["status"] == "cancelled"
        camera.join(5)
        assert len(answers) == 1, "the camera still waits"
        again = post(f"{installation.url}/public/jobs/{row['id']}/cancel?token={token}")
        assert again.status_code == 200
    assert_problem(answers[0], 409, "cancelled")
    assert answers[0].headers["x-job-id"] == row["id"]
    until(lambda: not installation.files("payloads"), within_s=5, what="the photo deleted")
    until(lambda: not installation.sql("SELECT FROM dramatiq.queue"), within_s=5, what="an empty queue")
    events = installation.sql("SELECT event FROM processing_log WHERE job_id = %s ORDER BY id", row["id"])
    assert [event["event"] for event in events] == ["received", "cancelled"]
    assert installation.sql("SELECT FROM attempt") == []


# -- our own --------------------------------------------------------------------------------------------------------


def test_healthz_says_that_the_process_answers(shared: Installation) -> None:
    answer = get(f"{shared.url}/healthz")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ok"}


def test_readyz_names_every_check(shared: Installation) -> None:
    answer = get(f"{shared.url}/readyz")
    assert answer.status_code == 200
    assert answer.json()["checks"] == dict.fromkeys(("database", "migrations", "storage", "room", "queue"), "ok")


def test_readyz_names_the_queue_when_no_worker_beats(installation: Installation) -> None:
    ready = f"{installation.url}/readyz"
    assert get(ready).status_code == 200
    with paused_worker(installation):
        until(lambda: get(ready).status_code == 503, within_s=10, what="503 without a worker")
        answer = get(ready)
        assert_problem(answer, 503, "unavailable")
        assert [error["field"] for error in answer.json()["errors"]] == ["queue"]
        assert int(answer.headers["retry-after"]) >= 1
        assert get(f"{installation.url}/healthz").status_code == 200
    until(lambda: get(ready).status_code == 200, within_s=10, what="ready again")


NUMBERS = {
    name: metric
    for value in vars(metrics).values()
    if isinstance(metric := value, Counter | Histogram)
    for name in [next(iter(metric.describe())).name]
}


def test_metrics_hold_every_number_we_keep(installation: Installation) -> None:
    """After one photo and one that is claimed a second time, everything has been counted at least once."""
    assert installation.post(photo()).status_code == 200
    with paused_worker(installation):
        urls = submitted(installation)
        installation.sql("UPDATE job SET claim_no = 1 WHERE id = %s", urls["job_id"])
    assert final(urls)["status"] == "succeeded"

    def scraped() -> set[str]:
        answer = get(f"{installation.url}/metrics")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain")
        return {family.name for family in text_string_to_metric_families(answer.text)}

    assert len(NUMBERS) >= 9
    until(lambda: set(NUMBERS) <= scraped(), within_s=5, what=f"all of {sorted(NUMBERS)} at /metrics")
    gauges = {name for name, _ in metrics._GAUGES.values()}
    assert gauges <= scraped()


def test_a_photo_is_counted_once_by_slot_provider_and_outcome(installation: Installation) -> None:
    for _ in range(3):
        assert installation.post(photo()).status_code == 200
    assert installation.post(photo(), password="a wrong one").status_code == 401
    families = {f.name: f for f in text_string_to_metric_families(get(f"{installation.url}/metrics").text)}
    succeeded = [
        sample.value
        for sample in families["photochanger_ingests"].samples
        if sample.labels == {"slot": "slot-001", "provider": "local", "outcome": "succeeded"}
    ]
    assert succeeded == [3.0]


@pytest.mark.parametrize(
    "path", ["/nothing-here", "/public", "/static/nothing.js", "/static/../app.py", "/%00", "/ingest"]
)
def test_an_unknown_address_is_a_problem_document(shared: Installation, path: str) -> None:
    assert_problem(get(f"{shared.url}{path}"), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/ingest/slot-001", "POST"),
        ("POST", "/healthz", "GET"),
        ("POST", "/public/results/x", "GET"),
        ("GET", "/public/jobs/x/cancel", "POST"),
        ("PUT", "/public/jobs/x", "GET"),
    ],
)
def test_a_wrong_method_is_a_problem_document(shared: Installation, method: str, path: str, allowed: str) -> None:
    answer = httpx.request(method, f"{shared.url}{path}", trust_env=False)
    assert_problem(answer, 405, "invalid_request")
    assert allowed in answer.headers["allow"]
