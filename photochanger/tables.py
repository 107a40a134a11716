"""The row classes, nothing else. Instants are ``timestamptz`` from the database clock; pictures are storage keys."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Enum,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    SmallInteger,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from photochanger.states import JobStatus

NOW = func.clock_timestamp()


class Row(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it as it stands
        datetime: DateTime(timezone=True),
        str: Text(),
        dict[str, Any]: JSONB(),
        list[str]: ARRAY(Text()),
        Any: JSONB(),
        Decimal: Numeric(18, 6),
    }


class AppSetting(Row):
    """One administrator's setting (see ``settings.py`` for names, defaults and bounds)."""

    __tablename__ = "app_settings"
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[Any]
    updated_at: Mapped[datetime] = mapped_column(server_default=NOW)


class Account(Row):
    """Somebody who may sign in."""

    __tablename__ = "account"
    name: Mapped[str] = mapped_column(primary_key=True)
    password_hash: Mapped[str]
    must_change: Mapped[bool] = mapped_column(server_default=text("true"))
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    permissions: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))
    is_active: Mapped[bool] = mapped_column(server_default=text("true"))
    #: Of the pages; NULL: the browser's.
    language: Mapped[str | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=NOW)

    __table_args__ = (CheckConstraint("language IN ('en', 'ru')", name="language"),)


class Session(Row):
    """Somebody signed in (``sessions.py``). The tokens that name it are signed, and are nowhere in the database."""

    __tablename__ = "session"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    account: Mapped[str] = mapped_column(ForeignKey("account.name", ondelete="CASCADE"), index=True)
    kind: Mapped[str]
    #: How often its refresh token was exchanged for the next one.
    generation: Mapped[int] = mapped_column(server_default=text("0"))
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    last_used_at: Mapped[datetime] = mapped_column(server_default=NOW)
    expires_at: Mapped[datetime] = mapped_column(index=True)
    revoked_at: Mapped[datetime | None]
    address: Mapped[str]
    user_agent: Mapped[str]

    __table_args__ = (CheckConstraint("kind IN ('api', 'browser')", name="kind"),)


class LoginFailure(Row):
    """Somebody tried to sign in and gave a wrong password, or has one being looked at."""

    __tablename__ = "login_failure"
    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    account: Mapped[str]
    address: Mapped[str]
    at: Mapped[datetime] = mapped_column(server_default=NOW, index=True)

    __table_args__ = (
        Index("ix_login_failure_account_at", "account", "at"),
        Index("ix_login_failure_address_at", "address", "at"),
    )


class Audit(Row):
    """Who did what to what, from where (``audit.py``). No actor: nobody was signed in."""

    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=NOW)
    actor: Mapped[str | None]
    #: Compared byte by byte, so that an index finds a prefix.
    action: Mapped[str] = mapped_column(Text(collation="C"))
    target: Mapped[str]
    detail: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    address: Mapped[str | None]
    request_id: Mapped[str | None]

    __table_args__ = (
        Index("ix_audit_at", "at", "id"),
        Index("ix_audit_actor_at", "actor", "at", "id"),
        Index("ix_audit_action_at", "action", "at", "id"),
        Index("ix_audit_target_at", "target", "at", "id"),
        Index("ix_audit_rerun_of", text("(detail->>'of')"), postgresql_where=text("action = 'job.rerun'")),
    )


class TemplateMedia(Row):
    """A permanent reference picture that slot settings point at by id."""

    __tablename__ = "template_media"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    storage_key: Mapped[str]
    mime: Mapped[str]
    width: Mapped[int]
    height: Mapped[int]
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)


class ProviderSecret(Row):
    """A provider's key, sealed under a data key of its own, and that under a master key (``vault.py``)."""

    __tablename__ = "provider_secret"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    provider: Mapped[str] = mapped_column(unique=True)
    key_id: Mapped[str]
    wrapped_key: Mapped[bytes]
    sealed: Mapped[bytes]
    updated_at: Mapped[datetime] = mapped_column(server_default=NOW)


class SlotRow(Row):
    """A named configuration with a stable id; ``version`` counts its saves."""

    __tablename__ = "slot"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    is_active: Mapped[bool]
    archived_at: Mapped[datetime | None]
    version: Mapped[int] = mapped_column(server_default=text("1"))
    route: Mapped[dict[str, Any]]
    options: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    updated_at: Mapped[datetime] = mapped_column(server_default=NOW)


