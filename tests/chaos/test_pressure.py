"""More photos than can be served, providers that fail in every way, duplicates, cancels, races: everybody is answered
in time, and nothing is paid for twice. Seeded: ``PHOTOCHANGER_CHAOS_SEED`` replays a run."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import quantiles
from typing import Any

import httpx
import psutil
import pytest

from ops.simulators import KEY, serving
from ops.simulators.gemini import Gemini
from ops.simulators.openai import OpenAI
from tests.chaos.guarantees import check, matches_row, rows_and_files_agree
from tests.installation import INGEST_PASSWORD, Installation, until
from tests.integration.calls import options
from tests.photos import photo

SEED = int(os.environ.get("PHOTOCHANGER_CHAOS_SEED", "20261125"))
PERMITS = 32
MIB = 1024**2


@pytest.fixture
def openai() -> Iterator[OpenAI]:
    with serving(OpenAI()) as simulator:
        simulator.replay(SEED)
        yield simulator


@pytest.fixture
def gemini() -> Iterator[Gemini]:
    with serving(Gemini()) as simulator:
        simulator.replay(SEED)
        yield simulator


def configured(running: Installation, t_sync_s: float, **providers: tuple[Any, float, dict[str, Any]]) -> None:
    """Points providers at their simulators: simulator, seconds a call is said to take, more options."""
    whole = {}
    for name, (simulator, usual_s, more) in providers.items():
        whole[name] = options(
            name, simulator.url, models={model: {"usual_s": usual_s} for model in MODELS[name]}, **more
        )
        running.done("secrets", "set", name, stdin=KEY)
    running.done("settings", f"providers={json.dumps(whole)}", f"t_sync_response_s={t_sync_s}")


MODELS = {"openai": ["gpt-image-1-mini"], "gemini": ["gemini-nano-banana-2.1", "gemini-3.1-flash-lite-image"]}
EDIT = {"operation": "image_edit", "settings": {"prompt": "x"}}
OPENAI = {"provider": "openai", **EDIT}
GEMINI = {"provider": "gemini", **EDIT}
ORIGINAL = {"provider": "local", "operation": "original"}


def routed(running: Installation, slot: str, *rungs: dict[str, Any], hedge: bool = False, **more: Any) -> None:
    """Sends a slot along a route, and waits until every process knows."""
    route = json.dumps({"rungs": rungs, "hedge": hedge})
    running.done("slot", "set", slot, "--on", "--route", route, "--options", json.dumps(more))
    version = running.sql("SELECT version FROM slot WHERE id = %s", slot)[0]["version"]

    def known() -> bool:
        job = running.post(photo(64, 48), slot=slot, headers={"Prefer": "respond-async"})
        if job.status_code != 202:
            return False
        row = running.sql("SELECT snapshot->>'slot_version' AS v FROM job WHERE id = %s", job.headers["x-job-id"])
        return bool(row[0]["v"] == str(version))

    until(known, within_s=10, what="the slot is known")
    until(lambda: not running.sql("SELECT 1 FROM job WHERE NOT is_finalized"), within_s=60, what="quiet")


class Sent:
    """One photo's answer: status, headers, body, seconds."""

    def __init__(self, answer: httpx.Response, seconds: float) -> None:
        self.status = answer.status_code
        self.headers = answer.headers
        self.body = answer.content
        self.seconds = seconds

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["code"]) if self.status >= 400 else "picture"


