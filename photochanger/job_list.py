"""What an administrator sees of jobs: the list, in pages, everything about one, and the latest pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field

from photochanger.db import Database, Row, fetch
from photochanger.failures import InvalidRequest, JobNotFound
from photochanger.job_search import Filters, Place, places
from photochanger.states import JobEvent, JobStatus

MOST_ROWS = 200
#: Suggestions look at the jobs of so many days.
LATELY_DAYS = 30

_SECRET = re.compile(r"(?:key|token|secret|password|credential)s?$", re.IGNORECASE)


class JobSummary(BaseModel):
    """A job as it stands in the list."""

    job_id: UUID
    slot_id: Annotated[str, Field(examples=["slot-001"])]
    slot_name: Annotated[str, Field(description="As it was when the job was made.")]
    status: JobStatus
    failure_reason: Annotated[str | None, Field(description="A failure code.", examples=["provider_refused"])]
    failure_detail: Annotated[str | None, Field(description="What happened, in words.")]
    created_at: Annotated[datetime, Field(description="When the upload began.")]
    expires_at: Annotated[datetime, Field(description="When the job is given up.")]
    finalized_at: datetime | None
    seconds: Annotated[float | None, Field(ge=0, description="From the upload's begin to the end.")]
    served_by: Annotated[str | None, Field(description="Provider and operation.", examples=["gemini/image_edit"])]
    cost: Annotated[float, Field(ge=0, description="In the currency of the providers' prices.")]
    has_result: Annotated[bool, Field(description="Whether the picture can be fetched now.")]
    has_original: Annotated[bool, Field(description="Whether the photo is still here: a rerun needs it.")]
    result_expires_at: datetime | None
    is_test: Annotated[bool, Field(description="An administrator tried the slot.")]


class AttemptView(BaseModel):
    """One provider call."""

    id: int
    claim_no: Annotated[int, Field(ge=1, description="2: by the worker that took over after a crash.")]
    rung: Annotated[int, Field(ge=0, description="Its place in the route.")]
    provider: Annotated[str, Field(examples=["gemini"])]
    operation: Annotated[str, Field(examples=["image_edit"])]
    model: str | None
    dispatched_at: datetime
    responded_at: Annotated[datetime | None, Field(description="Null: it runs, or its worker died.")]
    starts_after_s: Annotated[float, Field(description="Seconds after the job's begin.")]
    seconds: Annotated[float | None, Field(ge=0, description="How long it took.")]
    cause: Annotated[str | None, Field(description="The failure code it ended with; null for a success.")]
    detail: str | None
    finish_reason: Annotated[str | None, Field(description="The provider's own word for how it ended.")]
    request_id: Annotated[str | None, Field(description="The provider's own id of the call.")]
    cost: Annotated[float, Field(ge=0)]


class LogEntry(BaseModel):
    """One event of the processing log."""

    at: datetime
    event: JobEvent
    detail: dict[str, Any] | None


class Timings(BaseModel):
    """Where a job's seconds went; null: it did not come to that."""

    queue_wait_s: Annotated[float | None, Field(description="From the upload's begin until a worker took it.")]
    provider_s: Annotated[float | None, Field(description="At providers, all calls together.")]
    storage_s: Annotated[float | None, Field(description="From the last answer until the result was final.")]
    total_s: Annotated[float | None, Field(description="From the upload's begin to the end.")]
    budget_s: Annotated[float, Field(description="From the upload's begin to the deadline.")]


class JobDetail(JobSummary):
    """Everything about a job."""

    claim_no: Annotated[int, Field(ge=0, description="How often a worker has taken it.")]
    waiters: int
    claimed_at: datetime | None
    fields: Annotated[dict[str, Any], Field(description="What the camera sent beside the photo.")]
    payload_mime: str
    payload_bytes: int
    payload_sha256: str
    result_mime: str | None
    result_bytes: int | None
    result_width: int | None
    result_height: int | None
    rerun_of: Annotated[UUID | None, Field(description="The job whose photo it does again.")]
    reruns: Annotated[list[UUID], Field(description="The jobs that do its photo again, in order.")]
    slot_version: Annotated[int, Field(description="The settings' version that the job was made with.")]
    route: Annotated[dict[str, Any], Field(description="The route it was made with, without secrets.")]
    timings: Timings
    attempts: list[AttemptView]
    log: list[LogEntry]


class Listing(BaseModel):
    """A page of jobs, newest first. ``next``: where the next page goes on; null: there is none."""

    jobs: Annotated[list[JobSummary], Field(max_length=MOST_ROWS)]
    next: Place | None


class Picture(BaseModel):
    """A finished picture that can be fetched now."""

    job_id: UUID
    slot_id: str
    created_at: datetime
    finalized_at: datetime
    result_expires_at: datetime
    result_file_path: Annotated[str, Field(description="Its storage key; not for the outside.", exclude=True)]
    mime: str
    bytes: int
    width: int
    height: int
    served_by: str
    late: Annotated[bool, Field(description="It came after its job had timed out.")]
    has_original: Annotated[bool, Field(description="Whether the photo is still here: a rerun needs it.", exclude=True)]


