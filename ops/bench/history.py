"""A year's history: a million finished jobs, what an administrator reads of them, and whether photos notice.

``python -m ops.bench.history --jobs N`` is the figure alone, with as many jobs.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any, Literal
from uuid import uuid4

import falcon.testing
import psycopg

from ops.bench import report
from ops.bench.arena import Arena
from ops.bench.contenders import BUILD, OURS
from ops.bench.report import Row, percentile
from photochanger import accounts, job_list, jobs, rollups, schema, sessions, slots, stats
from photochanger.config import Config
from photochanger.db import Database
from photochanger.job_search import Place
from photochanger.jobs import Submission
from photochanger.providers import Picture
from photochanger.states import JobStatus
from photochanger.tokens import master_keys
from web.api.authority import SESSION_COOKIE
from web.app import falcon_app

JOBS = 1_000_000
QUICK_JOBS = 20_000
CHUNK = 50_000
DAYS = 365
#: Milliseconds within which nineteen of twenty readings must be done.
MOST_MS = 300
LOOKS = 40
#: Pages that show much, and the milliseconds within which they are made.
PAGES = ("/", "/jobs", "/jobs?status=failed", "/slots/slot-001", "/gallery", "/statistics")
MOST_PAGE_MS = 500
PHOTOS = 400

#: One in 25 fails, one in 50 times out; two codes are a year old or nearly (of the oldest thousandth), so that a
#: filter by them must reach back all the way. Each camera sends the four fields of a booth.
_SEED = """
WITH jobs AS MATERIALIZED (
    SELECT gen_random_uuid() AS id, n, 'slot-' || to_char(1 + n %% 15, 'FM000') AS slot_id,
           clock_timestamp() - interval '1 hour' - (n::float8 / %(jobs)s) * %(days)s * interval '1 day' AS created_at,
           (ARRAY['local', 'gemini', 'gemini', 'turbotext', 'openai'])[1 + (n / 15) %% 5] AS provider,
           0.05 + 40 * (n %% 97 / 97.0) ^ 3 AS provider_s, 0.002 + 3 * (n %% 89 / 89.0) ^ 4 AS queue_s,
           CASE WHEN n > 0.9995 * %(jobs)s THEN 'provider_auth' WHEN n %% 50 = 0 THEN 'sync_timeout'
                WHEN n %% 100 = 7 THEN 'cancelled' WHEN n %% 25 = 3 THEN
                (ARRAY['provider_error', 'provider_refused', 'provider_quota', 'worker_lost'])[1 + n / 25 %% 4]
           END AS reason
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
), made AS (
    INSERT INTO job (id, slot_id, status, is_finalized, failure_reason, failure_detail, created_at, expires_at,
        claimed_at, finalized_at, claim_no, cost, snapshot, fields, payload_mime, payload_bytes, payload_sha256,
        result_file_path, result_mime, result_bytes, result_sha256, result_width, result_height, result_expires_at,
        served_by)
    SELECT id, slot_id, (CASE reason WHEN 'sync_timeout' THEN 'timed_out' WHEN 'cancelled' THEN 'cancelled'
            ELSE CASE WHEN reason IS NULL THEN 'succeeded' ELSE 'failed' END END)::job_status, true, reason,
        CASE WHEN reason IS NOT NULL THEN 'The provider said ' || n %% 1000 END, created_at,
        created_at + interval '48 s', created_at + queue_s * interval '1 s',
        created_at + (queue_s + provider_s + 0.01) * interval '1 s', 1, CASE provider WHEN 'local' THEN 0 ELSE 0.04 END,
        jsonb_build_object('slot_name', slot_id, 'slot_version', 1, 'options', '{}'::jsonb, 'max_pixels', 110000000,
            'route', jsonb_build_object('hedge', false, 'rungs', jsonb_build_array(jsonb_build_object('provider',
                provider, 'operation', 'image_edit', 'settings', jsonb_build_object('prompt', repeat('A watercolour ', 8)))))),
        jsonb_build_object('profile', 'C:\\DSLR\\Profiles\\booth.xml', 'name', 'IMG_' || n || '.JPG', 'model', 'Canon EOS R5',
            'hash', md5(n::text)),
        'image/jpeg', 4000000, md5(n::text) || md5(id::text),
        CASE WHEN reason IS NULL AND created_at > clock_timestamp() - interval '72 hours' THEN 'results/' || id || '.jpg' END,
        CASE WHEN reason IS NULL THEN 'image/jpeg' END, CASE WHEN reason IS NULL THEN 900000 END,
        CASE WHEN reason IS NULL THEN md5(id::text) || md5(n::text) END, CASE WHEN reason IS NULL THEN 1500 END,
        CASE WHEN reason IS NULL THEN 1000 END, CASE WHEN reason IS NULL THEN created_at + interval '72 hours' END,
        CASE WHEN reason IS NULL THEN provider || '/image_edit' END
    FROM jobs
), called AS (
    INSERT INTO attempt (job_id, claim_no, rung, provider, operation, dispatched_at, responded_at, cause, request_id, cost)
    SELECT id, 1, 0, provider, 'image_edit', created_at + queue_s * interval '1 s',
        created_at + (queue_s + provider_s) * interval '1 s', reason, CASE provider WHEN 'local' THEN NULL
            ELSE 'req-' || md5(n::text) END, CASE provider WHEN 'local' THEN 0 ELSE 0.04 END FROM jobs
    UNION ALL
    SELECT id, 1, 1, 'local', 'original', created_at + (queue_s + provider_s) * interval '1 s',
        created_at + (queue_s + provider_s + 0.01) * interval '1 s', NULL, NULL, 0 FROM jobs
    WHERE n %% 10 = 1 AND provider <> 'local'
), ended AS (INSERT INTO job_ended SELECT id FROM jobs)
INSERT INTO processing_log (job_id, at, event, detail)
SELECT id, created_at + log.after_s * interval '1 s', log.event, log.detail FROM jobs CROSS JOIN LATERAL (VALUES
    ('received', 0, NULL::jsonb), ('claimed', queue_s, '{"claim_no": 1}'),
    ('dispatched', queue_s, jsonb_build_object('provider', provider, 'rung', 0)),
    ('provider_responded', queue_s + provider_s, '{"cause": null}'),
    (CASE reason WHEN 'sync_timeout' THEN 'timed_out' WHEN 'cancelled' THEN 'cancelled'
        ELSE CASE WHEN reason IS NULL THEN 'succeeded' ELSE 'failed' END END, queue_s + provider_s + 0.01, NULL)
) AS log (event, after_s, detail)
"""  # noqa: E501 - columns and values side by side

Reading = Callable[[Database], Awaitable[Any]]


def history(arena: Arena) -> list[Row]:
    """The whole figure with a million jobs, or with few when it is quick."""
    return measure(arena, QUICK_JOBS if arena.quick else JOBS)


def measure(arena: Arena, count: int) -> list[Row]:
    """Two databases side by side, one of them with ``count`` finished jobs."""
    new, old = (_installed(arena.database(f"bench_history_{name}")) for name in ("new", "old"))
    seconds = Row(f"history: seconds to seed {count} jobs, and to roll them up", "s", digits=0)
    seconds.add(OURS, _seed(old, count))
    rolled = Row("history: jobs rolled up", "/s")
    rolled.add(OURS, count / asyncio.run(_roll(old, count)))
    _vacuum(old)
    _sizes(old)
    read = [*asyncio.run(_readings(old)), *asyncio.run(_pages(old))]
    return [seconds, rolled, *read, *asyncio.run(_beside(new, old, arena.rounds))]


def _installed(url: str) -> str:
    schema.migrate(url)

    async def create() -> None:
        db = Database(url, connections=1, application_name="bench")
        await slots.create_first(db)
        await db.fetch("UPDATE slot SET is_active = true")
        await db.close()

    asyncio.run(create())
    return url


def _seed(url: str, count: int) -> float:
    """Seconds it took; the oldest are written first, as time would have it."""
    began = time.monotonic()
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        connection.execute(b"SET synchronous_commit = off")
        for last in range(count, 0, -CHUNK):
            params = {"first": max(1, last - CHUNK + 1), "last": last, "jobs": count, "days": DAYS}
            connection.execute(_SEED.encode(), params)
            _say(f"seeded {count - params['first'] + 1} of {count}", began)
    return time.monotonic() - began


def _say(words: str, began: float) -> None:
    print(f"history: {words}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


async def _roll(url: str, count: int) -> float:
    began, done, said = time.monotonic(), 0, 0
    db = Database(url, connections=1, application_name="bench")
    while rolled := await rollups.roll(db):
        done += rolled
        if done - said >= CHUNK:
            said = done
            _say(f"rolled up {done} of {count}", began)
    await db.close()
    return time.monotonic() - began


def _vacuum(url: str) -> None:
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        connection.execute(b"VACUUM ANALYZE")
        connection.execute(b"CHECKPOINT")


def _sizes(url: str) -> None:
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        for name, size in connection.execute(
            b"SELECT relname, pg_size_pretty(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r' "
            b"AND relnamespace = 'public'::regnamespace ORDER BY pg_total_relation_size(oid) DESC LIMIT 7"
        ):
            print(f"history: {name} takes {size}", file=sys.stderr)


# -- what an administrator reads -------------------------------------------------------------------------------------


async def _readings(url: str) -> list[Row]:
    db = Database(url, connections=2, application_name="bench")
    rows = []
    for name, reading in (await _asked(db)).items():
        p50, p95 = await _look(db, reading)
        row = Row(f"history, {name}: p95", "ms", digits=1)
        row.add(OURS, p95)
        row.goal(f"≤{MOST_MS} ms (p50 {p50:.1f})", p95 <= MOST_MS)
        rows.append(row)
    await db.close()
    return rows


async def _pages(url: str) -> list[Row]:
    """What an administrator's browser waits for: the whole answer, made within this process, with its links signed."""
    with tempfile.TemporaryDirectory() as home:
        config = Config(home=Path(home), database_url=url)
        cookie = await _signed_in(url, config)
        rows = []
        async with falcon.testing.ASGIConductor(falcon_app(config)) as client:
            for path in PAGES:
                took = []
                for _ in range(LOOKS):
                    began = time.perf_counter()
                    answer = await client.simulate_get(path, headers={"Cookie": f"{SESSION_COOKIE}={cookie}"})
                    took.append((time.perf_counter() - began) * 1000)
                    assert answer.status_code == 200, f"{path}: {answer.status_code}"
                row = Row(f"history, page {path}: p95", "ms", digits=1)
                row.add(OURS, percentile(took, 0.95))
                row.goal(
                    f"≤{MOST_PAGE_MS} ms (p50 {percentile(took, 0.5):.1f})", percentile(took, 0.95) <= MOST_PAGE_MS
                )
                rows.append(row)
    return rows