class Job(Row):
    """One photo's way through the system; the only truth about it. Its id is also its message's id."""

    __tablename__ = "job"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    slot_id: Mapped[str] = mapped_column(ForeignKey("slot.id"))
    status: Mapped[JobStatus] = mapped_column(
        Enum(JobStatus, name="job_status", values_callable=lambda states: [state.value for state in states])
    )
    is_finalized: Mapped[bool] = mapped_column(server_default=text("false"))
    failure_reason: Mapped[str | None]
    failure_detail: Mapped[str | None]
    #: When it is worth coming back, where the failure says so.
    retry_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    claimed_at: Mapped[datetime | None]
    finalized_at: Mapped[datetime | None]
    claim_no: Mapped[int] = mapped_column(server_default=text("0"))
    #: An administrator tries the slot: no guest's picture.
    is_test: Mapped[bool] = mapped_column(server_default=text("false"))
    #: Requests that wait for it: the one that made it, and those of the same photo that have joined.
    waiters: Mapped[int] = mapped_column(server_default=text("1"))
    #: What its attempts have cost, in the currency of the providers' prices.
    cost: Mapped[Decimal] = mapped_column(server_default=text("0"))
    snapshot: Mapped[dict[str, Any]]
    #: What the camera sent beside the photo; never interpreted.
    fields: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    payload_path: Mapped[str | None]
    payload_mime: Mapped[str]
    payload_bytes: Mapped[int] = mapped_column(BigInteger)
    payload_sha256: Mapped[str]
    payload_expires_at: Mapped[datetime | None]
    result_file_path: Mapped[str | None]
    result_mime: Mapped[str | None]
    result_bytes: Mapped[int | None] = mapped_column(BigInteger)
    result_sha256: Mapped[str | None]
    result_width: Mapped[int | None]
    result_height: Mapped[int | None]
    result_expires_at: Mapped[datetime | None]
    served_by: Mapped[str | None]
    #: ``<provider>/<its own id>`` of what is paid for and not fetched yet.
    provider_job_reference: Mapped[str | None]

    __table_args__ = (
        CheckConstraint(
            "is_finalized = (status NOT IN ('pending', 'processing'))"
            " AND is_finalized = (finalized_at IS NOT NULL)"
            " AND CASE status WHEN 'succeeded' THEN result_sha256 IS NOT NULL"
            " WHEN 'timed_out' THEN true ELSE result_sha256 IS NULL END"
            " AND (status IN ('failed', 'timed_out', 'cancelled')) = (failure_reason IS NOT NULL)",
            name="final_is_whole",
        ),
        Index("ix_job_open_expires_at", "expires_at", postgresql_where=text("NOT is_finalized")),
        Index("ix_job_result_expires_at", "result_expires_at", postgresql_where=text("result_file_path IS NOT NULL")),
        Index(
            "ix_job_payload_expires_at",
            "payload_expires_at",
            postgresql_where=text("payload_path IS NOT NULL AND is_finalized"),
        ),
        Index("ix_job_slot_id_created_at", "slot_id", "created_at"),
        Index("ix_job_created_at", "created_at"),
        Index("ix_job_pictures", "slot_id", "created_at", postgresql_where=text("result_file_path IS NOT NULL")),
        Index("ix_job_failures", "slot_id", "created_at", postgresql_where=text("failure_reason IS NOT NULL")),
    )


class MediaObject(Row):
    """A temporary public copy of a picture that a provider fetches by URL; no key: its file is gone; no job: an
    administrator registered it."""

    __tablename__ = "media_object"
    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[UUID | None] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), index=True)
    storage_key: Mapped[str | None]
    mime: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]

    __table_args__ = (
        Index("ix_media_object_live_expires_at", "expires_at", postgresql_where=text("storage_key IS NOT NULL")),
    )


class GalleryShare(Row):
    """A window in which guests may look at the pictures of a slot, or of all (``galleries.py``)."""

    __tablename__ = "gallery_share"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    slot_id: Mapped[str | None] = mapped_column(ForeignKey("slot.id"))
    opened_by: Mapped[str]
    opened_at: Mapped[datetime] = mapped_column(server_default=NOW)
    expires_at: Mapped[datetime] = mapped_column(index=True)
    closed_at: Mapped[datetime | None]


class Attempt(Row):
    """One provider call."""

    __tablename__ = "attempt"
    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), index=True)
    claim_no: Mapped[int]
    rung: Mapped[int]
    provider: Mapped[str]
    operation: Mapped[str]
    model: Mapped[str | None]
    dispatched_at: Mapped[datetime] = mapped_column(server_default=NOW)
    responded_at: Mapped[datetime | None]
    #: A failure code; NULL while it runs and for a success.
    cause: Mapped[str | None]
    detail: Mapped[str | None]
    finish_reason: Mapped[str | None]
    request_id: Mapped[str | None]
    cost: Mapped[Decimal] = mapped_column(server_default=text("0"))