class Pictures(BaseModel):
    """A page of pictures, newest first."""

    pictures: Annotated[list[Picture], Field(max_length=MOST_ROWS)]
    next: Place | None


class Suggestions(BaseModel):
    """What the list may be filtered by: what was seen lately."""

    failure_reasons: list[str]
    providers: list[str]
    slots: list[str]


# Summed here: a call may end, and cost, after its job.
_SUMMARY = """
job.id AS job_id, job.slot_id, coalesce(job.snapshot->>'slot_name', job.slot_id) AS slot_name,
job.status::text AS status, job.failure_reason, job.failure_detail, job.created_at, job.expires_at, job.finalized_at,
extract(epoch FROM job.finalized_at - job.created_at)::float8 AS seconds, job.served_by,
(SELECT coalesce(sum(cost), 0)::float8 FROM attempt WHERE job_id = job.id) AS cost,
job.result_file_path IS NOT NULL AND job.result_expires_at > clock_timestamp() AS has_result, job.result_expires_at,
job.payload_path IS NOT NULL AS has_original, job.is_test
"""
_LIST = f"""
SELECT {_SUMMARY} FROM job WHERE id = ANY(%(ids)s) ORDER BY created_at DESC, id DESC
"""  # noqa: S608 - our own constants
_DETAIL = f"""
SELECT {_SUMMARY}, job.claim_no, job.waiters, job.claimed_at, job.fields, job.payload_mime, job.payload_bytes,
       job.payload_sha256, job.result_mime, job.result_bytes,
       job.result_width, job.result_height, coalesce((job.snapshot->>'slot_version')::int, 1) AS slot_version,
       job.snapshot->'route' AS route, extract(epoch FROM job.claimed_at - job.created_at)::float8 AS queue_wait_s
FROM job WHERE id = %(id)s
"""  # noqa: S608 - our own constants
_ATTEMPTS = """
SELECT attempt.id, attempt.claim_no, rung, provider, operation, model, dispatched_at, responded_at,
       extract(epoch FROM dispatched_at - created_at)::float8 AS starts_after_s,
       extract(epoch FROM responded_at - dispatched_at)::float8 AS seconds,
       cause, detail, finish_reason, request_id, attempt.cost::float8 AS cost
FROM attempt JOIN job ON job.id = attempt.job_id WHERE attempt.job_id = %(id)s ORDER BY attempt.id
"""
_LOG = "SELECT at, event, detail FROM processing_log WHERE job_id = %(id)s ORDER BY at, id"
_RERUNS = """
SELECT CASE WHEN target = %(job)s THEN detail->>'of' END AS of,
       CASE WHEN target <> %(job)s THEN split_part(target, '/', 2) END AS by
FROM audit WHERE action = 'job.rerun' AND (target = %(job)s OR detail->>'of' = %(id)s::text) ORDER BY id
"""
_SUGGESTIONS = """
WITH lately AS MATERIALIZED (
    SELECT DISTINCT outcome, provider FROM job_rollup
    WHERE zone = '' AND slot_id = '' AND began_at > now() - %(days)s * interval '1 day'
)
SELECT DISTINCT 'outcome' AS kind, outcome AS name FROM lately
UNION ALL SELECT DISTINCT 'provider', provider FROM lately WHERE provider <> ''
UNION ALL SELECT 'slot', slot.id FROM slot CROSS JOIN LATERAL (
    SELECT created_at FROM job WHERE slot_id = slot.id ORDER BY created_at DESC LIMIT 1
) AS newest WHERE newest.created_at > now() - %(days)s * interval '1 day'
ORDER BY kind, name
"""
_PICTURES = """
SELECT found.* FROM slot CROSS JOIN LATERAL (
    SELECT job.id AS job_id, slot_id, created_at, finalized_at, result_expires_at, result_file_path,
           result_mime AS mime, result_bytes AS bytes, result_width AS width, result_height AS height, served_by,
           status = 'timed_out' AS late,
           payload_path IS NOT NULL AND coalesce(payload_expires_at > clock_timestamp(), false) AS has_original
    FROM job WHERE job.slot_id = slot.id AND result_file_path IS NOT NULL AND result_expires_at > clock_timestamp()
      AND NOT is_test AND (%(since)s::timestamptz IS NULL OR created_at >= %(since)s)
      AND (%(until)s::timestamptz IS NULL OR created_at < %(until)s) {behind}
    ORDER BY created_at DESC, job.id DESC LIMIT %(of_each)s
) AS found
WHERE %(slot_ids)s::text[] IS NULL OR slot.id = ANY(%(slot_ids)s)
ORDER BY created_at DESC, job_id DESC LIMIT %(limit)s
"""
_BEHIND = "AND (created_at, job.id) < (%(at)s, %(id)s)"