async def _signed_in(url: str, config: Config) -> str:
    """The cookie of somebody who may see everything."""
    db = Database(url, connections=1, application_name="bench")
    password = await accounts.create_first_admin(db, accounts.generate_password())
    await db.fetch("UPDATE account SET must_change = false")
    assert password is not None
    keys = master_keys(config)
    signed_in = await sessions.sign_in(
        db, keys, name=accounts.FIRST_ADMIN, password=password, address="127.0.0.1", kind="browser"
    )
    await db.close()
    return signed_in.token


async def _look(db: Database, reading: Reading) -> tuple[float, float]:
    """p50 and p95 in milliseconds, the first look included."""
    took = []
    for _ in range(LOOKS):
        began = time.perf_counter()
        await reading(db)
        took.append((time.perf_counter() - began) * 1000)
    return percentile(took, 0.5), percentile(took, 0.95)


async def _asked(db: Database) -> dict[str, Reading]:
    rows = await db.fetch("SELECT id, created_at, clock_timestamp() AS now FROM job ORDER BY created_at LIMIT 1")
    oldest, now = rows[0], rows[0]["now"]
    some = (await db.fetch("SELECT id, fields->>'name' AS name FROM job ORDER BY id LIMIT 1"))[0]
    request = (await db.fetch("SELECT request_id FROM attempt WHERE request_id IS NOT NULL LIMIT 1"))[0]["request_id"]
    deep = Place(now - timedelta(days=300), uuid4())
    auth, good, failed = ["provider_auth"], [JobStatus.SUCCEEDED], [JobStatus.FAILED]
    month = {"since": now - timedelta(days=200), "until": now - timedelta(days=170)}
    filters: dict[str, dict[str, Any]] = {
        "no filter": {},
        "no filter, 300 days deep": {"after": deep},
        "status succeeded": {"statuses": good},
        "status failed": {"statuses": failed},
        "status timed_out or cancelled": {"statuses": [JobStatus.TIMED_OUT, JobStatus.CANCELLED]},
        "status processing (none)": {"statuses": [JobStatus.PROCESSING]},
        "reason of many": {"failure_reasons": ["provider_error"]},
        "reason of the oldest only": {"failure_reasons": auth},
        "reason of none": {"failure_reasons": ["internal_error"]},
        "slot": {"slot_id": "slot-007"},
        "slot of none": {"slot_id": "slot-none"},
        "slot, 300 days deep": {"slot_id": "slot-007", "after": deep},
        "provider": {"provider": "turbotext"},
        "provider of none": {"provider": "nobody"},
        "a month, half a year ago": month,
        "text: a file's name": {"text": some["name"]},
        "text: a request id": {"text": request},
        "text: a job's id": {"text": str(some["id"])},
        "text: the begin of an id": {"text": some["id"].hex[:8]},
        "text: words of every job": {"text": "Canon EOS"},
        "text: words of every job, 300 days deep": {"text": "Canon EOS", "after": deep},
        "text: a word of 1 in 10000": {"text": "said 77"},
        "text: of none": {"text": "unheard-of"},
        "slot, reason, provider": {"slot_id": "slot-004", "failure_reasons": ["provider_quota"], "provider": "openai"},
        "status, provider, a month": {"statuses": good, "provider": "gemini", **month},
        "slot, text of every job, reason of the oldest": {
            "slot_id": "slot-004", "text": "Canon", "failure_reasons": auth},
        "text of every job, status failed, provider": {"text": "booth", "statuses": failed, "provider": "gemini"},
        "text of one, all else": {"text": some["name"], "statuses": good, "provider": "openai", **month},
        "status failed, provider, 300 days deep": {"statuses": failed, "provider": "local", "after": deep},
    }  # fmt: skip
    readings: dict[str, Reading] = {f"list by {name}": _listing(asked) for name, asked in filters.items()}
    readings["detail of the oldest job"] = lambda db: job_list.detail(db, oldest["id"])
    readings["suggestions"] = job_list.suggestions
    readings["latest results"] = job_list.latest_results
    readings["latest results of a slot"] = lambda db: job_list.latest_results(db, "slot-007")
    readings["today's tiles"] = lambda db: stats.today(db, "UTC")
    spans: tuple[tuple[stats.By, int], ...] = (("hour", 1), ("day", 31), ("week", 365), ("month", 365), ("day", 365))
    for by, days in spans:
        for slot_id in (None, "slot-007"):
            whose = "all slots" if slot_id is None else "a slot"
            readings[f"statistics of {whose}, {days} days by {by}"] = _stats(slot_id, by, now, days)
    readings["statistics of all slots, 31 days by day of another zone"] = _stats(None, "day", now, 31, "Europe/Moscow")
    return readings


