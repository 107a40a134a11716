"""What an administrator is told about many jobs: how they ended, how long they took, what they cost.

Read from the rollups and from the few jobs that are in none yet, in one snapshot. Percentiles come from histograms and
are wrong by 5 % at most (``rollups.middle_s``).
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

from psycopg import AsyncConnection
from pydantic import BaseModel, Field

from photochanger import failures, rollups, zones
from photochanger.db import Database, Params, Row, fetch
from photochanger.failures import InvalidRequest
from photochanger.rollups import BILLED, IN_BUCKETS, MEASURED, MOST_NEW, middle_s

By = Literal["hour", "day", "week", "month"]

MOST_POINTS = 1000
#: The least seconds of each, for the bound only.
_LEAST_S = {"hour": 3600, "day": 23 * 3600, "week": (7 * 24 - 1) * 3600, "month": (28 * 24 - 1) * 3600}
#: Outcomes that are no failure code.
_NO_CODE = ("succeeded", "timed_out", "cancelled")


class Percentiles(BaseModel):
    """Seconds that half, and nineteen of twenty, stay under; null where nothing was measured."""

    p50_s: Annotated[float | None, Field(ge=0, examples=[12.4])] = None
    p95_s: Annotated[float | None, Field(ge=0, examples=[31.8])] = None


class Summary(BaseModel):
    """What became of a number of jobs."""

    jobs: Annotated[int, Field(ge=0, description="Jobs that ended then.")] = 0
    outcomes: Annotated[
        dict[str, int],
        Field(
            description="How many ended how: succeeded, timed_out, cancelled or a failure code.",
            examples=[{"succeeded": 120, "timed_out": 2, "provider_refused": 1}],
        ),
    ] = {}
    sync_timeout_share: Annotated[
        float | None, Field(ge=0, le=1, description="Part of the jobs that ended in a 504; null without jobs.")
    ] = None
    cost: Annotated[float, Field(ge=0, description="In the `currency` of the settings.")] = 0.0
    total: Annotated[Percentiles, Field(description="From the request's begin to the job's end.")] = Percentiles()
    queue_wait: Annotated[Percentiles, Field(description="From the request's begin until a worker took it.")] = (
        Percentiles()
    )
    provider: Annotated[Percentiles, Field(description="At providers, all calls of a job together.")] = Percentiles()


class Point(Summary):
    """One hour, day, week or month, in the time zone that was asked for."""

    began_at: Annotated[datetime, Field(description="When it began.")]


class OfProvider(BaseModel):
    """The jobs that a provider has served, or was to serve first."""

    provider: Annotated[str, Field(description="Empty where the route named none.", examples=["gemini"])]
    jobs: Annotated[int, Field(ge=0)]
    succeeded: Annotated[int, Field(ge=0)]
    cost: Annotated[float, Field(ge=0, description="Of its own calls, whoever served the job in the end.")]


class OfFailure(BaseModel):
    """The jobs that ended with a failure code."""

    code: Annotated[str, Field(examples=["provider_refused"])]
    title: Annotated[str, Field(description="The code in words.")]
    jobs: Annotated[int, Field(ge=1)]


class Stats(BaseModel):
    """Statistics of one slot or of all, over whole hours, days, weeks or months."""

    slot_id: Annotated[str | None, Field(description="Null: all slots together.")]
    by: By
    time_zone: Annotated[str, Field(examples=["Europe/Moscow"])]
    since: Annotated[datetime, Field(description="When the first point began.")]
    until: Annotated[datetime, Field(description="When the last point ends.")]
    points: Annotated[list[Point], Field(max_length=MOST_POINTS, description="Oldest first, none left out.")]
    whole: Annotated[Summary, Field(description="All points together.")]
    providers: Annotated[list[OfProvider], Field(description="Most jobs first.")]
    failures: Annotated[list[OfFailure], Field(description="Most jobs first.")]


class Today(BaseModel):
    """A slot's day so far, from midnight in the administrator's time zone or since its statistics were begun anew."""

    slot_id: str
    succeeded: Annotated[int, Field(ge=0)]
    failed: Annotated[int, Field(ge=0, description="Failed and timed out.")]
    cancelled: Annotated[int, Field(ge=0)]
    last_error_code: Annotated[str | None, Field(description="Of today's newest job that failed or timed out.")]
    last_error: Annotated[str | None, Field(description="Its words.")]
    last_error_at: datetime | None
    last_job_id: Annotated[UUID | None, Field(description="The newest job that has ended, of any day.")]
    last_job_status: str | None
    last_job_at: Annotated[datetime | None, Field(description="When that one ended.")]


_STARTS = {
    "hour": """
SELECT at AS began_at, at + interval '1 hour' AS ended_at
FROM generate_series(date_trunc('hour', %(since)s::timestamptz, %(zone)s), %(until)s::timestamptz, '1 hour') AS at
WHERE at < %(until)s
""",
    "days": """