async def arriving(
    running: Installation, slot: str, photos: list[bytes], *, over_s: float = 0.0, at_once: int = 2000
) -> list[Sent]:
    """Sends photos, spread evenly over ``over_s`` seconds, at most ``at_once`` at the same time."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    gate = asyncio.Semaphore(at_once)
    async with httpx.AsyncClient(timeout=90, limits=limits, trust_env=False) as client:

        async def send(number: int, data: bytes) -> Sent:
            await asyncio.sleep(over_s * number / len(photos))
            async with gate:
                began = time.monotonic()
                answer = await client.post(
                    f"{running.url}/ingest/{slot}",
                    data={"password": INGEST_PASSWORD},
                    files={"fileToUpload": ("a.jpg", data, "image/jpeg")},
                )
                return Sent(answer, time.monotonic() - began)

        return await asyncio.gather(*(send(number, data) for number, data in enumerate(photos)))


def permits_back(running: Installation) -> None:
    until(
        lambda: not running.sql("SELECT 1 FROM limit_use WHERE key LIKE '%%/at-once'"),
        within_s=5,
        what="G6: every permit back",
    )


def attempts(running: Installation, provider: str) -> int:
    return int(running.sql("SELECT count(*) AS n FROM attempt WHERE provider = %s", provider)[0]["n"])


def none_began_late(running: Installation) -> None:
    late = running.sql(
        "SELECT a.id FROM attempt a JOIN job ON job.id = a.job_id WHERE a.dispatched_at >= job.expires_at"
    )
    assert late == [], "a call began after its job's deadline"


def watched(running: Installation, seen: dict[str, float], stop: threading.Event) -> None:
    """The most memory the web process takes, and the most connections the database sees."""
    web = psutil.Process(running.part("web").pid)
    while not stop.wait(0.2):
        seen["rss"] = max(seen.get("rss", 0), web.memory_info().rss)
        names = running.sql(
            "SELECT application_name AS name, count(*) AS n FROM pg_stat_activity "
            "WHERE datname = current_database() GROUP BY 1"
        )
        for row in names:
            seen[row["name"]] = max(seen.get(row["name"], 0), row["n"])


@pytest.mark.full
def test_a_thousand_photos_at_a_provider_that_can_serve_a_tenth_of_them(
    installation: Installation, openai: OpenAI
) -> None:
    openai.latency_s = 3.0
    configured(installation, 10, openai=(openai, 3.0, {"max_concurrent": PERMITS}))
    routed(installation, "slot-002", OPENAI)
    seen: dict[str, float] = {}
    stop = threading.Event()
    watching = threading.Thread(target=watched, args=(installation, seen, stop))
    watching.start()
    sent = asyncio.run(arriving(installation, "slot-002", [photo(1024, 768) for _ in range(1000)], over_s=5))
    stop.set()
    watching.join()
    statuses = Counter((one.status, one.code) for one in sent)
    refused = [one for one in sent if one.code == "queue_full"]
    admitted = [one for one in sent if one.code != "queue_full"]
    print(statuses, f"refused within {max(one.seconds for one in refused):.3f} s", seen)
    print(f"admitted answered within {max(one.seconds for one in admitted):.2f} s")
    assert {one.code for one in admitted} == {"picture"}, statuses
    assert len(admitted) >= 70, "what fits into the queue, and what is served meanwhile"
    told = [json.loads(line) for line in installation.log if '"queue_full"' in line]
    print(f"by the server's own clock within {max(line['seconds'] for line in told):.3f} s")
    assert max(line["seconds"] for line in told) <= 0.5
    assert max(one.seconds for one in admitted) <= 11
    for one in admitted:
        matches_row(installation, one.headers["x-job-id"], one.body)
    assert seen["rss"] <= 1024 * MIB
    assert seen["photochanger web"] <= 12
    assert seen["photochanger worker"] <= 8
    assert openai.most_flying <= PERMITS
    check(installation)
    permits_back(installation)
    none_began_late(installation)
    rows_and_files_agree(installation)
    _they_may_return(installation, refused)


def _they_may_return(running: Installation, refused: list[Sent]) -> None:
    """Who obeys ``Retry-After``, one at a time, is let in."""
    began = time.monotonic()
    patience = sorted(float(one.headers["retry-after"]) for one in refused)
    let_in = []
    with ThreadPoolExecutor(20) as threads:
        for wait_s in patience[:: max(1, len(patience) // 20)][:20]:
            threading.Event().wait(max(0.0, began + wait_s - time.monotonic()))
            let_in.append(threads.submit(running.post, photo(1024, 768), slot="slot-002"))
        statuses = [one.result().status_code for one in let_in]
    print("returned:", Counter(statuses))
    assert statuses.count(200) >= 0.9 * len(statuses)


MIXES: dict[str, dict[str, float]] = {
    "dead": {"http_503": 1},
    "hanging": {"hang": 1},
    "slow": {"success": 1},
    "refusing": {"moderation": 1},
    "at random": {"success": 4, "http_503": 1, "hang": 1, "moderation": 1, "no_image": 1, "truncated": 1, "html": 1},
}


#: The one that has something of all the others runs in CI.
ALONE = [pytest.param(mix, marks=() if mix == "at random" else pytest.mark.full) for mix in MIXES]


@pytest.mark.parametrize("mix", ALONE)
def test_whatever_the_main_rung_does_the_guest_gets_a_picture_in_time(
    installation: Installation, openai: OpenAI, mix: str
) -> None:
    configured(installation, 10, openai=(openai, 0.5, {}))
    routed(installation, "slot-002", OPENAI, ORIGINAL)
    known = attempts(installation, "openai") - openai.calls["edit"]
    openai.replay(SEED)
    openai.mix = MIXES[mix]
    openai.latency_s, openai.jitter_s = (12.0, 0.0) if mix == "slow" else (0.1, 0.4)
    sent = asyncio.run(arriving(installation, "slot-002", [photo(320, 240) for _ in range(100)], over_s=4))
    statuses = Counter((one.status, one.headers.get("photochanger-served-by", one.code)) for one in sent)
    print(mix, statuses)
    assert [one.status for one in sent] == [200] * 100, statuses
    assert max(one.seconds for one in sent) <= 11
    check(installation, max_attempts=3)
    none_began_late(installation)
    permits_back(installation)
    assert attempts(installation, "openai") - openai.calls["edit"] == known, "calls counted there are attempts here"


def test_two_workers_never_exceed_a_limit_of_three_through_kills(
    database_url: str, tmp_path: Any, openai: OpenAI
) -> None:
    """Two installations on one database and one media root: two workers, one of them killed again and again."""
    media = {"PHOTOCHANGER_MEDIA_ROOT": str(tmp_path / "a" / "media")}
    key = {"PHOTOCHANGER_MASTER_KEY": "k1:" + "A" * 43 + "="}
    with (
        Installation(tmp_path / "a", database_url=database_url, env={**media, **key}) as one,
        Installation(tmp_path / "b", database_url=database_url, env={**media, **key}) as two,
    ):
        configured(one, 20, openai=(openai, 0.5, {"max_concurrent": 3}))
        routed(one, "slot-002", OPENAI, ORIGINAL)
        openai.latency_s, openai.jitter_s = 0.3, 0.4
        openai.most_flying = 0
        killed = []

        def kill() -> None:
            pid = two.part("worker").children()[0].pid if two.part("worker").children() else None
            if pid:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                until(
                    lambda: (
                        not one.sql(
                            "SELECT 1 FROM limit_use u JOIN dramatiq.worker w ON w.id = u.worker_id WHERE w.pid = %s",
                            pid,
                        )
                    ),
                    within_s=5,
                    what="the killed worker's permits are free",
                )

        with ThreadPoolExecutor(2) as threads:
            first = threads.submit(
                lambda: asyncio.run(arriving(one, "slot-002", [photo(320, 240) for _ in range(60)], over_s=10))
            )
            second = threads.submit(
                lambda: asyncio.run(arriving(two, "slot-002", [photo(320, 240) for _ in range(60)], over_s=10))
            )
            while not (first.done() and second.done()):
                threading.Event().wait(2.0)
                kill()
            sent = [*first.result(), *second.result()]
        print(Counter(one.code for one in sent), "kills:", len(killed), "at once:", openai.most_flying)
        assert len(killed) >= 3
        assert {one.code for one in sent} <= {"picture", "queue_full", "worker_lost"}
        assert Counter(one.code for one in sent)["picture"] >= 100
        assert 1 <= openai.most_flying <= 3
        check(one, max_attempts=4)
        permits_back(one)
        rows_and_files_agree(one)


def test_the_same_photo_sent_five_times_at_once_is_paid_for_once(installation: Installation, openai: OpenAI) -> None:
    configured(installation, 20, openai=(openai, 0.5, {"max_concurrent": PERMITS}))
    routed(installation, "slot-002", OPENAI)
    openai.latency_s = 0.5
    before = openai.calls["edit"]
    photos = [photo(160, 120) for _ in range(200)]
    five = [data for data in photos for _ in range(5)]
    sent = asyncio.run(arriving(installation, "slot-002", five, at_once=40))
    assert Counter(one.status for one in sent) == {200: 1000}
    assert openai.calls["edit"] - before == 200
    bodies = {data: set() for data in photos}  # type: ignore[var-annotated]
    for data, one in zip(five, sent, strict=True):
        bodies[data].add(one.body)
    assert all(len(group) == 1 for group in bodies.values()), "all five have the same picture"
    check(installation)
    rows_and_files_agree(installation)


def test_a_cancelled_call_is_broken_off_at_once(installation: Installation, openai: OpenAI) -> None:
    configured(installation, 30, openai=(openai, 1.0, {"max_concurrent": PERMITS}))
    routed(installation, "slot-002", OPENAI)
    openai.latency_s = 20.0
    took = []
    for number in range(10):
        known = len(openai.hang_ups)
        began = openai.calls["edit"]
        with ThreadPoolExecutor(1) as camera:
            waiting = camera.submit(installation.post, photo(64, 48), slot="slot-002")
            until(lambda began=began: openai.calls["edit"] > began, within_s=10, what="the call")  # type: ignore[misc]
            job_id = str(installation.sql("SELECT id FROM job WHERE NOT is_finalized")[0]["id"])
            if number % 2:
                at = time.monotonic()
                assert installation.cli("cancel", job_id).returncode == 0
                row = installation.sql(
                    "SELECT extract(epoch FROM clock_timestamp() - finalized_at)::float8 AS s FROM job WHERE id = %s",
                    job_id,
                )
                at = time.monotonic() - row[0]["s"]
            else:
                at = time.monotonic()
                cancel(installation, job_id)
            until(lambda known=known: len(openai.hang_ups) > known, within_s=2, what="the call is broken off")  # type: ignore[misc]
            took.append(openai.hang_ups[-1] - at)
            answer = waiting.result(5)
            assert (answer.status_code, answer.json()["code"]) == (409, "cancelled")
    print("broken off after", [round(seconds, 3) for seconds in took])
    assert max(took) <= 0.25
    permits_back(installation)
    causes = installation.sql("SELECT DISTINCT cause FROM attempt WHERE cause IS NOT NULL")
    assert causes == [{"cause": "cancelled"}]


def cancel(running: Installation, job_id: str) -> None:
    """By the job's own link, as its sender has it."""
    from datetime import UTC, datetime, timedelta

    from photochanger.config import Config
    from photochanger.tokens import Links, master_keys

    links = Links(master_keys(Config(home=running.home)), "cancel")
    token = links.token(job_id, datetime.now(UTC) + timedelta(hours=1))
    answer = httpx.post(f"{running.url}/public/jobs/{job_id}/cancel", params={"token": token}, trust_env=False)
    assert answer.status_code == 200, answer.text


