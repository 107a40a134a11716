"""Whether a provider is asked at all: its circuit breaker, one row for all processes.

Closed (no row, or one without ``open_until``) → open after ``FAILURES`` outages in a row, or at once when the key is
not accepted or the quota is used up → after a pause one call at a time tries whether it is well again.
"""

from __future__ import annotations

from photochanger import audit, logs
from photochanger.db import Database, Row, fetch
from photochanger.failures import (
    Failure,
    InvalidSettings,
    ProviderAuth,
    ProviderBadOutput,
    ProviderError,
    ProviderFailure,
    ProviderQuota,
    from_code,
)

#: Outages in a row, each within ``IN_A_ROW_S`` of the one before.
FAILURES = 5
IN_A_ROW_S = 60.0
#: Seconds of the first pause; every trial that fails doubles it, up to ``LONGEST_PAUSE_S``.
PAUSE_S = 5.0
LONGEST_PAUSE_S = 60.0
#: A wrong key is put right by somebody (``reset``), a quota by the clock.
AT_ONCE_PAUSE_S = 60.0
#: Seconds after which a trial that nobody reported back is forgotten.
PROBE_S = 75.0

_ASK = f"""
WITH probe AS (
    UPDATE breaker SET probe_until = clock_timestamp() + interval '{PROBE_S} seconds'
    WHERE provider = %(provider)s AND open_until <= clock_timestamp()
      AND coalesce(probe_until, '-infinity') <= clock_timestamp()
    RETURNING provider
)
SELECT failures, cause, detail, open_until IS NOT NULL AS open, EXISTS (SELECT FROM probe) AS probing,
       greatest(extract(epoch FROM open_until - clock_timestamp()), 1)::float8 AS left_s
FROM breaker WHERE provider = %(provider)s
"""  # noqa: S608 - our own constant


async def ask(db: Database, provider: str) -> bool:
    """Whether this call is the trial that decides.

    Raises:
        ProviderError, ProviderAuth, ProviderQuota: the breaker is open; as the failure that opened it.
        Unavailable: PostgreSQL cannot be reached.
    """
    rows = await db.fetch(_ASK, {"provider": provider})
    if not rows or not rows[0]["open"]:
        return False
    if rows[0]["probing"]:
        return True
    raise _open(provider, rows[0])


def _open(provider: str, row: Row) -> Failure:
    words = f"{provider} is not asked for the next {row['left_s']:.0f} s, after: {row['detail']}"
    failure = from_code(row["cause"], words)
    if not isinstance(failure, ProviderFailure):
        failure = ProviderError(words)
    failure.retry_after_s = row["left_s"]
    failure.retryable = False
    return failure


_IN_A_ROW = f"b.failed_at > clock_timestamp() - interval '{IN_A_ROW_S} seconds'"
#: While it is open already, calls that were under way change nothing.
_OPENS = f"""
coalesce(b.open_until <= clock_timestamp(), true)
AND (%(at_once)s OR b.open_until IS NOT NULL OR (b.failures + 1 >= {FAILURES} AND {_IN_A_ROW}))
"""
_FAILED = f"""
INSERT INTO breaker AS b (provider, failures, failed_at, openings, open_until, cause, detail)
VALUES (%(provider)s, 1, clock_timestamp(), %(at_once)s::int,
        CASE WHEN %(at_once)s THEN clock_timestamp() + %(pause_s)s * interval '1 second' END, %(cause)s, %(detail)s)
ON CONFLICT (provider) DO UPDATE SET
    failures = CASE WHEN {_IN_A_ROW} OR b.open_until IS NOT NULL THEN b.failures + 1 ELSE 1 END,
    failed_at = clock_timestamp(), cause = EXCLUDED.cause, detail = EXCLUDED.detail,
    probe_until = CASE WHEN b.open_until > clock_timestamp() THEN b.probe_until END,
    openings = b.openings + CASE WHEN {_OPENS} THEN 1 ELSE 0 END,
    open_until = CASE WHEN {_OPENS}
        THEN clock_timestamp() + interval '1 second' * least(%(pause_s)s * 2 ^ least(b.openings, 10), {LONGEST_PAUSE_S})
        ELSE b.open_until END
RETURNING extract(epoch FROM open_until - clock_timestamp())::float8 AS pause_s
"""  # noqa: S608 - our own constants


async def report(db: Database, provider: str, failure: Failure | None, *, trial: bool = False) -> None:
    """How a call ended; ``trial``: one that decides. Whatever shows that the provider is well closes its breaker; what
    shows neither, like a call that was cut off, changes nothing."""
    at_once = isinstance(failure, ProviderAuth) or (isinstance(failure, ProviderQuota) and not failure.retry_after_s)
    outage = isinstance(failure, ProviderError | ProviderBadOutput) and failure.retryable
    if failure is None or not (at_once or outage):
        well = failure is None or isinstance(failure, ProviderFailure | InvalidSettings)
        if not well or isinstance(failure, ProviderQuota):  # a limit of this minute says neither
            if trial:
                await give_up_trial(db, provider)
            return
        closed = await db.fetch("DELETE FROM breaker WHERE provider = %(p)s RETURNING open_until", {"p": provider})
        if closed and closed[0]["open_until"] is not None:
            logs.event("breaker.closed", provider=provider)
        return
    pause_s = AT_ONCE_PAUSE_S if at_once else PAUSE_S
    params = {
        "provider": provider,
        "at_once": at_once,
        "pause_s": pause_s,
        "cause": failure.code,
        "detail": failure.detail,
    }
    row = (await db.fetch(_FAILED, params))[0]
    if row["pause_s"] is not None:
        logs.event(
            "breaker.open",
            provider=provider,
            cause=failure.code,
            detail=failure.detail,
            pause_s=round(row["pause_s"], 1),
        )


async def give_up_trial(db: Database, provider: str) -> None:
    """A trial was not made, or has shown nothing: somebody else may make one."""
    await db.fetch("UPDATE breaker SET probe_until = NULL WHERE provider = %(p)s", {"p": provider})


async def reset(db: Database, provider: str, *, actor: str | None = None) -> bool:
    """Closes a breaker because somebody (``actor``) has put right what opened it; False where there was nothing to
    close."""
    async with db.transaction() as connection:
        was = await fetch(connection, "DELETE FROM breaker WHERE provider = %(p)s RETURNING 1 AS was", {"p": provider})
        if was and actor is not None:
            await audit.record(connection, actor=actor, action="breaker.reset", target=f"provider/{provider}")
    return bool(was)


async def standing(db: Database) -> list[Row]:
    """Every provider that has failed since it last answered, with the seconds until it is asked again."""
    return await db.fetch(
        "SELECT provider, failures, cause, detail, failed_at, open_until IS NOT NULL AS open, "
        "greatest(extract(epoch FROM open_until - clock_timestamp()), 0)::float8 AS left_s FROM breaker "
        "ORDER BY provider"
    )