def _listing(asked: dict[str, Any]) -> Reading:
    return lambda db: job_list.listing(db, **asked)


def _stats(slot_id: str | None, by: stats.By, now: Any, days: int, zone: str = "UTC") -> Reading:
    since = now - timedelta(days=days)
    return lambda db: stats.read(db, slot_id=slot_id, since=since, until=now, by=by, time_zone=zone)


# -- what photos notice ---------------------------------------------------------------------------------------------

Step = Literal["submit", "claim", "succeed"]


async def _beside(new: str, old: str, rounds: int) -> list[Row]:
    """The statements on a photo's way, in turn on both databases."""
    databases = [Database(url, connections=1, application_name="bench") for url in (new, old)]
    steps: tuple[Step, ...] = ("submit", "claim", "succeed")
    rows = {step: [Row(f"history, jobs.{step}: p50 {words}", "ms", digits=2) for words in
                   ("with no jobs beside", "with them beside")] for step in steps}  # fmt: skip
    for number in range(rounds + 1):
        took: list[dict[Step, list[float]]] = [{step: [] for step in steps} for _ in databases]
        for _ in range(PHOTOS):
            for db, seconds in zip(databases, took, strict=True):
                await _photo(db, seconds)
        for step in steps if number else ():  # the first round warms up
            for row, seconds in zip(rows[step], took, strict=True):
                row.add(OURS, percentile(seconds[step], 0.5) * 1000)
    for db in databases:
        await db.close()
    for without, beside in rows.values():
        ratio = median(a / b for a, b in zip(beside.values[OURS.name], without.values[OURS.name], strict=True))
        beside.goal(f"≤1.1× that with none ({ratio:.2f})", ratio <= 1.1)
    return [row for pair in rows.values() for row in pair]