SELECT at AT TIME ZONE %(zone)s AS began_at, (at + step) AT TIME ZONE %(zone)s AS ended_at
FROM (SELECT ('1 ' || %(by)s)::interval AS step) AS one, generate_series(
    date_trunc(%(by)s, %(since)s::timestamptz AT TIME ZONE %(zone)s), %(until)s::timestamptz AT TIME ZONE %(zone)s, step
) AS at
WHERE at AT TIME ZONE %(zone)s < %(until)s
""",
}
_NEW = f"""
WITH chosen AS MATERIALIZED (SELECT job_id FROM job_ended LIMIT {MOST_NEW}), {MEASURED}
, new AS (
    SELECT * FROM measured
    WHERE (%(slot_id)s = '' OR (slot_id = %(slot_id)s AND is_slots)) AND NOT is_test
      AND finalized_at >= %(first)s AND finalized_at < %(end)s
)
"""  # noqa: S608 - our own constants
_ROLLED = "zone = %(grain)s AND slot_id = %(slot_id)s AND began_at >= %(first)s AND began_at < %(end)s"
_COUNTS = f"""
{_NEW}
SELECT date_trunc(%(by)s, at, %(zone)s) AS began_at, provider, outcome,
       sum(jobs)::int8 AS jobs, sum(cost)::float8 AS cost
FROM (
    SELECT began_at AS at, provider, outcome, jobs, cost FROM job_rollup WHERE {_ROLLED}
    UNION ALL SELECT finalized_at, billed.provider, outcome, billed.jobs, billed.cost FROM new {BILLED}
) AS counted
GROUP BY 1, 2, 3
"""  # noqa: S608 - our own constants
_TIMES = f"""
{_NEW}
SELECT began_at, array_agg(bucket) AS bucket, array_agg(total) AS total, array_agg(queue_wait) AS queue_wait,
       array_agg(provider) AS provider