@pytest.mark.full
def test_hedging_halves_the_slowest_for_a_few_more_calls(installation: Installation, openai: OpenAI) -> None:
    """A provider whose calls take ten times as long in 5 of 100; measured before, as a running server has it."""
    configured(installation, 20, openai=(openai, 0.3, {"max_concurrent": PERMITS}))
    second = {**OPENAI, "settings": {"prompt": "again"}}
    photos = 300
    slowest = {}
    for hedge in (False, True):
        routed(installation, "slot-002", OPENAI, second, ORIGINAL, hedge=hedge)
        openai.replay(SEED)
        openai.latency_s, openai.jitter_s, openai.tail_share, openai.tail_factor = 0.3, 0.05, 0.05, 10.0
        began = openai.calls["edit"]
        if hedge:
            until(
                lambda: installation.sql("SELECT 1 FROM usual_time WHERE provider = 'openai' AND calls > 100"),
                within_s=20,
                what="calls are measured",
            )
        sent = asyncio.run(arriving(installation, "slot-002", [photo(160, 120) for _ in range(photos)], over_s=20))
        assert [one.status for one in sent] == [200] * photos
        slowest[hedge] = quantiles([one.seconds for one in sent], n=100)[98]
        extra = (openai.calls["edit"] - began) / photos - 1
        print(f"hedge {hedge}: p99 {slowest[hedge]:.2f} s, {extra:.1%} more calls")
        openai.tail_share = 0.0
    assert extra <= 0.08
    assert slowest[True] < slowest[False] / 2
    permits_back(installation)


