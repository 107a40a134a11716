"""What may still be used of something scarce: permits, calls of a minute or a day, requests, money.

One table, one ``acquire``: everything asked for is taken together, or nothing. A permit belongs to a worker's row and
goes with it when the worker dies; what is counted by time runs out by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import orjson
import psycopg

from photochanger.db import Database, fetch

#: First key of the advisory locks under which a limit is looked at and taken; the second is the limit's hash.
LOCK = 0x50436C6D
#: Seconds after which a caller asks again where nothing says when.
ASK_AGAIN_S = 0.1

Kind = Literal["permit", "minute", "day", "period"]


@dataclass(frozen=True)
class Limit:
    """At most ``most`` of ``key``, ``amount`` of it wanted now.

    ``permit``: held until it is released. ``minute``: within any 60 seconds (counted by buckets of 5, so that an amount
    is remembered for 60 to 65). ``day``: of the calendar, in the administrator's time zone. ``period``: until
    ``until``, and no limit before ``begins``.
    """

    key: str
    most: float
    kind: Kind
    amount: float = 1.0
    until: datetime | None = None
    begins: datetime | None = None


@dataclass(frozen=True)
class Standing:
    """How a limit stands after an ``acquire``: what is left, and the seconds until more is."""

    limit: Limit
    left: float
    more_in_s: float


@dataclass(frozen=True)
class Grant:
    """What was taken: its rows, to be released, and how the limits stand."""

    rows: Sequence[tuple[str, str]] = ()
    standings: Sequence[Standing] = field(default=())


class Exhausted(Exception):
    """A limit is used up; nothing was taken"""

    def __init__(self, short: Standing, standings: Sequence[Standing]) -> None:
        super().__init__(short.limit.key)
        self.limit = short.limit
        self.retry_after_s = short.more_in_s
        self.standings = standings


_LOCK = """
SELECT pg_advisory_xact_lock(%(lock)s, hash)
FROM (SELECT DISTINCT hashtext(key) AS hash FROM unnest(%(keys)s::text[]) AS key ORDER BY hash) AS in_order
"""
_TAKE = """
WITH at AS MATERIALIZED (SELECT clock_timestamp() AS now)
, asked AS (
    SELECT key, most, amount, kind, now,
        CASE kind WHEN 'permit' THEN %(holder)s
                  WHEN 'minute' THEN floor(extract(epoch FROM now) / 5)::bigint::text
                  WHEN 'day' THEN to_char(now AT TIME ZONE %(zone)s, 'YYYY-MM-DD')
                  ELSE 'whole' END AS holder,
        CASE kind WHEN 'permit' THEN now + %(lasts_s)s * interval '1 second'
                  WHEN 'minute' THEN to_timestamp(floor(extract(epoch FROM now) / 5) * 5 + 65)
                  WHEN 'day' THEN (date_trunc('day', now AT TIME ZONE %(zone)s) + interval '1 day')
                                  AT TIME ZONE %(zone)s
                  ELSE until END AS expires_at
    FROM at, jsonb_to_recordset(%(limits)s::jsonb)
        AS l (key text, most float8, amount float8, kind text, until timestamptz, begins timestamptz)
    WHERE coalesce(begins, now) <= now AND coalesce(until, 'infinity') > now
), standing AS MATERIALIZED (
    SELECT a.key, coalesce(sum(u.amount), 0)::float8 AS used, min(u.expires_at) AS frees_at
    FROM asked a LEFT JOIN limit_use u ON u.key = a.key AND u.expires_at > a.now GROUP BY a.key
), verdict AS MATERIALIZED (
    SELECT bool_and(s.used + a.amount <= a.most + 0.0000005) AS granted FROM asked a JOIN standing s USING (key)
), taken AS (
    INSERT INTO limit_use AS u (key, holder, amount, expires_at, worker_id)
    SELECT key, holder, amount, expires_at, CASE kind WHEN 'permit' THEN %(worker)s::int END
    FROM asked, verdict WHERE granted
    ON CONFLICT (key, holder) DO UPDATE SET
        amount = EXCLUDED.amount + CASE WHEN u.expires_at > clock_timestamp() THEN u.amount ELSE 0 END,
        expires_at = EXCLUDED.expires_at
)
SELECT a.key, a.holder, s.used, granted,
       coalesce(extract(epoch FROM coalesce(s.frees_at, a.expires_at) - a.now), 0)::float8 AS more_in_s
FROM asked a JOIN standing s USING (key), verdict
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
    """Takes all of ``limits``, or none.

    ``holder`` names who holds the permits among them, for ``lasts_s`` seconds at most, and no longer than the worker
    ``worker_id`` lives.

    Raises:
        Exhausted: one of them is used up.
        Unavailable: PostgreSQL cannot be reached.
    """
    if not limits:
        return Grant()
    params = {
        "lock": LOCK,
        "keys": [limit.key for limit in limits],
        "limits": orjson.dumps([_row(limit) for limit in limits]).decode(),
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
        raise Exhausted(next(one for one in standings if one.left < one.limit.amount), standings)
    return Grant([(key, row["holder"]) for key, row in rows.items()], standings)


def _row(limit: Limit) -> dict[str, object]:
    return {
        "key": limit.key,
        "most": limit.most,
        "amount": limit.amount,
        "kind": limit.kind,
        "until": limit.until,
        "begins": limit.begins,
    }


def _standing(limit: Limit, row: dict[str, float], granted: bool) -> Standing:
    left = limit.most - row["used"] - (limit.amount if granted else 0.0)
    soon = limit.kind == "permit"  # when a permit comes back is not written anywhere
    return Standing(limit, max(0.0, round(left, 6)), ASK_AGAIN_S if soon else row["more_in_s"])


_RELEASE = """
WITH ours AS (SELECT * FROM unnest(%(keys)s::text[], %(holders)s::text[]) AS o (key, holder))
, freed AS (
    DELETE FROM limit_use u USING ours o WHERE u.key = o.key AND u.holder = o.holder AND u.holder = %(holder)s
)
UPDATE limit_use u SET amount = greatest(0, u.amount + %(more)s)
FROM ours o WHERE u.key = o.key AND u.holder = o.holder AND o.key = ANY(%(money)s) AND %(more)s::float8 <> 0
"""


async def release(db: Database, grant: Grant, *, holder: str, more: float = 0.0, patience_s: float = 0.0) -> None:
    """Gives ``holder``'s permits back, and puts right what was taken of money by ``more``."""
    money = [one.limit.key for one in grant.standings if one.limit.key.startswith("budget/")]
    if not grant.rows:
        return
    keys, holders = zip(*grant.rows, strict=True)
    params = {"keys": list(keys), "holders": list(holders), "holder": holder, "money": money, "more": more}
    await db.fetch(_RELEASE, params, patience_s=patience_s)


async def in_use(db: Database) -> list[dict[str, object]]:
    """What is used now, by key: the amount, and when the first of it comes back."""
    return await db.fetch(
        "SELECT key, sum(amount)::float8 AS used, min(expires_at) AS frees_at FROM limit_use "
        "WHERE expires_at > clock_timestamp() GROUP BY key ORDER BY key"
    )


async def sweep(db: Database) -> int:
    """Deletes what has run out."""
    rows = await db.fetch("DELETE FROM limit_use WHERE expires_at <= clock_timestamp() RETURNING 1 AS gone")
    return len(rows)