async def _photo(db: Database, took: dict[Step, list[float]]) -> None:
    began = time.perf_counter()
    job_id = (await jobs.submit(db, _submission())).job_id
    submitted = time.perf_counter()
    claim = await jobs.claim(db, job_id, usual_s={})
    claimed = time.perf_counter()
    assert claim is not None
    attempt = await jobs.dispatch(db, claim, rung=0, provider="local", operation="filter")
    assert attempt is not None
    dispatched = time.perf_counter()
    await jobs.succeed(db, claim, _PICTURE, key=f"results/{job_id}.jpg", served_by="local/filter", attempt=attempt,
                       since_response_s=0.001)  # fmt: skip
    took["succeed"].append(time.perf_counter() - dispatched)
    took["submit"].append(submitted - began)
    took["claim"].append(claimed - submitted)
    await db.fetch("DELETE FROM dramatiq.queue WHERE message_id = %(id)s", {"id": job_id})


_PICTURE = Picture(path=BUILD, mime="image/jpeg", width=64, height=48, bytes=7, sha256="0" * 64)


def _submission() -> Submission:
    job_id = uuid4()
    return Submission(
        job_id=job_id,
        slot_id="slot-001",
        payload_path=f"payloads/{job_id}.jpg",
        payload_mime="image/jpeg",
        payload_bytes=4_000_000,
        payload_sha256=f"{job_id.hex}{job_id.hex}",
        elapsed_s=0.1,
        t_sync_response_s=48,
        t_result_retention_s=72 * 3600,
        t_original_retention_s=0,
        max_pixels=110_000_000,
        fields={"profile": "C:\\DSLR\\Profiles\\booth.xml", "name": f"{job_id}.JPG", "model": "Canon EOS R5"},
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ops.bench.history", description=__doc__)
    parser.add_argument("--jobs", type=int, default=JOBS, help=f"finished jobs (default {JOBS})")
    arena = Arena(quick=False, full=False, rounds=3)
    BUILD.mkdir(parents=True, exist_ok=True)
    options = parser.parse_args()
    try:
        arena.open()
        print(f"\n{report.text(measure(arena, options.jobs))}\n")
    finally:
        arena.close()


if __name__ == "__main__":
    main()