FROM (
    SELECT date_trunc(%(by)s, at, %(zone)s) AS began_at, bucket,
           sum(total)::int8 AS total, sum(queue_wait)::int8 AS queue_wait, sum(provider)::int8 AS provider
    FROM (
        SELECT began_at AS at, bucket, total, queue_wait, provider FROM time_rollup WHERE {_ROLLED}
        UNION ALL SELECT finalized_at, times.* FROM new {IN_BUCKETS} WHERE bucket IS NOT NULL
    ) AS counted
    GROUP BY 1, 2
) AS summed
GROUP BY 1
"""  # noqa: S608 - our own constants


async def read(db: Database, *, slot_id: str | None, since: datetime, until: datetime, by: By, time_zone: str) -> Stats:
    """Statistics of a slot, or of all, from the hour, day, week or month that ``since`` lies in to the one that ends
    at ``until`` or after it. A week begins on Monday.

    Raises:
        InvalidRequest: the range is empty or holds more than ``MOST_POINTS``, an instant has no offset, or the time
            zone is none.
    """
    check(since, until, by, time_zone)
    params: dict[str, Any] = {"by": by, "zone": time_zone, "slot_id": slot_id or "", "since": since, "until": until}
    async with db.transaction() as connection:
        await connection.execute(b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        starts = await fetch(connection, _STARTS["hour" if by == "hour" else "days"], params)
        days = by != "hour" and await rollups.has_days(connection, time_zone)
        params |= {"first": starts[0]["began_at"], "end": starts[-1]["ended_at"], "grain": time_zone if days else ""}
        counts, times = await _rows(connection, params)
    return Stats(
        slot_id=slot_id,
        by=by,
        time_zone=time_zone,
        since=params["first"].astimezone(ZoneInfo(time_zone)),
        until=params["end"].astimezone(ZoneInfo(time_zone)),
        points=_points([row["began_at"] for row in starts], counts, times, ZoneInfo(time_zone)),
        whole=Summary(**_summary(counts, times)),
        providers=_of_providers(counts),
        failures=_of_failures(counts),
    )


async def _rows(connection: AsyncConnection[Any], params: Params) -> tuple[list[Row], list[Row]]:
    return await fetch(connection, _COUNTS, params), await fetch(connection, _TIMES, params)


def check(since: datetime, until: datetime, by: By, time_zone: str) -> None:
    """Whether statistics can be read over this range.

    Raises:
        InvalidRequest: they cannot; the words say what to ask for instead.
    """
    if time_zone not in zones.names():
        raise InvalidRequest(f"{time_zone!r} is not a time zone; write one like Europe/Moscow")
    if by not in _LEAST_S:
        raise InvalidRequest(f"{by!r} is no step of time; choose one of: {', '.join(_LEAST_S)}")
    if since.tzinfo is None or until.tzinfo is None:
        raise InvalidRequest("Instants need an offset, as in 2026-11-25T00:00:00+03:00")
    if until <= since:
        raise InvalidRequest("until must come after since")
    if (until - since).total_seconds() / _LEAST_S[by] > MOST_POINTS - 2:
        raise InvalidRequest(
            f"These are more than {MOST_POINTS} points by {by}; ask for a shorter time, or for days, weeks or months"
        )


def _points(starts: Sequence[datetime], counts: list[Row], times: list[Row], zone: ZoneInfo) -> list[Point]:
    counts_at, times_at = _by_start(counts), _by_start(times)
    return [
        Point(began_at=at.astimezone(zone), **_summary(counts_at.get(at, []), times_at.get(at, []))) for at in starts
    ]


def _by_start(rows: Iterable[Row]) -> dict[datetime, list[Row]]:
    found: dict[datetime, list[Row]] = {}
    for row in rows:
        found.setdefault(row["began_at"], []).append(row)
    return found


def _summary(counts: Sequence[Row], times: Sequence[Row]) -> dict[str, Any]:
    outcomes: Counter[str] = Counter()
    for row in counts:
        outcomes[row["outcome"]] += row["jobs"]
    jobs = outcomes.total()
    return {
        "jobs": jobs,
        "outcomes": dict(outcomes.most_common()),
        "sync_timeout_share": outcomes["timed_out"] / jobs if jobs else None,
        "cost": round(sum(row["cost"] for row in counts), 6),
        **{measure: _percentiles(times, measure) for measure in ("total", "queue_wait", "provider")},
    }


def _percentiles(times: Sequence[Row], measure: str) -> Percentiles:
    histogram: Counter[int] = Counter()
    for row in times:
        for number, jobs in zip(row["bucket"], row[measure], strict=True):
            if jobs:
                histogram[number] += jobs
    return Percentiles(p50_s=percentile(histogram, 0.5), p95_s=percentile(histogram, 0.95))


def percentile(histogram: Counter[int], share: float) -> float | None:
    """Seconds that ``share`` of the durations in ``histogram`` (number by bucket) do not exceed.

    >>> percentile(Counter({rollups.bucket(2.0): 95, rollups.bucket(30.0): 5}), 0.95)
    1.953
    """
    rank = math.ceil(share * histogram.total())
    seen = 0
    for number in sorted(histogram):
        seen += histogram[number]
        if seen >= rank:
            return float(f"{middle_s(number):.4g}")
    return None


def _of_providers(counts: Iterable[Row]) -> list[OfProvider]:
    found: dict[str, OfProvider] = {}
    for row in counts:
        one = found.setdefault(row["provider"], OfProvider(provider=row["provider"], jobs=0, succeeded=0, cost=0))
        one.jobs += row["jobs"]
        one.succeeded += row["jobs"] if row["outcome"] == "succeeded" else 0
        one.cost = round(one.cost + row["cost"], 6)
    return sorted(found.values(), key=lambda one: (-one.jobs, one.provider))


def _of_failures(counts: Iterable[Row]) -> list[OfFailure]:
    found: Counter[str] = Counter()
    for row in counts:
        if row["outcome"] not in ("succeeded", "cancelled"):
            found["sync_timeout" if row["outcome"] == "timed_out" else row["outcome"]] += row["jobs"]
    return [OfFailure(code=code, title=title_of(code), jobs=jobs) for code, jobs in found.most_common()]


def title_of(code: str) -> str:
    """A failure code in words.

    >>> title_of("provider_refused")
    'The model refused this picture or prompt'
    """
    return type(failures.from_code(code)).title()


_LATELY = """
SELECT slot_id, count(*)::int AS jobs, count(*) FILTER (WHERE failure_reason IS NOT NULL)::int AS failed,
       count(*) FILTER (WHERE fell_back IS NOT NULL)::int AS fell_back,
       mode() WITHIN GROUP (ORDER BY coalesce(failure_reason, fell_back)) AS cause