class ProcessingLog(Row):
    """The events of a job, in order (``states.JobEvent``)."""

    __tablename__ = "processing_log"
    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), index=True)
    at: Mapped[datetime] = mapped_column(server_default=NOW)
    event: Mapped[str]
    detail: Mapped[dict[str, Any] | None]


class Lease(Row):
    """A right that one process at a time holds until ``expires_at``."""

    __tablename__ = "lease"
    name: Mapped[str] = mapped_column(primary_key=True)
    holder: Mapped[str]
    expires_at: Mapped[datetime]


class ScheduledRun(Row):
    """When a scheduled task last ran, and what it did."""

    __tablename__ = "scheduled_run"
    name: Mapped[str] = mapped_column(primary_key=True)
    last_run_at: Mapped[datetime]
    last_result: Mapped[dict[str, Any]]


class Message(Row):
    """dramatiq-pg's queue table, with what our consumer adds behind its own columns."""

    __tablename__ = "queue"
    message_id: Mapped[UUID] = mapped_column(primary_key=True)
    queue_name: Mapped[str] = mapped_column(server_default=text("'default'"))
    state: Mapped[str | None] = mapped_column(
        Enum("queued", "consumed", "rejected", "done", name="state", schema="dramatiq")
    )
    mtime: Mapped[datetime | None] = mapped_column(server_default=text("(now() AT TIME ZONE 'UTC')"))
    message: Mapped[Any | None]
    result: Mapped[Any | None]
    result_ttl: Mapped[datetime | None]
    #: Smaller goes first.
    priority: Mapped[int] = mapped_column(server_default=text("0"))
    #: Not before this instant; FIFO among equals.
    due_at: Mapped[datetime] = mapped_column(server_default=NOW)
    worker_id: Mapped[int | None]
    leased_at: Mapped[datetime | None]
    #: The provider that is asked first. A lane with a width (``Lane``) is claimed no wider than that (two workers in
    #: the same instant may, and permits then decide), so that photos which wait for one provider hold no thread; from
    #: ``lane_until`` on they are claimed all the same, for the rest of their route.
    lane: Mapped[str] = mapped_column(server_default=text("''"))
    lane_until: Mapped[datetime | None]
    #: Seconds a thread is expected to be busy with it.
    work_s: Mapped[float] = mapped_column(server_default=text("0"))

    __table_args__ = (
        # A stock dramatiq-pg consumer sets ``mtime`` without ``leased_at``: it must never run on this table.
        CheckConstraint("state <> 'consumed' OR leased_at IS NOT DISTINCT FROM mtime", name="ours_only"),
        Index("ix_queue_ready", "queue_name", "priority", "due_at", postgresql_where=text("state = 'queued'")),
        Index("ix_queue_leased", "worker_id", postgresql_where=text("state = 'consumed'")),
        {"schema": "dramatiq"},
    )


class WorkerRow(Row):
    """One live worker process: its heartbeat, which is the lease on everything it has claimed."""

    __tablename__ = "worker"
    id: Mapped[int] = mapped_column(Integer, Identity(), primary_key=True)
    host: Mapped[str]
    pid: Mapped[int]
    threads: Mapped[int]
    started_at: Mapped[datetime] = mapped_column(server_default=NOW)
    beat_at: Mapped[datetime] = mapped_column(server_default=NOW)
    draining: Mapped[bool] = mapped_column(server_default=text("false"))

    __table_args__ = ({"schema": "dramatiq"},)


class Lane(Row):
    """How many messages of a lane may be in hand at once, over all workers: its provider's concurrent calls."""

    __tablename__ = "lane"
    name: Mapped[str] = mapped_column(primary_key=True)
    width: Mapped[int]

    __table_args__ = ({"schema": "dramatiq"},)


class LimitUse(Row):
    """What is used of a limit, by whom, and until when: permits, calls of a minute or day, money (``limits.py``).
    Permits go with the row of the worker that holds them."""

    __tablename__ = "limit_use"
    key: Mapped[str] = mapped_column(primary_key=True)
    holder: Mapped[str] = mapped_column(primary_key=True)
    amount: Mapped[Decimal]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    worker_id: Mapped[int | None] = mapped_column(ForeignKey("dramatiq.worker.id", ondelete="CASCADE"))

    __table_args__ = (Index("ix_limit_use_worker_id", "worker_id", postgresql_where=text("worker_id IS NOT NULL")),)