@pytest.mark.full
def test_an_open_breaker_does_not_slow_the_other_provider(
    installation: Installation, openai: OpenAI, gemini: Gemini
) -> None:
    configured(
        installation,
        20,
        openai=(openai, 0.3, {"max_concurrent": PERMITS}),
        gemini=(gemini, 0.3, {"max_concurrent": 16}),
    )
    routed(installation, "slot-002", OPENAI)
    routed(installation, "slot-003", GEMINI)
    gemini.latency_s = 0.4
    p95: dict[str, list[float]] = {"alone": [], "beside": []}
    chance = random.Random(SEED)
    for _ in range(4):
        for how in chance.sample(["alone", "beside"], 2):
            openai.mode = "http_503"
            with ThreadPoolExecutor(1) as other:
                flood = None
                if how == "beside":
                    until(lambda: _open(installation), within_s=15, what="the breaker is open")
                    flood = other.submit(
                        lambda: asyncio.run(
                            arriving(installation, "slot-002", [photo(64, 48) for _ in range(40)], over_s=4)
                        )
                    )
                sent = asyncio.run(arriving(installation, "slot-003", [photo(160, 120) for _ in range(40)], over_s=4))
                if flood is not None:
                    assert {one.code for one in flood.result()} == {"provider_error"}
            assert [one.status for one in sent] == [200] * 40
            p95[how].append(quantiles([one.seconds for one in sent], n=20)[18])
    alone, beside = (sorted(p95[how])[1] for how in ("alone", "beside"))
    print(f"p95 alone {alone:.3f} s, beside an open breaker {beside:.3f} s")
    assert beside <= 1.1 * alone


def _open(running: Installation) -> bool:
    if running.sql("SELECT 1 FROM breaker WHERE provider = 'openai' AND open_until > clock_timestamp()"):
        return True
    running.post(photo(64, 48), slot="slot-002")
    return False
