"""The only verbs on a job: submit, claim, dispatch, succeed, fail, expire, leave, cancel, find.

Each is one statement (a submission may take a second look, ``leave`` two steps). A final state is decided by one
guarded UPDATE on a row that was locked first: the guard is evaluated after the lock is held, never while waiting for
it. Who changes no row has lost, deletes its file and is silent. All instants are the database's.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

import orjson
from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from photochanger import admission, audit
from photochanger.admission import NoRoom, Work
from photochanger.audit import Deed
from photochanger.broker import messages
from photochanger.db import Database, Row, fetch
from photochanger.failures import (
    Conflict,
    Failure,
    IdempotencyMismatch,
    ProviderFailure,
    SlotDisabled,
    SyncTimeout,
    Unavailable,
)
from photochanger.providers import Picture
from photochanger.slots import Options as SlotOptions
from photochanger.states import MAX_CLAIMS, JobStatus

#: Rung with a job's id whenever one becomes final.
JOB_BELL = "photochanger_job"
#: Rows expired in one statement.
EXPIRE_BATCH = 500
#: Keys forgotten in one statement.
FORGET_BATCH = 1000
#: Seconds a call that runs at the deadline may go on where its slot keeps late results.
LATE_S = 60.0
#: Seconds a worker keeps trying to say how a job ended while PostgreSQL is away; past that, expiry has decided.
FINAL_PATIENCE_S = 60.0

_COLUMNS = """
job.id, job.slot_id, job.status::text AS status, job.is_finalized, job.failure_reason, job.failure_detail,
job.created_at, job.expires_at, job.finalized_at, job.claim_no, job.payload_path, job.payload_mime,
job.payload_bytes, job.payload_sha256, job.result_file_path, job.result_mime, job.result_bytes, job.result_sha256,
job.result_width, job.result_height, job.result_expires_at, job.served_by, job.is_test, job.cost::float8 AS cost,
job.retry_at, CASE WHEN job.status = 'timed_out' AND (job.snapshot #>> '{options,keep_late_result}')::boolean
    THEN EXISTS (SELECT FROM attempt WHERE job_id = job.id AND claim_no = job.claim_no AND responded_at IS NULL)
    ELSE false END AS comes_late,
coalesce(split_part(job.served_by, '/', 1),
    (SELECT provider FROM attempt WHERE job_id = job.id ORDER BY id DESC LIMIT 1)) AS last_provider
"""


@dataclass(frozen=True)
class Submission:
    """A photo that has been received and stored.

    ``elapsed_s``: seconds since the request began, which count against the deadline. ``fields``: what else the
    camera sent, kept as it came. ``key``: what a photo that comes again is known by, for ``key_s`` seconds; it joins
    the job that has the key, if that may still answer it (any job's answer, where ``key_is_final``). ``is_test``: an
    administrator tries the slot, on or off, with ``route`` and ``options`` instead of the saved ones where they are
    given.
    """

    job_id: UUID
    slot_id: str
    payload_path: str
    payload_mime: str
    payload_bytes: int
    payload_sha256: str
    elapsed_s: float
    t_sync_response_s: float
    t_result_retention_s: float
    t_original_retention_s: float
    max_pixels: int
    fields: Mapping[str, str] = field(default_factory=dict)
    work: Work = field(default_factory=Work)
    priority: int = 0
    key: str | None = None
    key_s: float = 0.0
    key_is_final: bool = False
    is_test: bool = False
    route: Mapping[str, Any] | None = None
    options: Mapping[str, Any] | None = None


_SUBMIT = f"""
WITH slot_now AS MATERIALIZED (
    SELECT id, name, version, route, options FROM slot
    WHERE id = %(slot_id)s AND (is_active OR %(is_test)s) AND archived_at IS NULL
), began AS MATERIALIZED (
    SELECT clock_timestamp() - %(elapsed_s)s * interval '1 second' AS created_at
), {admission.FORECAST}
, admitted AS MATERIALIZED (SELECT FROM slot_now, forecast WHERE wait_s <= %(most_wait_s)s)
, keyed AS (
    INSERT INTO request_key AS k (key, job_id, payload_sha256, expires_at)
    SELECT %(key)s, %(job_id)s, %(payload_sha256)s, clock_timestamp() + %(key_s)s * interval '1 second'
    FROM admitted WHERE %(key)s::text IS NOT NULL
    ON CONFLICT (key) DO UPDATE SET job_id = EXCLUDED.job_id, payload_sha256 = EXCLUDED.payload_sha256,
        expires_at = EXCLUDED.expires_at
    WHERE k.expires_at <= clock_timestamp() OR (NOT %(key_is_final)s AND EXISTS (
        SELECT FROM job WHERE job.id = k.job_id AND status IN ('failed', 'timed_out', 'cancelled')))
    RETURNING key
), made AS (
    INSERT INTO job (id, slot_id, status, created_at, expires_at, snapshot, fields,
                     payload_path, payload_mime, payload_bytes, payload_sha256, is_test)
    SELECT %(job_id)s, s.id, 'pending', b.created_at, b.created_at + %(t_sync_response_s)s * interval '1 second',
           jsonb_build_object('slot_name', s.name, 'slot_version', s.version,
                              'route', coalesce(%(route)s::jsonb, s.route),
                              'options', coalesce(%(options)s::jsonb, s.options)) || %(times)s,
           %(fields)s, %(payload_path)s, %(payload_mime)s, %(payload_bytes)s, %(payload_sha256)s, %(is_test)s
    FROM slot_now s, began b, admitted WHERE %(key)s::text IS NULL OR EXISTS (SELECT FROM keyed)
    RETURNING id, created_at, expires_at
), logged AS (
    INSERT INTO processing_log (job_id, at, event) SELECT id, created_at, 'received' FROM made
), sent AS (
    INSERT INTO dramatiq.queue (message_id, state, message, priority, lane, lane_until, work_s)
    SELECT id, 'queued', %(message)s::jsonb, %(priority)s, %(lane)s,
           created_at + %(lane_wait_s)s * interval '1 second', %(work_s)s FROM made
    RETURNING pg_notify('{messages.QUEUE_BELL}', '')
)
SELECT made.expires_at, extract(epoch FROM made.expires_at - clock_timestamp())::float8 AS remaining_s,
       wait_s, capacity, (SELECT count(*) FROM sent) AS rung
FROM slot_now, forecast LEFT JOIN made ON true
"""
_JOIN = """
WITH known AS (
    SELECT k.job_id, k.payload_sha256 FROM request_key k
    WHERE k.key = %(key)s AND k.expires_at > clock_timestamp()
), joined AS (
    UPDATE job SET waiters = waiters + 1 FROM known
    WHERE job.id = known.job_id AND NOT is_finalized AND known.payload_sha256 = %(payload_sha256)s
    RETURNING job.id
)
SELECT job.id, known.payload_sha256, job.expires_at,
       greatest(extract(epoch FROM job.expires_at - clock_timestamp()), 0)::float8 AS remaining_s
FROM known JOIN job ON job.id = known.job_id
WHERE %(key_is_final)s OR job.status = 'succeeded' OR job.id IN (SELECT id FROM joined)
"""


@dataclass(frozen=True)
class Submitted:
    """The job that will answer, its deadline, and the seconds left until then. ``joined``: another request made it."""

    job_id: UUID
    expires_at: datetime
    remaining_s: float
    joined: bool = False


async def submit(db: Database, submission: Submission, *, deed: Deed | None = None) -> Submitted:
    """Writes job, message, ``received`` and, where an administrator has it made, ``deed`` in one transaction, where it
    can be served before its deadline; joins the job that has its key.

    While much of the room is left, several may come in at once; from then on they are let in one after the other,
    each seeing those before.

    Raises:
        NoRoom: it could not be served in time.
        SlotDisabled: the slot was switched off or archived since the request began.
        IdempotencyMismatch: the key was used for another photo.
        Unavailable: PostgreSQL cannot be reached; nothing was written, or the job runs and expires by itself.
    """
    params, since = _params(submission), time.monotonic()

    def timed(share: float = 1.0) -> dict[str, Any]:
        """With what has passed by now, and the ``share`` of what is left in which the photo's turn must come."""
        elapsed_s = submission.elapsed_s + time.monotonic() - since
        slack_s = submission.t_sync_response_s - elapsed_s - submission.work.need_s
        return {**params, "elapsed_s": elapsed_s, "most_wait_s": max(0.0, slack_s * share)}

    for _ in range(3):  # a key's job may end between the two looks
        row = await _insert(db, timed(admission.AT_ONCE), deed)
        if row is not None and row["expires_at"] is None:
            if joined := await _join(db, submission):
                return joined
            if row["wait_s"] <= timed()["most_wait_s"]:
                row = await _insert_in_turn(db, params["lane"], timed, deed)
        if row is None:
            raise SlotDisabled()
        if row["expires_at"] is not None:
            return Submitted(submission.job_id, row["expires_at"], row["remaining_s"])
        if row["wait_s"] > timed()["most_wait_s"]:
            raise NoRoom(row["wait_s"], row["capacity"])
    raise Conflict("The same photo's job ended again and again while this one was being taken")


@dataclass
class _Turn:
    """One photo of a lane waits for its turn in the database, the others here: whoever is to be refused, and only
    looks, finds a free connection. ``away_at``: when the database was last found away, by the monotonic clock."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    away_at: float = float("-inf")


_TURNS: WeakKeyDictionary[Database, defaultdict[str, _Turn]] = WeakKeyDictionary()


async def _insert_in_turn(
    db: Database, lane: str, timed: Callable[[], Mapping[str, Any]], deed: Deed | None
) -> Row | None:
    turn, since = _TURNS.setdefault(db, defaultdict(_Turn))[lane], time.monotonic()
    async with turn.lock:
        if turn.away_at >= since:  # found by one before us: nobody has to wait for it a second time
            raise Unavailable("The database cannot be reached", retry_after_s=2)
        try:
            async with db.transaction() as connection:
                await connection.execute(b"SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (admission.LOCK, lane))
                return await _inserted(connection, timed(), deed)
        except Unavailable:
            turn.away_at = time.monotonic()
            raise


async def _insert(db: Database, params: Mapping[str, Any], deed: Deed | None) -> Row | None:
    if deed is None:
        rows = await db.fetch(_SUBMIT, params)
        return rows[0] if rows else None
    async with db.transaction() as connection:
        return await _inserted(connection, params, deed)


async def _inserted(connection: AsyncConnection[Any], params: Mapping[str, Any], deed: Deed | None) -> Row | None:
    """The statement's row; where it has made the job, with ``deed`` beside it."""
    rows = await fetch(connection, _SUBMIT, params)
    if deed is not None and rows and rows[0]["expires_at"] is not None:
        await audit.record(connection, **asdict(deed))
    return rows[0] if rows else None


async def _join(db: Database, submission: Submission) -> Submitted | None:
    if submission.key is None:
        return None
    rows = await db.fetch(_JOIN, _params(submission))
    if not rows:
        return None
    if rows[0]["payload_sha256"] != submission.payload_sha256:
        raise IdempotencyMismatch()
    return Submitted(rows[0]["id"], rows[0]["expires_at"], rows[0]["remaining_s"], joined=True)


def _params(submission: Submission) -> dict[str, Any]:
    message = messages.message("process_job", message_id=str(submission.job_id), job_id=str(submission.job_id))
    own = ("job_id", "slot_id", "elapsed_s", "t_sync_response_s", "payload_path", "payload_mime", "payload_bytes",
           "payload_sha256", "priority", "key", "key_s", "key_is_final", "is_test")  # fmt: skip
    kept = ("t_sync_response_s", "t_result_retention_s", "t_original_retention_s", "max_pixels")
    return {
        **{name: getattr(submission, name) for name in own},
        "message": message.body,
        "route": submission.route and Jsonb(submission.route),
        "options": submission.options and Jsonb(submission.options),
        "times": Jsonb({name: getattr(submission, name) for name in kept}),
        "fields": Jsonb(dict(submission.fields), dumps=orjson.dumps),
        **submission.work.params(),
        "work_s": submission.work.work_s,
    }


async def has_key(db: Database, key: str) -> bool:
    """Whether a job answers to ``key``."""
    return bool(
        await db.fetch("SELECT FROM request_key WHERE key = %(key)s AND expires_at > clock_timestamp()", {"key": key})
    )


async def forget_keys(db: Database) -> int:
    """Deletes the keys of photos and requests that have run out."""
    gone = 0
    while rows := await db.fetch(
        "DELETE FROM request_key WHERE key = ANY(ARRAY(SELECT key FROM request_key "
        f"WHERE expires_at <= clock_timestamp() LIMIT {FORGET_BATCH} FOR UPDATE SKIP LOCKED)) RETURNING 1 AS gone"
    ):
        gone += len(rows)
    return gone


@dataclass(frozen=True)
class Claim:
    """A worker's right to work on a job. ``claim_no`` fences off whoever claimed it before. ``reference``:
    ``<provider>/<its own id>`` of a call that is paid for and was not finished."""

    job_id: UUID
    claim_no: int
    slot_id: str
    remaining_s: float
    queue_wait_s: float
    created_at: datetime
    payload_path: str
    payload_mime: str
    route: Mapping[str, Any]
    max_pixels: int
    options: SlotOptions = field(default_factory=SlotOptions)
    reference: str | None = None


_CLAIM = f"""
WITH locked AS MATERIALIZED (
    SELECT id FROM job WHERE id = %(job_id)s FOR UPDATE
), at AS MATERIALIZED (SELECT id, clock_timestamp() AS now FROM locked)
, won AS (
    UPDATE job SET status = 'processing', claim_no = claim_no + 1, claimed_at = at.now
    FROM at
    WHERE job.id = at.id AND NOT is_finalized AND at.now < expires_at AND claim_no < {MAX_CLAIMS}
      AND (claim_no = 0 OR provider_job_reference IS NOT NULL OR expires_at > at.now + interval '1 second' * (
           SELECT min(coalesce((%(usual_s)s ->> (rung->>'provider'))::float8, 0))
           FROM jsonb_array_elements(snapshot #> '{{route,rungs}}') AS rung))
    RETURNING job.*, at.now
), logged AS (
    INSERT INTO processing_log (job_id, at, event, detail)
    SELECT id, now, 'claimed', jsonb_build_object('claim_no', claim_no) FROM won
)
SELECT id AS job_id, claim_no, slot_id, extract(epoch FROM expires_at - now)::float8 AS remaining_s,
       extract(epoch FROM now - created_at)::float8 AS queue_wait_s, created_at,
       payload_path, payload_mime, snapshot->'route' AS route, (snapshot->>'max_pixels')::bigint AS max_pixels,
       snapshot->'options' AS options, provider_job_reference AS reference,
       -- not durable by itself: ``dispatch`` commits after it, before anything is paid for
       set_config('synchronous_commit', 'off', true) AS unflushed
FROM won
"""


async def claim(db: Database, job_id: UUID, *, usual_s: Mapping[str, float]) -> Claim | None:
    """Takes a job to work on it; ``None`` when it is final, overdue, or may not be tried again (see ``lose``).

    A job taken over after a crash is claimed only while the rest of its budget holds the usual time of its route's
    quickest provider (``usual_s``, seconds by provider) or a provider is at work on it, and at most ``MAX_CLAIMS``
    times in all.
    """
    # Patient: a message whose claim fails would be a dead letter. A claim whose answer was lost costs one number.
    params = {"job_id": job_id, "usual_s": Jsonb(dict(usual_s))}
    rows = await db.fetch(_CLAIM, params, patience_s=FINAL_PATIENCE_S)
    if not rows:
        return None
    row = rows[0]
    del row["unflushed"]
    row["options"] = SlotOptions.model_validate(row["options"] or {}, extra="ignore")
    return Claim(**row)


async def lose(db: Database, job_id: UUID) -> Final | None:
    """Fails a job whose worker died and which may not be tried again; anything else is left alone."""
    return await _finish(
        db,
        job_id,
        claim_no=None,
        status=JobStatus.FAILED,
        code="worker_lost",
        detail="The worker died while it worked on this photo, and there was no time for another try",
        guard="claim_no > 0 AND at.now < expires_at",
    )


_DISPATCH = """
WITH held AS MATERIALIZED (
    SELECT id FROM job
    WHERE id = %(job_id)s AND claim_no = %(claim_no)s AND NOT is_finalized AND clock_timestamp() < expires_at
), made AS (
    INSERT INTO attempt (job_id, claim_no, rung, provider, operation)
    SELECT id, %(claim_no)s, %(rung)s, %(provider)s, %(operation)s FROM held
    RETURNING id, job_id, dispatched_at
), logged AS (
    INSERT INTO processing_log (job_id, at, event, detail)
    SELECT job_id, dispatched_at, 'dispatched',
           jsonb_build_object('attempt', id, 'rung', %(rung)s::int, 'provider', %(provider)s::text,
                              'operation', %(operation)s::text)
    FROM made
)
SELECT id FROM made
"""


async def dispatch(
    db: Database, claim: Claim, *, rung: int, provider: str, operation: str, patience_s: float = 0.0
) -> int | None:
    """Records an attempt before the provider is called; its id, or ``None`` when the job is no longer ours to serve."""
    rows = await db.fetch(
        _DISPATCH,
        {
            "job_id": claim.job_id,
            "claim_no": claim.claim_no,
            "rung": rung,
            "provider": provider,
            "operation": operation,
        },
        patience_s=patience_s,
    )
    return rows[0]["id"] if rows else None


async def remember(
    db: Database, claim: Claim, reference: str | None, *, attempt: int | None = None, cost: float = 0.0
) -> None:
    """Keeps ``<provider>/<its own id>`` of what is being paid for, for whoever claims the job after a crash, and the
    price with the attempt that caused it; ``None`` when it is worth nothing any more."""
    await db.fetch(
        "WITH billed AS (UPDATE attempt SET cost = greatest(cost, %(cost)s), request_id = "
        "coalesce(split_part(%(reference)s, '/', 2), request_id) WHERE id = %(attempt)s) "
        "UPDATE job SET provider_job_reference = %(reference)s "
        "WHERE id = %(job_id)s AND claim_no = %(claim_no)s AND NOT is_finalized",
        {
            "reference": reference,
            "job_id": claim.job_id,
            "claim_no": claim.claim_no,
            "attempt": attempt,
            "cost": cost,
        },
        patience_s=FINAL_PATIENCE_S,
    )


@dataclass(frozen=True)
class Final:
    """How a job ended, for the one who won: the original's key when its file is to be deleted now."""

    job_id: UUID
    drop_payload: str | None


_RESPONDED = """
responded AS (
    UPDATE attempt SET
        responded_at = coalesce((SELECT now FROM at), clock_timestamp()) - %(since_response_s)s * interval '1 second',
        model = %(model)s, cause = %(cause)s, detail = %(attempt_detail)s, finish_reason = %(finish_reason)s,
        request_id = coalesce(%(request_id)s, request_id), cost = greatest(cost, %(cost)s)
    WHERE id = %(attempt)s AND responded_at IS NULL RETURNING id, job_id, responded_at, cause
), logged_response AS (
    INSERT INTO processing_log (job_id, at, event, detail)
    SELECT job_id, responded_at, 'provider_responded', jsonb_build_object('attempt', id, 'cause', cause)
    FROM responded
)
"""

# The original goes with the job unless the snapshot keeps it; its file is deleted by the caller, after the commit.
_KEEP = """
payload_path = CASE WHEN coalesce((snapshot->>'t_original_retention_s')::float8, 0) > 0 THEN payload_path END,
payload_expires_at = at.now + least((snapshot->>'t_original_retention_s')::float8,
                                    (snapshot->>'t_result_retention_s')::float8) * interval '1 second',
cost = (SELECT coalesce(sum(CASE WHEN id = %(attempt)s::bigint THEN greatest(cost, %(cost)s) ELSE cost END), 0)
        FROM attempt WHERE job_id = job.id)
"""

# For ``stats``, which counts it once it is committed.
_ENDED = "ended AS (INSERT INTO job_ended (job_id) SELECT id FROM won)"

_SUCCEED = f"""
WITH locked AS MATERIALIZED (
    SELECT id, payload_path FROM job WHERE id = %(job_id)s FOR UPDATE
), at AS MATERIALIZED (SELECT id, payload_path AS payload_was, clock_timestamp() AS now FROM locked)
, won AS (
    UPDATE job SET status = 'succeeded', is_finalized = true, finalized_at = at.now,
        result_expires_at = at.now + (snapshot->>'t_result_retention_s')::float8 * interval '1 second',
        result_file_path = %(key)s, result_mime = %(mime)s, result_bytes = %(bytes)s, result_sha256 = %(sha256)s,
        result_width = %(width)s, result_height = %(height)s, served_by = %(served_by)s, {_KEEP}
    FROM at
    WHERE job.id = at.id AND claim_no = %(claim_no)s AND NOT is_finalized AND at.now < expires_at
    RETURNING job.id, job.finalized_at, CASE WHEN job.payload_path IS NULL THEN payload_was END AS drop_payload
), {_RESPONDED}, {_ENDED}, logged AS (
    INSERT INTO processing_log (job_id, at, event) SELECT id, finalized_at, 'succeeded' FROM won
)
SELECT id AS job_id, drop_payload, pg_notify('{JOB_BELL}', id::text) FROM won
"""


async def succeed(
    db: Database, claim: Claim, picture: Picture, *, key: str, served_by: str, attempt: int, since_response_s: float
) -> Final | None:
    """Makes ``picture``, already durable under ``key``, the job's result. ``None``: too late, or no longer ours.

    Raises:
        Unavailable: PostgreSQL stayed away for ``FINAL_PATIENCE_S``.
    """
    params = _result(claim, picture, key=key, served_by=served_by)
    params |= _attempt_end(attempt, since_response_s, picture=picture)
    rows = await db.fetch(_SUCCEED, params, patience_s=FINAL_PATIENCE_S)
    return Final(rows[0]["job_id"], rows[0]["drop_payload"]) if rows else await _already(db, claim, key)


def _result(claim: Claim, picture: Picture, *, key: str, served_by: str) -> dict[str, Any]:
    return {
        "job_id": claim.job_id,
        "claim_no": claim.claim_no,
        "key": key,
        "mime": picture.mime,
        "bytes": picture.bytes,
        "sha256": picture.sha256,
        "width": picture.width,
        "height": picture.height,
        "served_by": served_by,
    }


async def _already(db: Database, claim: Claim, key: str) -> Final | None:
    """After a lost answer the statement runs twice; the second time finds its own work done."""
    row = await find(db, claim.job_id)
    ours = row is not None and row["result_file_path"] == key and row["claim_no"] == claim.claim_no
    return Final(claim.job_id, None) if ours else None


_KEEP_LATE = f"""
WITH locked AS MATERIALIZED (
    SELECT id FROM job WHERE id = %(job_id)s FOR UPDATE
), at AS MATERIALIZED (SELECT id, clock_timestamp() AS now FROM locked)
, won AS (
    UPDATE job SET
        result_expires_at = finalized_at + (snapshot->>'t_result_retention_s')::float8 * interval '1 second',
        result_file_path = %(key)s, result_mime = %(mime)s, result_bytes = %(bytes)s, result_sha256 = %(sha256)s,
        result_width = %(width)s, result_height = %(height)s, served_by = %(served_by)s,
        cost = (SELECT coalesce(sum(CASE WHEN id = %(attempt)s THEN greatest(cost, %(cost)s) ELSE cost END), 0)
                FROM attempt WHERE job_id = job.id)
    FROM at
    WHERE job.id = at.id AND claim_no = %(claim_no)s AND status = 'timed_out' AND result_sha256 IS NULL
    RETURNING job.id
), {_RESPONDED}
SELECT id FROM won
"""


async def keep_late(
    db: Database, claim: Claim, picture: Picture, *, key: str, served_by: str, attempt: int, since_response_s: float
) -> bool:
    """Keeps a picture that came after its job had timed out; the job stays timed out. False: it is not wanted."""
    params = _result(claim, picture, key=key, served_by=served_by)
    params |= _attempt_end(attempt, since_response_s, picture=picture)
    return bool(await db.fetch(_KEEP_LATE, params, patience_s=FINAL_PATIENCE_S))


async def fail(
    db: Database, claim: Claim, failure: Failure, *, attempt: int | None, since_response_s: float = 0.0
) -> Final | None:
    """Ends the job with ``failure``, unless it is no longer ours."""
    return await _finish(
        db,
        claim.job_id,
        claim_no=claim.claim_no,
        status=JobStatus.TIMED_OUT if isinstance(failure, SyncTimeout) else JobStatus.FAILED,
        code=failure.code,
        detail=failure.detail,
        guard="at.now < expires_at",
        attempt=attempt,
        since_response_s=since_response_s,
        failure=failure,
    )


async def cancel(
    db: Database, job_id: UUID, *, detail: str, guard: str = "true", actor: str | None = None
) -> Final | None:
    """Cancels a pending or running job; its worker aborts the call. ``None``: it is final already. ``actor``: whose
    deed the audit remembers."""
    return await _finish(
        db, job_id, claim_no=None, status=JobStatus.CANCELLED, code="cancelled", detail=detail, guard=guard, actor=actor
    )


async def leave(db: Database, job_id: UUID, *, detail: str) -> Final | None:
    """One request no longer waits for the job; it is cancelled where nobody does. ``None``: it goes on."""
    rows = await db.fetch(
        "UPDATE job SET waiters = waiters - 1 WHERE id = %(id)s AND NOT is_finalized RETURNING waiters", {"id": job_id}
    )
    if not rows or rows[0]["waiters"] > 0:
        return None
    return await cancel(db, job_id, detail=detail, guard="waiters <= 0")  # unless somebody has joined since


def _finish_sql(guard: str) -> str:
    return f"""
    WITH locked AS MATERIALIZED (
        SELECT id, payload_path FROM job WHERE id = %(job_id)s FOR UPDATE
    ), at AS MATERIALIZED (SELECT id, payload_path AS payload_was, clock_timestamp() AS now FROM locked)
    , won AS (
        UPDATE job SET status = %(status)s::job_status, is_finalized = true, finalized_at = at.now,
            failure_reason = %(code)s, failure_detail = %(detail)s,
            retry_at = at.now + %(retry_after_s)s::float8 * interval '1 second', {_KEEP}
        FROM at
        WHERE job.id = at.id AND (%(claim_no)s::int IS NULL OR claim_no = %(claim_no)s::int)
          AND NOT is_finalized AND {guard}
        RETURNING job.id, job.finalized_at, CASE WHEN job.payload_path IS NULL THEN payload_was END AS drop_payload
    ), unsent AS (
        DELETE FROM dramatiq.queue q USING won WHERE q.message_id = won.id AND q.state = 'queued'
    ), {_RESPONDED}, {_ENDED}, logged AS (
        INSERT INTO processing_log (job_id, at, event, detail)
        SELECT id, finalized_at, %(status)s, jsonb_build_object('code', %(code)s::text) FROM won
    )
    SELECT id AS job_id, drop_payload, pg_notify('{JOB_BELL}', id::text),
           pg_notify('{messages.STOP_BELL}', id::text)
    FROM won
    """


async def _finish(
    db: Database,
    job_id: UUID,
    *,
    claim_no: int | None,
    status: JobStatus,
    code: str,
    detail: str,
    guard: str,
    attempt: int | None = None,
    since_response_s: float = 0.0,
    failure: Failure | None = None,
    actor: str | None = None,
) -> Final | None:
    params = {
        "job_id": job_id,
        "claim_no": claim_no,
        "status": status.value,
        "code": code,
        "detail": detail,
        "retry_after_s": failure.retry_after_s if failure else None,
        **_attempt_end(attempt, since_response_s, failure=failure),
    }
    if actor is None:
        rows = await db.fetch(_finish_sql(guard), params, patience_s=FINAL_PATIENCE_S if claim_no is not None else 0.0)
    else:
        async with db.transaction() as connection:
            rows = await fetch(connection, _finish_sql(guard), params)
            if rows:
                await audit.record(connection, actor=actor, action="job.cancelled", target=f"job/{job_id}")
    return Final(rows[0]["job_id"], rows[0]["drop_payload"]) if rows else None


async def close_attempt(
    db: Database, attempt: int, failure: Failure, *, since_response_s: float = 0.0, picture: Picture | None = None
) -> None:
    """Records how an attempt ended that does not end its job: it is tried again, or somebody else has ended it.
    ``picture``: what it made although nobody needs it any more, for what it has cost."""
    await db.fetch(
        f"WITH at AS (SELECT clock_timestamp() AS now), {_RESPONDED} SELECT 1 FROM responded",
        _attempt_end(attempt, since_response_s, picture=picture, failure=failure),
        patience_s=FINAL_PATIENCE_S,
    )


def _attempt_end(
    attempt: int | None, since_response_s: float, *, picture: Picture | None = None, failure: Failure | None = None
) -> dict[str, Any]:
    provider = failure if isinstance(failure, ProviderFailure) else None
    return {
        "attempt": attempt,
        "since_response_s": since_response_s,
        "cause": failure.code if failure else None,
        "attempt_detail": failure.detail if failure else None,
        "model": picture.model if picture else provider.model if provider else None,
        "finish_reason": picture.finish_reason if picture else provider.finish_reason if provider else None,
        "request_id": picture.request_id if picture else provider.request_id if provider else None,
        "cost": picture.cost if picture else provider.cost if provider else 0,
    }


_EXPIRE = f"""
WITH locked AS MATERIALIZED (
    SELECT id, payload_path FROM job
    WHERE NOT is_finalized AND expires_at <= clock_timestamp()
      AND (%(ids)s::uuid[] IS NULL OR id = ANY(%(ids)s::uuid[]))
    ORDER BY expires_at LIMIT {EXPIRE_BATCH} FOR UPDATE SKIP LOCKED
), at AS MATERIALIZED (SELECT id, payload_path AS payload_was, clock_timestamp() AS now FROM locked)
, won AS (
    UPDATE job SET status = 'timed_out', is_finalized = true, finalized_at = at.now,
        failure_reason = 'sync_timeout',
        failure_detail = CASE WHEN claim_no = 0 THEN 'No worker was free in time'
                              ELSE 'The provider did not answer in time' END, {_KEEP}
    FROM at
    WHERE job.id = at.id AND NOT is_finalized AND at.now >= expires_at
    RETURNING job.id, job.finalized_at, CASE WHEN job.payload_path IS NULL THEN payload_was END AS drop_payload
), unsent AS (
    DELETE FROM dramatiq.queue q USING won WHERE q.message_id = won.id AND q.state = 'queued'
), {_ENDED}, logged AS (
    INSERT INTO processing_log (job_id, at, event) SELECT id, finalized_at, 'timed_out' FROM won
)
SELECT id AS job_id, drop_payload, pg_notify('{JOB_BELL}', id::text), pg_notify('{messages.STOP_BELL}', id::text)
FROM won
"""


async def expire(db: Database, job_ids: Iterable[UUID] | None = None) -> list[Final]:
    """Times out overdue jobs: those of ``job_ids``, or any (at most ``EXPIRE_BATCH``)."""
    ids = list(job_ids) if job_ids is not None else None
    rows = await db.fetch(_EXPIRE, {"ids": ids, "attempt": None, "cost": 0})
    return [Final(row["job_id"], row["drop_payload"]) for row in rows]


async def find(db: Database, job_id: UUID) -> Row | None:
    """A job's row as it stands, with ``now``, the database's clock."""
    rows = await db.fetch(
        f"SELECT {_COLUMNS}, clock_timestamp() AS now FROM job WHERE id = %(id)s",
        {"id": job_id},
    )
    return rows[0] if rows else None


async def now(db: Database) -> datetime:
    """The database's clock."""
    instant: datetime = (await db.fetch("SELECT clock_timestamp() AS now"))[0]["now"]
    return instant


FINAL_OF = f"SELECT {_COLUMNS}, clock_timestamp() AS now FROM job WHERE id = ANY(%(ids)s) AND is_finalized"


async def unfinished(db: Database, claims: Mapping[UUID, int]) -> set[UUID]:
    """Which jobs may still be worked on under their claim: not final, not overdue, and claimed by nobody since; or
    timed out so lately that a call of theirs may finish, where their slot keeps late results."""
    rows = await db.fetch(
        "SELECT id FROM job "
        "JOIN unnest(%(ids)s::uuid[], %(claims)s::int[]) AS mine (id, claim_no) USING (id, claim_no) "
        "WHERE (NOT is_finalized AND expires_at > clock_timestamp()) OR ("
        "(NOT is_finalized OR status = 'timed_out') AND (snapshot #>> '{options,keep_late_result}')::boolean "
        "AND expires_at > clock_timestamp() - %(late_s)s * interval '1 second')",
        {"ids": list(claims), "claims": list(claims.values()), "late_s": LATE_S},
    )
    return {row["id"] for row in rows}