class Breaker(Row):
    """A provider that fails: how often in a row, and until when it is not asked (``breakers.py``)."""

    __tablename__ = "breaker"
    provider: Mapped[str] = mapped_column(primary_key=True)
    failures: Mapped[int]
    failed_at: Mapped[datetime]
    openings: Mapped[int] = mapped_column(server_default=text("0"))
    #: NULL: it is asked as usual.
    open_until: Mapped[datetime | None]
    #: While somebody tries whether it is well again.
    probe_until: Mapped[datetime | None]
    cause: Mapped[str]
    detail: Mapped[str]


class UsualTime(Row):
    """How long recent calls took and what they cost, by provider, operation and model (``usual.py``)."""

    __tablename__ = "usual_time"
    provider: Mapped[str] = mapped_column(primary_key=True)
    operation: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    calls: Mapped[int]
    p50_s: Mapped[float]
    p90_s: Mapped[float]
    mean_s: Mapped[float]
    mean_cost: Mapped[Decimal]
    measured_at: Mapped[datetime] = mapped_column(server_default=NOW)


class RequestKey(Row):
    """Which job answers a photo that comes again, or an Idempotency-Key; the key's uniqueness decides the race."""

    __tablename__ = "request_key"
    key: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[UUID]
    payload_sha256: Mapped[str]
    expires_at: Mapped[datetime] = mapped_column(index=True)


class JobEnded(Row):
    """A final job that is in no rollup yet (``stats.py``): written by the statement that ended it, deleted by the one
    that counts it. No foreign key: it would cost every ending a look-up, and ``retention`` asks before it deletes."""

    __tablename__ = "job_ended"
    job_id: Mapped[UUID] = mapped_column(primary_key=True)


class JobRollup(Row):
    """How many jobs ended how within an hour or a day, and what they cost (``stats.py``)."""

    __tablename__ = "job_rollup"
    #: Empty for an hour; for a day the time zone whose day it is.
    zone: Mapped[str] = mapped_column(primary_key=True)
    #: Empty for all slots together.
    slot_id: Mapped[str] = mapped_column(primary_key=True)
    began_at: Mapped[datetime] = mapped_column(primary_key=True)
    provider: Mapped[str] = mapped_column(primary_key=True)
    outcome: Mapped[str] = mapped_column(primary_key=True)
    jobs: Mapped[int] = mapped_column(BigInteger)
    cost: Mapped[Decimal] = mapped_column(Numeric(16, 6))

    #: With everything in the index a year is read from pages that lie side by side.
    __table_args__ = (
        PrimaryKeyConstraint("zone", "slot_id", "began_at", "provider", "outcome", postgresql_include=["jobs", "cost"]),
    )


class TimeRollup(Row):
    """How many of those jobs took a time of the histogram's bucket: in all, in the queue, at providers."""

    __tablename__ = "time_rollup"
    zone: Mapped[str] = mapped_column(primary_key=True)
    slot_id: Mapped[str] = mapped_column(primary_key=True)
    began_at: Mapped[datetime] = mapped_column(primary_key=True)
    bucket: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    total: Mapped[int] = mapped_column(BigInteger)
    queue_wait: Mapped[int] = mapped_column(BigInteger)
    provider: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (
        PrimaryKeyConstraint(
            "zone", "slot_id", "began_at", "bucket", postgresql_include=["total", "queue_wait", "provider"]
        ),
    )


class StatsReset(Row):
    """Since when a slot's own statistics are counted."""

    __tablename__ = "stats_reset"
    slot_id: Mapped[str] = mapped_column(ForeignKey("slot.id", ondelete="CASCADE"), primary_key=True)
    at: Mapped[datetime]


class JobSearch(Row):
    """What a finished job is found by (``job_list.py``); written when it is rolled up, away from the photo's way."""

    __tablename__ = "job_search"
    job_id: Mapped[UUID] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    created_at: Mapped[datetime]
    slot_id: Mapped[str]
    outcome: Mapped[str]
    #: Those that were called or have served, sorted, with commas between.
    providers: Mapped[str]
    #: Of the camera's fields, the failure's detail, and the providers' ids of the calls.
    words: Mapped[list[str]] = mapped_column(ARRAY(Text))

    __table_args__ = (
        Index("ix_job_search_kind", "slot_id", "outcome", "providers", "created_at", "job_id"),
        Index("ix_job_search_created_at", "created_at", "job_id"),
        Index("ix_job_search_words", "words", postgresql_using="gin"),
    )
