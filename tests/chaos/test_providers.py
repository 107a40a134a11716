"""Faults around paid calls: workers killed while a provider works, keys changed under load."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ops.simulators import KEY, serving
from ops.simulators.gemini import Gemini
from ops.simulators.turbotext import Turbotext
from tests.chaos.guarantees import check, matches_row, rows_and_files_agree
from tests.installation import Installation, until
from tests.integration.calls import options
from tests.photos import photo

KILLS = 20
JOBS = 1000


@pytest.fixture
def turbotext() -> Iterator[Turbotext]:
    with serving(Turbotext()) as simulator:
        yield simulator


@pytest.fixture
def gemini() -> Iterator[Gemini]:
    with serving(Gemini()) as simulator:
        yield simulator


def routed(running: Installation, name: str, simulator: Gemini | Turbotext) -> None:
    """Sends ``slot-002`` through the provider, and waits until the web process knows."""
    running.done("settings", f"providers={json.dumps({name: options(name, simulator.url)})}")
    running.done("settings", f"allowed_private_hosts={json.dumps([simulator.url.removeprefix('http://')])}")
    running.cli("public-url", running.url)
    running.done("secrets", "set", name, stdin=KEY)
    rung = ("--provider", name, "--operation", "image_edit", "--settings", '{"prompt": "x"}')
    running.done("slot", "set", "slot-002", "--on", *rung)
    until(
        lambda: running.post(photo(64, 48), slot="slot-002").status_code == 200,
        within_s=20,
        what="the slot switched on",
    )


def new_job(turbotext: Turbotext, known: set[str]) -> dict[str, Any]:
    """The job that ``create_queue`` makes next."""
    until(lambda: set(turbotext.jobs) - known, within_s=20, what="create_queue")
    (queue_id,) = set(turbotext.jobs) - known
    return turbotext.jobs[queue_id]


def polled(job: dict[str, Any], *, before: int) -> None:
    """Waits until the job was asked for once more: it counts down."""
    until(lambda: job["polls"] < before, within_s=15, what="a poll")


def test_a_worker_killed_while_polling_is_taken_over_without_paying_again(
    installation: Installation, turbotext: Turbotext
) -> None:
    routed(installation, "turbotext", turbotext)
    paid = turbotext.calls["create_queue"]
    turbotext.polls = 10**9
    with ThreadPoolExecutor(1) as camera:
        for number in range(KILLS):
            known = set(turbotext.jobs)
            answer = camera.submit(installation.post, photo(64, 48), slot="slot-002")
            job = new_job(turbotext, known)
            polled(job, before=10**9)
            os.kill(installation.worker_pid(), signal.SIGKILL)
            polled(job, before=job["polls"] - 1)
            job["polls"] = 0
            got = answer.result(60)
            assert got.status_code == 200, got.text
            matches_row(installation, got.headers["x-job-id"], got.content)
            assert turbotext.calls["create_queue"] == paid + number + 1, "one create_queue a job"
    jobs = check(installation)
    assert {job["status"] for job in jobs} == {"succeeded"}
    killed = installation.sql("SELECT job_id FROM attempt GROUP BY job_id HAVING count(*) = 2")
    assert len(killed) == KILLS
    ids = installation.sql("SELECT DISTINCT request_id FROM attempt WHERE request_id IS NOT NULL")
    assert len(ids) == len(jobs)
    rows_and_files_agree(installation)


def test_keys_may_be_changed_and_rotated_under_load(installation: Installation, gemini: Gemini) -> None:
    routed(installation, "gemini", gemini)
    canaries = [f"canary-{number}-6d1f" for number in range(50)]
    gemini.keys.update(canaries)
    done = threading.Event()

    def administrate() -> list[str]:
        """Keys, master keys and ingest passwords change for as long as photos come."""
        printed = []
        for canary in canaries:
            printed.append(
                installation.done("secrets", "set", "gemini", stdin=canary)
                + installation.done("secrets", "rotate")
                + installation.done("ingest-password")
            )
            if done.is_set():
                break
        return printed

    with ThreadPoolExecutor(17) as threads:
        administrator = threads.submit(administrate)
        sent = [photo(64, 48) for _ in range(JOBS)]
        statuses = Counter(
            threads.map(lambda data: installation.post(data, slot="slot-002", timeout=90).status_code, sent)
        )
        done.set()
        printed = administrator.result()
    assert statuses == {200: JOBS}
    changes = len(printed)
    assert changes >= 2, "the keys were changed while photos came"
    assert installation.post(photo(64, 48), slot="slot-002").status_code == 200
    used = [call.headers["x-goog-api-key"] for verb, call in gemini.seen if verb == "generate"]
    assert used[-1] == canaries[changes - 1], "the next call uses the newest key"
    check(installation)
    text = "".join([*printed, *installation.log])
    dump = str(installation.sql("SELECT * FROM provider_secret")) + str(installation.sql("SELECT * FROM attempt"))
    for canary in canaries:
        assert canary not in text
        assert canary not in dump
    assert f"under master key k{changes + 1}" in installation.done("secrets", "list")