async def listing(
    db: Database,
    *,
    statuses: Sequence[JobStatus] = (),
    failure_reasons: Sequence[str] = (),
    slot_id: str | None = None,
    provider: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    text: str | None = None,
    after: Place | None = None,
    limit: int = 50,
) -> Listing:
    """A page of the jobs that fit all that is asked, newest first; ``after``: behind the page that ended there.

    ``statuses``, ``failure_reasons``: any of them; none: all. ``provider``: has served, or was called. ``since``,
    ``until``: when the job was made, the second not included. ``text``: see ``job_search``.

    Raises:
        InvalidRequest: a limit, text or instant that cannot be.
    """
    filters = Filters(tuple(statuses), tuple(failure_reasons), slot_id, provider, since, until, text, after)
    async with db.transaction() as connection:
        await connection.execute(b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        found = await places(connection, filters, limit=_bounded(limit) + 1)
        rows = await fetch(connection, _LIST, {"ids": [place.job_id for place in found[:limit]]})
    return Listing(
        jobs=[JobSummary.model_validate(row) for row in rows], next=found[limit - 1] if len(found) > limit else None
    )


def _bounded(limit: int) -> int:
    if not 1 <= limit <= MOST_ROWS:
        raise InvalidRequest(f"limit must be from 1 to {MOST_ROWS}")
    return limit


async def detail(db: Database, job_id: UUID) -> JobDetail:
    """Everything about a job.

    Raises:
        JobNotFound: there is none, or its history is over.
    """
    async with db.transaction() as connection:
        await connection.execute(b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        rows = await fetch(connection, _DETAIL, {"id": job_id})
        attempts = await fetch(connection, _ATTEMPTS, {"id": job_id})
        log = await fetch(connection, _LOG, {"id": job_id})
        again = await fetch(connection, _RERUNS, {"id": job_id, "job": f"job/{job_id}"})
    if not rows:
        raise JobNotFound()
    row = rows[0]
    row["route"] = without_secrets(row["route"] or {})
    return JobDetail(
        **row,
        rerun_of=next((one["of"] for one in again if one["of"]), None),
        reruns=[one["by"] for one in again if one["by"]],
        timings=_timings(row, attempts),
        attempts=attempts,
        log=[LogEntry.model_validate(one) for one in log],
    )


def _timings(row: Row, attempts: Sequence[Row]) -> Timings:
    answered = [one for one in attempts if one["responded_at"] is not None]
    last = max((one["responded_at"] for one in answered), default=None)
    stored = row["status"] == "succeeded" and last is not None
    return Timings(
        queue_wait_s=row["queue_wait_s"],
        provider_s=sum(one["seconds"] for one in answered) if answered else None,
        storage_s=max(0.0, (row["finalized_at"] - last).total_seconds()) if stored and last else None,
        total_s=row["seconds"],
        budget_s=(row["expires_at"] - row["created_at"]).total_seconds(),
    )


def without_secrets(value: Any) -> Any:
    """A route's settings with what is named like a secret left out; there should be none.

    >>> without_secrets({"rungs": [{"settings": {"prompt": "x", "api_key": "y"}}]})
    {'rungs': [{'settings': {'prompt': 'x'}}]}
    """
    if isinstance(value, dict):
        return {name: without_secrets(one) for name, one in value.items() if not _SECRET.search(name)}
    if isinstance(value, list):
        return [without_secrets(one) for one in value]
    return value


async def suggestions(db: Database) -> Suggestions:
    """What the list may be filtered by, in alphabetical order."""
    rows = await db.fetch(_SUGGESTIONS, {"days": LATELY_DAYS})
    kinds: dict[str, list[str]] = {"outcome": [], "provider": [], "slot": []}
    for row in rows:
        kinds[row["kind"]].append(row["name"])
    reasons = {"timed_out": "sync_timeout"}
    return Suggestions(
        failure_reasons=sorted(reasons.get(name, name) for name in kinds["outcome"] if name != "succeeded"),
        providers=kinds["provider"],
        slots=kinds["slot"],
    )


async def latest_results(
    db: Database,
    slot_id: str | None = None,
    after: Place | None = None,
    limit: int = 50,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Pictures:
    """A page of the pictures that can be fetched now, of a slot or of all, the newest job's first. ``since``,
    ``until``: when the job was made, the second not included.

    Raises:
        InvalidRequest: a limit that cannot be.
    """
    params = {
        "slot_ids": None if slot_id is None else [slot_id],
        "since": since,
        "until": until,
        "at": after.created_at if after else None,
        "id": after.job_id if after else None,
        "limit": _bounded(limit) + 1,
        "of_each": limit + 1,
    }
    rows = await db.fetch(_PICTURES.format(behind=_BEHIND if after else ""), params)
    pictures = [Picture.model_validate(row) for row in rows[:limit]]
    last = pictures[-1] if len(rows) > limit else None
    return Pictures(pictures=pictures, next=Place(last.created_at, last.job_id) if last else None)


async def latest_of_each(db: Database, slot_ids: Sequence[str]) -> dict[str, Picture]:
    """Each slot's newest picture that can be fetched now, by the slot's id."""
    params = {"slot_ids": list(slot_ids), "limit": len(slot_ids), "of_each": 1, "since": None, "until": None}
    rows = await db.fetch(_PICTURES.format(behind=""), params)
    return {row["slot_id"]: Picture.model_validate(row) for row in rows}
