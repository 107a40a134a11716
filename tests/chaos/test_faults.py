"""Faults under load: workers killed, PostgreSQL restarted, the bell gone. G1–G6 hold after each."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from photochanger.embedded import EmbeddedPostgres
from tests.chaos.guarantees import check, matches_row, rows_and_files_agree
from tests.installation import Installation, until
from tests.photos import photo


def photos(count: int) -> list[bytes]:
    return [photo(1600, 1200) for _ in range(count)]


def answered(running: Installation, sent: list[bytes], *, at_once: int) -> Counter[int]:
    """Sends every photo; the count of each status. Every 200 is the picture its row says (G3)."""

    def send(data: bytes) -> int:
        answer = running.post(data, timeout=90)
        if answer.status_code == 200:
            matches_row(running, answer.headers["x-job-id"], answer.content)
        else:
            assert answer.headers["content-type"] == "application/problem+json"
        return answer.status_code

    with ThreadPoolExecutor(at_once) as threads:
        return Counter(threads.map(send, sent))


@contextlib.contextmanager
def every(seconds: float, act: Callable[[], None]) -> Iterator[None]:
    """Repeats ``act`` in the background while inside."""
    stop = threading.Event()
    errors: list[BaseException] = []

    def repeat() -> None:
        while not stop.wait(seconds):
            try:
                act()
            except BaseException as error:
                errors.append(error)
                return

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert not errors, errors


def test_the_worker_killed_every_two_seconds(installation: Installation) -> None:
    installation.sql("INSERT INTO app_settings VALUES ('t_sync_response_s', '20')")

    def kill() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(installation.worker_pid(), signal.SIGKILL)

    with every(2.0, kill):
        statuses = answered(installation, photos(200), at_once=16)
    assert sum(statuses.values()) == 200
    assert set(statuses) <= {200, 503, 504}, statuses
    jobs = check(installation)
    assert len(jobs) == 200
    rows_and_files_agree(installation)


@pytest.mark.parametrize("failpoint", ["file-written", "committed"])
@pytest.mark.parametrize("times", [12, pytest.param(50, marks=pytest.mark.full)])
def test_killed_between_file_and_commit_and_between_commit_and_acknowledgement(
    database_url: str, tmp_path: Path, failpoint: str, times: int
) -> None:
    with Installation(
        tmp_path / "home", database_url=database_url, env={"PHOTOCHANGER_FAILPOINT": f"{failpoint}={tmp_path}"}
    ) as running:
        killed = 0
        for _ in range(times):
            armed = tmp_path / f"{failpoint}-armed"
            armed.touch()
            answer = running.post(photo(64, 48), timeout=90)
            until(lambda armed=armed: not armed.exists(), within_s=5, what="the failpoint fired")  # type: ignore[misc]
            killed += 1
            assert answer.status_code == 200, answer.text
            matches_row(running, answer.headers["x-job-id"], answer.content)
        check(running)
        rows_and_files_agree(running)
        attempts = running.sql("SELECT count(*) AS n FROM attempt")[0]["n"]
        assert attempts == (2 * killed if failpoint == "file-written" else killed)


def test_postgresql_crashes_five_times_under_load(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "pg")
    tmp_path.chmod(0o755)
    url = server.start()
    try:
        with Installation(tmp_path / "home", database_url=url) as running:
            sent = photos(150)
            accepted: list[str] = []
            refused_after: list[float] = []

            def send(data: bytes) -> None:
                began = time.monotonic()
                answer = running.post(data, timeout=90, headers={"Prefer": "respond-async"})
                if answer.status_code == 202:
                    accepted.append(answer.json()["job_id"])
                else:
                    assert answer.status_code == 503, answer.text
                    assert int(answer.headers["retry-after"]) >= 1
                    refused_after.append(time.monotonic() - began)

            with ThreadPoolExecutor(4) as threads:
                done = threads.map(send, sent)
                for _ in range(5):
                    before = len(accepted)
                    server.restart("immediate")
                    until(lambda before=before: len(accepted) > before, within_s=5, what="healthy again")  # type: ignore[misc]
                list(done)
            until(lambda: running.post(photo()).status_code == 200, within_s=5, what="healthy at the end")
            jobs = check(running)
            known = {str(job["id"]) for job in jobs}
            assert set(accepted) <= known, "an acknowledged job was lost"
            assert all(seconds <= 3 for seconds in refused_after), max(refused_after)
            by_status = Counter(job["status"] for job in jobs)
            assert by_status["succeeded"] >= 0.9 * len(accepted), by_status
            rows_and_files_agree(running)
    finally:
        server.stop()


def test_without_notify_everything_is_slower_and_nothing_stuck(database_url: str, tmp_path: Path) -> None:
    with Installation(tmp_path / "home", database_url=database_url, env={"PHOTOCHANGER_NO_NOTIFY": "true"}) as running:
        statuses = answered(running, photos(40), at_once=4)
        assert statuses == {200: 40}
        check(running)
        waits = running.sql("SELECT max(extract(epoch FROM claimed_at - created_at))::float8 AS s FROM job")[0]["s"]
        assert waits <= 3.0


def test_a_killed_web_process_leaves_its_jobs_to_end_by_themselves(installation: Installation) -> None:
    os.kill(installation.worker_pid(), signal.SIGSTOP)
    broken: list[BaseException] = []

    def send() -> None:
        try:
            installation.post(photo())
        except httpx.HTTPError as error:
            broken.append(error)

    senders = [threading.Thread(target=send) for _ in range(5)]
    for sender in senders:
        sender.start()
    until(lambda: len(installation.sql("SELECT 1 FROM job")) == 5, within_s=10, what="five jobs")
    os.kill(installation.worker_pid(), signal.SIGCONT)
    installation.part("web").kill()
    for sender in senders:
        sender.join(20)
    check(installation)
    until(lambda: installation.part("web").is_running(), within_s=10, what="web again")
    until(lambda: _up(installation), within_s=15, what="web answering again")
    assert installation.post(photo()).status_code == 200


def _up(running: Installation) -> bool:
    try:
        return httpx.get(f"{running.url}/readyz", timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def test_a_restart_of_the_worker_under_load_loses_nothing(installation: Installation) -> None:
    """SIGTERM drains: no new claims, running jobs finish, the rest wait for the next worker."""
    with every(4.0, lambda: installation.part("worker").terminate()):
        statuses = answered(installation, photos(120), at_once=6)
    assert statuses == {200: 120}
    assert installation.sql("SELECT 1 FROM job WHERE claim_no > 1") == []
    check(installation)


def test_every_result_is_gone_after_its_time_and_a_download_is_whole_or_410(installation: Installation) -> None:
    """1000 races of the cleaner against a download."""
    import asyncio

    from photochanger import retention
    from photochanger.db import Database
    from photochanger.storage.local import LocalStorage
    from tests.installation import result_link

    answers = [installation.post(photo(200, 150)) for _ in range(50)]
    races = [(result_link(answer), answer) for answer in answers]
    assert installation._database_url is not None
    url = installation._database_url

    async def race() -> Counter[int]:
        db = Database(url, connections=4, application_name="test")
        storage = LocalStorage(installation.home / "media")
        seen: Counter[int] = Counter()
        async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
            for number in range(1000):
                link, answer = races[number % len(races)]
                key = f"results/{answer.headers['x-job-id']}.jpg"
                storage.path(key).write_bytes(answer.content)
                await db.fetch(
                    "UPDATE job SET result_file_path = %(key)s, "
                    "result_expires_at = clock_timestamp() + interval '2 milliseconds' WHERE id = %(id)s",
                    {"key": key, "id": answer.headers["x-job-id"]},
                )
                got, *_ = await asyncio.gather(
                    client.get(link), retention.clean_results(db, storage), retention.clean_results(db, storage)
                )
                seen[got.status_code] += 1
                if got.status_code == 200:
                    assert got.content == answer.content
                else:
                    assert got.status_code == 410
        await retention.clean_results(db, storage)
        await db.close()
        return seen

    seen = asyncio.run(race())
    assert set(seen) <= {200, 410}
    until(lambda: installation.files("results") == [], within_s=5, what="bytes gone")


def test_two_schedulers_and_a_paused_leader_expire_once(installation: Installation) -> None:
    leader = installation.part("scheduler")
    until(lambda: installation.sql("SELECT 1 FROM lease"), within_s=10, what="a leader")
    os.kill(leader.pid, signal.SIGSTOP)
    try:
        os.kill(installation.worker_pid(), signal.SIGSTOP)
        installation.sql("UPDATE lease SET expires_at = now()")
        installation.sql("INSERT INTO app_settings VALUES ('t_sync_response_s', '10')")
        until(
            lambda: installation.post(photo()).status_code == 504, within_s=60, what="a timeout without the scheduler"
        )
    finally:
        os.kill(leader.pid, signal.SIGCONT)
        os.kill(installation.worker_pid(), signal.SIGCONT)
    for job in check(installation):
        events = installation.sql("SELECT event FROM processing_log WHERE job_id = %s", job["id"])
        assert [row["event"] for row in events].count("timed_out") <= 1
