"""All arithmetic on deadlines and lifetimes: pure functions of instants (aware UTC) and durations.

created_at ──T_sync_response──▶ expires_at          no provider call starts after it
created_at ──min(…)──────────▶ ingest/link expiry   never later than expires_at
finalized_at ─T_result_retention─▶ result_expires_at  whatever expires_at was
finalized_at ─T_original_retention─▶ original_expires_at  never later than the result's
"""

from __future__ import annotations

from datetime import datetime, timedelta

#: Seconds kept back to make the result durable and final (a 20 MB file: 0.1 s here; ten times that for a slow disk).
STORE_S = 1.0


def expires_at(created_at: datetime, t_sync_response: timedelta) -> datetime:
    """When the waiting camera must have its answer.

    >>> from datetime import UTC
    >>> expires_at(datetime(2026, 11, 21, 20, 0, tzinfo=UTC), timedelta(seconds=48)).isoformat()
    '2026-11-21T20:00:48+00:00'
    """
    return created_at + t_sync_response


def temporary_expires_at(job_expires_at: datetime, created_at: datetime, t_sync_response: timedelta) -> datetime:
    """The end of an uploaded original's and of a temporary public link's life (``T_ingest_ttl``,
    ``T_public_link_ttl``): ``min(job.expires_at, created_at + T_sync_response)``, so that lengthening either
    afterwards never extends it.

    >>> from datetime import UTC
    >>> start = datetime(2026, 11, 21, 20, 0, tzinfo=UTC)
    >>> temporary_expires_at(start + timedelta(seconds=48), start, timedelta(seconds=60)) - start
    datetime.timedelta(seconds=48)
    """
    return min(job_expires_at, created_at + t_sync_response)


def result_expires_at(finalized_at: datetime, t_result_retention: timedelta) -> datetime:
    """The first instant at which the result answers 410.

    >>> from datetime import UTC
    >>> result_expires_at(datetime(2026, 11, 21, 20, 0, tzinfo=UTC), timedelta(hours=72)).isoformat()
    '2026-11-24T20:00:00+00:00'
    """
    return finalized_at + t_result_retention


def original_expires_at(
    finalized_at: datetime, t_original_retention: timedelta, t_result_retention: timedelta
) -> datetime:
    """When a final job's uploaded photo is deleted: at once by default, never after its result.

    >>> from datetime import UTC
    >>> end = datetime(2026, 11, 21, 20, 0, tzinfo=UTC)
    >>> original_expires_at(end, timedelta(0), timedelta(hours=72)) == end
    True
    >>> original_expires_at(end, timedelta(hours=100), timedelta(hours=72)) - end
    datetime.timedelta(days=3)
    """
    return finalized_at + min(t_original_retention, t_result_retention)


def attempt_budget_s(
    remaining_s: float, *, provider_timeout_s: float | None, store_s: float, next_rung_s: float = 0.0
) -> float:
    """Seconds one provider call may take: what is left, less the time to store the picture and less the usual
    time of the rung that would have to save the guest if this one hangs. Zero means: do not start.

    >>> attempt_budget_s(48.0, provider_timeout_s=None, store_s=0.5)
    47.5
    >>> attempt_budget_s(48.0, provider_timeout_s=30.0, store_s=0.5)
    30.0
    >>> attempt_budget_s(48.0, provider_timeout_s=None, store_s=0.5, next_rung_s=2.0)
    45.5
    >>> attempt_budget_s(0.2, provider_timeout_s=30.0, store_s=0.5)
    0.0
    """
    left = remaining_s - store_s - next_rung_s
    return max(0.0, min(left, provider_timeout_s) if provider_timeout_s is not None else left)