FROM unnest(%(slots)s::text[]) AS asked (id) CROSS JOIN LATERAL (
    SELECT slot_id, failure_reason, CASE WHEN status = 'succeeded' THEN (
        SELECT cause FROM attempt WHERE job_id = job.id AND rung = 0 AND cause NOT IN ('cancelled', 'sync_timeout')
          AND served_by <> concat_ws('/', snapshot #>> '{route,rungs,0,provider}',
                                     snapshot #>> '{route,rungs,0,operation}')
        ORDER BY id DESC LIMIT 1) END AS fell_back
    FROM job
    WHERE slot_id = asked.id AND created_at > clock_timestamp() - %(since_s)s * interval '1 second'
      AND is_finalized AND NOT is_test AND status <> 'cancelled'
    ORDER BY created_at DESC LIMIT %(most)s
) AS lately GROUP BY slot_id
"""


async def lately(db: Database, slot_ids: Sequence[str], *, since_s: float, most: int) -> list[Row]:
    """How the last photos of each slot ended, at most ``most`` of the last ``since_s`` seconds: how many there were
    (``jobs``), how many of them ``failed``, how many another step of the route made because the first could not
    (``fell_back``), and the failure code of most of those (``cause``)."""
    return await db.fetch(_LATELY, {"slots": list(slot_ids), "since_s": since_s, "most": most})


_CSV = ("began_at", "slot", "jobs", "succeeded", "timed_out", "cancelled", "failed", "sync_timeout_share", "cost",
        "total_p50_s", "total_p95_s", "queue_wait_p50_s", "queue_wait_p95_s", "provider_p50_s",
        "provider_p95_s")  # fmt: skip


def as_csv(stats: Stats) -> str:
    """The points as RFC 4180 text, one row each, with a head; no cell is a formula to a spreadsheet."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(_CSV)
    writer.writerows([_cell(value) for value in _csv_row(stats.slot_id or "", point)] for point in stats.points)
    return out.getvalue()


def _csv_row(slot_id: str, point: Point) -> list[object]:
    known = [point.outcomes.get(outcome, 0) for outcome in _NO_CODE]
    times = [value for one in (point.total, point.queue_wait, point.provider) for value in (one.p50_s, one.p95_s)]
    share = None if point.sync_timeout_share is None else round(point.sync_timeout_share, 6)
    failed = point.jobs - sum(known)
    return [point.began_at.isoformat(), slot_id, point.jobs, *known, failed, share, point.cost, *times]


def _cell(value: object) -> str:
    """
    >>> _cell("=1+1"), _cell(None), _cell(0.5)
    ("'=1+1", '', '0.5')
    """
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


_TODAY = f"""
WITH began AS MATERIALIZED (SELECT date_trunc('day', clock_timestamp(), %(zone)s) AS midnight)
, chosen AS MATERIALIZED (SELECT job_id FROM job_ended LIMIT {MOST_NEW}), {MEASURED}
, counted AS (
    SELECT slot_id, coalesce(sum(jobs) FILTER (WHERE outcome = 'succeeded'), 0)::int8 AS succeeded,
           coalesce(sum(jobs) FILTER (WHERE outcome = 'cancelled'), 0)::int8 AS cancelled, sum(jobs)::int8 AS jobs
    FROM (
        SELECT r.slot_id, r.outcome, r.jobs FROM began, slot CROSS JOIN LATERAL (
            SELECT slot_id, outcome, jobs FROM job_rollup
            WHERE zone = '' AND job_rollup.slot_id = slot.id AND began_at >= midnight) AS r
        UNION ALL SELECT slot_id, outcome, 1 FROM began, measured
            WHERE is_slots AND NOT is_test AND finalized_at >= midnight
    ) AS each GROUP BY slot_id
)
SELECT slot.id AS slot_id, coalesce(succeeded, 0) AS succeeded,
       coalesce(jobs - succeeded - cancelled, 0) AS failed, coalesce(cancelled, 0) AS cancelled,
       bad.failure_reason AS last_error_code, bad.failure_detail AS last_error, bad.finalized_at AS last_error_at,
       last.id AS last_job_id, last.status AS last_job_status, last.finalized_at AS last_job_at
FROM began CROSS JOIN slot LEFT JOIN counted ON counted.slot_id = slot.id
LEFT JOIN stats_reset ON stats_reset.slot_id = slot.id
LEFT JOIN LATERAL (
    SELECT failure_reason, failure_detail, finalized_at FROM job
    WHERE slot_id = slot.id AND failure_reason IS NOT NULL AND failure_reason <> 'cancelled' AND NOT is_test
      AND created_at >= greatest(midnight, stats_reset.at) ORDER BY created_at DESC LIMIT 1
) AS bad ON true
LEFT JOIN LATERAL (
    SELECT id, status::text AS status, finalized_at FROM job
    WHERE slot_id = slot.id AND is_finalized AND NOT is_test ORDER BY created_at DESC LIMIT 1
) AS last ON true
WHERE slot.archived_at IS NULL ORDER BY slot.id
"""  # noqa: S608 - our own constant


async def today(db: Database, time_zone: str) -> dict[str, Today]:
    """Every slot's day so far, by the slot's id."""
    rows = await db.fetch(_TODAY, {"zone": time_zone})
    return {row["slot_id"]: Today.model_validate(row) for row in rows}


async def reset(connection: AsyncConnection[Any], slot_id: str) -> None:
    """Begins a slot's statistics anew from now, in the caller's transaction; those of all slots stay as they are."""
    await rollups.forget(connection, slot_id)
