"""What may still be used of something scarce: permits, calls of a minute or a day, requests, money.

One table, one ``acquire``: everything asked for is taken together, or nothing. A permit belongs to a worker's row and
goes with it when the worker dies; what is counted by time runs out by itself. Money is reserved in its holder's name
until ``release`` says what was spent; of a holder that dies the reservation stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import orjson
import psycopg

from photochanger.db import Database, Row, fetch

#: First key of the advisory locks under which a limit is looked at and taken; the second is the limit's hash.
LOCK = 0x50436C6D
#: Seconds after which a caller asks again where nothing says when.
ASK_AGAIN_S = 0.1
#: Rows deleted in one statement.
BATCH = 1000
#: Limits told of at once, at most: of every provider and slot there are a few.
MOST = 1000

Kind = Literal["permit", "minute", "day", "period"]


@dataclass(frozen=True)
class Limit:
    """At most ``most`` of ``key``, ``amount`` of it wanted now.

    ``permit``: held until it is released. ``minute``: within any 60 seconds (counted by buckets of 5, so that an amount
    is remembered for 60 to 65). ``day``: of the calendar, in the administrator's time zone. ``period``: until
    ``until``, and no limit before ``begins``. ``is_money``: reserved until ``release``; of what is used up nothing is
    had, not even what is expected to cost nothing.
    """

    key: str
    most: float
    kind: Kind
    amount: float = 1.0
    until: datetime | None = None
    begins: datetime | None = None
    is_money: bool = False


@dataclass(frozen=True)
class Standing:
    """How a limit stands after an ``acquire``: what is left, and the seconds until more is."""

    limit: Limit
    left: float
    more_in_s: float


@dataclass(frozen=True)
class Grant:
    """How the limits of what was taken stand."""

    standings: Sequence[Standing] = ()


class Exhausted(Exception):
    """A limit is used up; nothing was taken"""

    def __init__(self, short: Standing, standings: Sequence[Standing]) -> None:
        super().__init__(short.limit.key)
        self.limit = short.limit
        self.retry_after_s = short.more_in_s
        self.standings = standings


# What is forgotten within a minute need not survive a power cut: the next in line does not wait for the disk.
_LOCK = """
SELECT pg_advisory_xact_lock(%(lock)s, hash), set_config('synchronous_commit', %(durable)s, true)
FROM (SELECT DISTINCT hashtext(key) AS hash FROM unnest(%(keys)s::text[]) AS key ORDER BY hash) AS in_order
"""
_TAKE = """
WITH at AS MATERIALIZED (SELECT clock_timestamp() AS now)
, asked AS (
    SELECT key, most, amount, kind, is_money, now, kind = 'permit' OR is_money AS is_held,
        CASE WHEN kind = 'permit' OR is_money THEN %(holder)s
             WHEN kind = 'minute' THEN floor(extract(epoch FROM now) / 5)::bigint::text
             ELSE 'all' END AS holder,
        CASE kind WHEN 'permit' THEN now + %(lasts_s)s * interval '1 second'
                  WHEN 'minute' THEN to_timestamp(floor(extract(epoch FROM now) / 5) * 5 + 65)
                  WHEN 'day' THEN (date_trunc('day', now AT TIME ZONE %(zone)s) + interval '1 day')
                                  AT TIME ZONE %(zone)s
                  ELSE until END AS expires_at
    FROM at, jsonb_to_recordset(%(limits)s::jsonb)
        AS l (key text, most float8, amount float8, kind text, until timestamptz, begins timestamptz, is_money bool)
    WHERE coalesce(begins, now) <= now AND coalesce(until, 'infinity') > now
), standing AS MATERIALIZED (
    SELECT a.*, coalesce(u.used, 0)::float8 AS used, u.frees_at,
           coalesce(u.used, 0) + a.amount <= a.most + 0.0000005 AND NOT (a.is_money AND coalesce(u.used, 0) >= a.most)
           AS fits
    FROM asked a CROSS JOIN LATERAL (
        SELECT sum(amount) AS used, min(expires_at) AS frees_at FROM limit_use u
        WHERE u.key = a.key AND u.expires_at > a.now AND NOT (a.is_held AND u.holder = a.holder)
    ) u
), verdict AS MATERIALIZED (SELECT bool_and(fits) AS granted FROM standing)
, taken AS (
    INSERT INTO limit_use AS u (key, holder, amount, expires_at, worker_id)
    SELECT key, holder, amount, expires_at, CASE kind WHEN 'permit' THEN %(worker)s::int END
    FROM asked, verdict WHERE granted
    ON CONFLICT (key, holder) DO UPDATE SET
        amount = EXCLUDED.amount + CASE WHEN u.holder <> %(holder)s AND u.expires_at > clock_timestamp()
                                        THEN u.amount ELSE 0 END,
        expires_at = EXCLUDED.expires_at
)
SELECT key, used, fits, granted,
       coalesce(extract(epoch FROM coalesce(frees_at, expires_at) - now), 0)::float8 AS more_in_s
FROM standing, verdict
"""


async def acquire(
    db: Database,
    limits: Sequence[Limit],
    *,
    holder: str = "",
    worker_id: int | None = None,
    lasts_s: float = 0.0,
    time_zone: str = "UTC",
) -> Grant:
    """Takes all of ``limits``, or none. Asked again under the same ``holder``, because the answer was lost, permits and
    money are taken once; a call of a minute or a day counts twice then.

    ``holder`` names who holds the permits among them, for ``lasts_s`` seconds at most, and no longer than the worker
    ``worker_id`` lives; and the money.

    Raises:
        Exhausted: one of them is used up.
        Unavailable: PostgreSQL cannot be reached.
    """
    if not limits:
        return Grant()
    params = {
        "lock": LOCK,
        "keys": [limit.key for limit in limits],
        "durable": "off" if all(limit.kind == "minute" for limit in limits) else "on",
        "limits": orjson.dumps(limits).decode(),
        "holder": holder,
        "worker": worker_id,
        "lasts_s": lasts_s,
        "zone": time_zone,
    }
    try:
        async with db.transaction() as connection:
            await connection.execute(_LOCK.encode(), params)  # what comes after it sees what others took before
            rows = {row["key"]: row for row in await fetch(connection, _TAKE, params)}
    except psycopg.errors.ForeignKeyViolation:  # our worker was taken for dead; it is about to find out
        standings = [Standing(limit, 0.0, ASK_AGAIN_S) for limit in limits]
        raise Exhausted(standings[0], standings) from None
    granted = all(row["granted"] for row in rows.values())
    standings = [_standing(limit, rows[limit.key], granted) for limit in limits if limit.key in rows]
    if not granted:
        raise Exhausted(next(one for one in standings if not rows[one.limit.key]["fits"]), standings)
    return Grant(standings)


def _standing(limit: Limit, row: dict[str, float], granted: bool) -> Standing:
    left = limit.most - row["used"] - (limit.amount if granted else 0.0)
    soon = limit.kind == "permit"  # when a permit comes back is not written anywhere
    return Standing(limit, max(0.0, round(left, 6)), ASK_AGAIN_S if soon else row["more_in_s"])


_RELEASE = """
WITH freed AS (
    DELETE FROM limit_use WHERE holder = %(holder)s AND key = ANY(%(keys)s) RETURNING key, amount, expires_at
)
INSERT INTO limit_use AS u (key, holder, amount, expires_at)
SELECT key, 'all', coalesce(%(spent)s, amount), expires_at FROM freed
WHERE key = ANY(%(money)s) AND expires_at > clock_timestamp() ORDER BY key
ON CONFLICT (key, holder) DO UPDATE SET
    amount = EXCLUDED.amount + CASE WHEN u.expires_at > clock_timestamp() THEN u.amount ELSE 0 END,
    expires_at = EXCLUDED.expires_at
"""


async def release(
    db: Database, limits: Sequence[Limit], *, holder: str, spent: float | None, patience_s: float = 0.0
) -> None:
    """Gives ``holder``'s permits back; of the money reserved ``spent`` is used, all of it where nobody knows
    (``None``). Of what is not held nothing changes: it may be said twice."""
    held = [limit.key for limit in limits if limit.kind == "permit" or limit.is_money]
    if not held:
        return
    money = [limit.key for limit in limits if limit.is_money]
    await db.fetch(_RELEASE, {"holder": holder, "keys": held, "money": money, "spent": spent}, patience_s=patience_s)


async def in_use(db: Database) -> list[Row]:
    """What is used now, by key: the amount, and when the first of it comes back. Not of single addresses, which are
    as many as there are guests; at most ``MOST``."""
    return await db.fetch(
        "SELECT key, sum(amount)::float8 AS used, min(expires_at) AS frees_at FROM limit_use "
        "WHERE expires_at > clock_timestamp() AND key !~ '^[a-z]+/address/' GROUP BY key ORDER BY key LIMIT %(most)s",
        {"most": MOST},
    )


_SWEEP = f"""
DELETE FROM limit_use WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM limit_use WHERE expires_at <= clock_timestamp() LIMIT {BATCH} FOR UPDATE SKIP LOCKED
)) RETURNING 1 AS gone
"""  # noqa: S608 - our own constant


async def sweep(db: Database) -> int:
    """Deletes what has run out."""
    gone = 0
    while rows := await db.fetch(_SWEEP):
        gone += len(rows)
    return gone
