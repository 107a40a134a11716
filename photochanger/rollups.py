"""Which finished jobs are counted when, and under what: every one once, by the hour and by the day.

The statement that ends a job writes its id into ``job_ended``; the one that counts it deletes it there. Both are
atomic, so a job is counted once whatever is late or dies, and is kept until it is counted. It waits there for the end
of its last call, because that one's cost and picture may come after the job's end. Rows of no slot are those of all
slots: they stay when a slot's statistics are begun anew.
"""

from __future__ import annotations

import math
from typing import Any

from psycopg import AsyncConnection

from photochanger import settings
from photochanger.db import Database, fetch
from photochanger.jobs import FINAL_PATIENCE_S, LATE_S

#: Advisory lock of whoever counts, or forgets what was counted.
LOCK = 0x70635F72
BATCH = 1000
#: Batches of one run, so that it ends within seconds however much is left.
MOST_BATCHES = 20
#: Jobs whose end is not counted yet that a reader looks at: more are there only when nobody has counted for long.
MOST_NEW = 2000
#: Seconds after a job's end before it is counted: an attempt that was begun in the same instant is committed by then.
SETTLED_S = 2.0
#: Seconds after which a job is counted although a call of it never ended: by then nobody tries to record that end.
ABANDONED_S = LATE_S + 2 * FINAL_PATIENCE_S

BUCKETS = 128
FIRST_S = 0.001
STEP = 1.1

#: What lies between the words that a job is found by.
GAPS = r"""[\s!"#$%&'()*+,./:;<=>?@\[\\\]^`{|}~]+"""
MOST_WORDS = 64
LONGEST_WORD = 64
#: Characters of a job's fields, detail and request ids that are looked at.
MOST_TEXT = 4000


def bucket(seconds: float) -> int:
    """The histogram's bucket of a duration: the first one ends at 1 ms, each of the others at 1.1 times where it
    began, the last has all from 181 s on.

    >>> bucket(0.0004), bucket(0.001), bucket(0.0012), bucket(48), bucket(86400)
    (0, 1, 2, 114, 127)
    """
    if seconds < FIRST_S:
        return 0
    return min(BUCKETS - 1, 1 + math.floor(math.log(seconds / FIRST_S) / math.log(STEP)))


def middle_s(number: int) -> float:
    """The duration, in seconds, that stands for a bucket: the geometric middle of its edges, wrong by 4.9 % at most.

    >>> round(middle_s(bucket(48.0)), 2)
    49.9
    >>> worst = max(abs(middle_s(bucket(s)) - s) / s for s in (0.001 * 1.003**n for n in range(4000)))
    >>> 0.045 < worst < 0.05
    True
    """
    return float(FIRST_S * STEP ** (number - 0.5))


def _bucket_sql(seconds: str) -> str:
    return f"""
    CASE WHEN {seconds} IS NULL THEN NULL WHEN {seconds} < {FIRST_S} THEN 0
         ELSE least({BUCKETS - 1}, 1 + floor(ln(({seconds})::float8 / {FIRST_S}) / ln({STEP}::float8)))::int END
    """


def words_sql(request_ids: str, detail: str, fields: str) -> str:
    """The words that a job is found by, of these three columns; ``%(gaps)s`` is what lies between them."""
    return f"""
    ARRAY(SELECT DISTINCT left(word, {LONGEST_WORD}) FROM regexp_split_to_table(lower(left(concat_ws(
        ' ', {request_ids}, {detail}, (SELECT string_agg(value, ' ') FROM jsonb_each_text({fields}))
    ), {MOST_TEXT})), %(gaps)s) AS word WHERE length(word) > 1 LIMIT {MOST_WORDS})
    """  # noqa: S608 - names of columns


#: What is counted of the jobs in ``chosen``, but for those ``is_test``. ``is_slots``: not from before the slot's
#: statistics were begun anew.
MEASURED = f"""
measured AS MATERIALIZED (
    SELECT job.id, job.slot_id, job.created_at, job.finalized_at, job.failure_detail, job.fields, job.is_test,
           CASE job.status WHEN 'failed' THEN job.failure_reason ELSE job.status::text END AS outcome,
           coalesce(split_part(job.served_by, '/', 1), job.snapshot #>> '{{route,rungs,0,provider}}', '') AS provider,
           calls.costs, calls.providers, calls.request_ids,
           {_bucket_sql("extract(epoch FROM job.finalized_at - job.created_at)")} AS total_bucket,
           {_bucket_sql("extract(epoch FROM job.claimed_at - job.created_at)")} AS queue_bucket,
           {_bucket_sql("calls.seconds")} AS provider_bucket,
           job.finalized_at >= coalesce(stats_reset.at, '-infinity') AS is_slots
    FROM chosen JOIN job ON job.id = chosen.job_id
    LEFT JOIN stats_reset ON stats_reset.slot_id = job.slot_id
    CROSS JOIN LATERAL (
        SELECT jsonb_object_agg(provider, cost) AS costs, sum(seconds) AS seconds,
               coalesce(string_agg(provider, ',' ORDER BY provider), '') AS providers,
               string_agg(request_ids, ' ') AS request_ids
        FROM (
            SELECT provider, sum(cost) AS cost, sum(extract(epoch FROM responded_at - dispatched_at)) AS seconds,
                   string_agg(request_id, ' ') AS request_ids
            FROM attempt WHERE job_id = job.id GROUP BY provider
        ) AS of_one
    ) AS calls
)
"""  # noqa: S608 - our own constants
#: What is counted of a row of ``measured``, or ``spread``: the job with the provider that made or failed it, and with
#: each what its own calls have cost.
BILLED = """
CROSS JOIN LATERAL (
    SELECT provider, 1 AS jobs, coalesce((costs ->> provider)::numeric, 0) AS cost
    UNION ALL SELECT key, 0, value::numeric FROM jsonb_each_text(costs) WHERE key <> provider AND value::numeric > 0
) AS billed
"""
_COUNT = f"""
INSERT INTO job_rollup AS r (zone, slot_id, began_at, provider, outcome, jobs, cost)
SELECT {{zone}}, slot_id, {{began_at}}, provider, outcome, sum(jobs), sum(cost) FROM {{source}} GROUP BY 1, 2, 3, 4, 5
ON CONFLICT (zone, slot_id, began_at, provider, outcome)
DO UPDATE SET jobs = r.jobs + EXCLUDED.jobs, cost = r.cost + EXCLUDED.cost
"""  # noqa: F541 - the braces are for later
_TIME = f"""
INSERT INTO time_rollup AS r (zone, slot_id, began_at, bucket, total, queue_wait, provider)
SELECT {{zone}}, slot_id, {{began_at}}, bucket, sum(total), sum(queue_wait), sum(provider)
FROM {{source}} GROUP BY 1, 2, 3, 4
ON CONFLICT (zone, slot_id, began_at, bucket) DO UPDATE SET
    total = r.total + EXCLUDED.total, queue_wait = r.queue_wait + EXCLUDED.queue_wait,
    provider = r.provider + EXCLUDED.provider
"""  # noqa: F541
#: The histogram's rows of a row with three buckets.
IN_BUCKETS = """
CROSS JOIN LATERAL (VALUES (total_bucket, 1, 0, 0), (queue_bucket, 0, 1, 0), (provider_bucket, 0, 0, 1))
    AS times (bucket, total, queue_wait, provider)
"""
_SPREAD_IN_BUCKETS = f"""
(SELECT zone, slot_id, began_at, times.* FROM spread {IN_BUCKETS} WHERE bucket IS NOT NULL) AS spread_in_buckets
"""  # noqa: S608
_SPREAD_BILLED = f"""
(SELECT zone, slot_id, began_at, outcome, billed.* FROM spread {BILLED}) AS spread_billed
"""  # noqa: S608
_ROLL = f"""
WITH chosen AS MATERIALIZED (
    SELECT job_ended.job_id FROM job_ended LEFT JOIN job ON job.id = job_ended.job_id
    WHERE job.id IS NULL OR job.finalized_at < clock_timestamp() - %(abandoned_s)s * interval '1 second'
       OR (job.finalized_at < clock_timestamp() - %(settled_s)s * interval '1 second' AND NOT EXISTS (
            SELECT FROM attempt WHERE attempt.job_id = job_ended.job_id AND responded_at IS NULL))
    LIMIT {BATCH}
), taken AS (
    DELETE FROM job_ended USING chosen WHERE job_ended.job_id = chosen.job_id RETURNING 1
), {MEASURED}, listed AS (
    INSERT INTO job_search (job_id, created_at, slot_id, outcome, providers, words)
    SELECT id, created_at, slot_id, outcome, providers, {words_sql("request_ids", "failure_detail", "fields")}
    FROM measured
), spread AS (
    SELECT grain.zone, whose.slot_id, grain.began_at, measured.provider, outcome, costs,
           total_bucket, queue_bucket, provider_bucket
    FROM (SELECT * FROM measured WHERE NOT is_test) AS measured
    CROSS JOIN LATERAL (VALUES ('', date_trunc('hour', finalized_at, %(zone)s)),
                               (%(zone)s, date_trunc('day', finalized_at, %(zone)s))) AS grain (zone, began_at)
    JOIN LATERAL (VALUES ('', true), (measured.slot_id, is_slots)) AS whose (slot_id, counts) ON whose.counts
), counted AS ({_COUNT.format(zone="zone", began_at="began_at", source=_SPREAD_BILLED)})
, timed AS ({_TIME.format(zone="zone", began_at="began_at", source=_SPREAD_IN_BUCKETS)})
SELECT count(*)::int AS taken FROM taken
"""  # noqa: S608 - our own constants
#: In the order of the index, or all of a zone that has none would be read.
_HAS_DAYS = """
SELECT (SELECT true FROM job_rollup WHERE zone = %(zone)s AND slot_id = '' ORDER BY began_at LIMIT 1) AS days,
       (SELECT true FROM job_rollup WHERE zone = '' AND slot_id = '' ORDER BY began_at LIMIT 1) AS hours
"""
_DAYS = {"zone": "%(zone)s::text", "began_at": "date_trunc('day', began_at, %(zone)s)"}
_NEW_DAYS = (
    "DELETE FROM job_rollup WHERE zone <> ''",
    "DELETE FROM time_rollup WHERE zone <> ''",
    _COUNT.format(**_DAYS, source="job_rollup WHERE zone = ''"),
    _TIME.format(**_DAYS, source="time_rollup WHERE zone = ''"),
)


async def roll(db: Database) -> int:
    """Counts what has ended; how many jobs that were. One at a time: another that runs leaves it to this one."""
    zone = (await settings.load(db)).time_zone
    rolled = 0
    for _ in range(MOST_BATCHES):
        async with db.transaction() as connection:
            taken = await batch(connection, zone)
        rolled += taken
        if taken < BATCH:
            break
    return rolled


async def batch(connection: AsyncConnection[Any], zone: str) -> int:
    """Counts ``BATCH`` of what has ended, in the caller's transaction; how many there were."""
    held = await fetch(connection, "SELECT pg_try_advisory_xact_lock(%(lock)s) AS held", {"lock": LOCK})
    if not held[0]["held"]:
        return 0
    await _keep_days(connection, zone)
    params = {"zone": zone, "gaps": GAPS, "settled_s": SETTLED_S, "abandoned_s": ABANDONED_S}
    rows = await fetch(connection, _ROLL, params)
    return int(rows[0]["taken"])


async def has_days(connection: AsyncConnection[Any], zone: str) -> bool:
    """Whether the days of this time zone are counted; if not, its hours must be added up."""
    return bool((await fetch(connection, _HAS_DAYS, {"zone": zone}))[0]["days"])


async def _keep_days(connection: AsyncConnection[Any], zone: str) -> None:
    """Counts all days anew, from the hours, when the administrator's time zone has become another one."""
    there = (await fetch(connection, _HAS_DAYS, {"zone": zone}))[0]
    if there["hours"] and not there["days"]:
        for statement in _NEW_DAYS:
            await fetch(connection, statement, {"zone": zone})


async def forget(connection: AsyncConnection[Any], slot_id: str) -> None:
    """Begins a slot's own statistics anew, from now. Those of all slots together stay: what was spent is spent."""
    params = {"slot_id": slot_id, "lock": LOCK}
    await fetch(connection, "SELECT pg_advisory_xact_lock(%(lock)s)", params)
    await fetch(connection, "DELETE FROM job_rollup WHERE slot_id = %(slot_id)s", params)
    await fetch(connection, "DELETE FROM time_rollup WHERE slot_id = %(slot_id)s", params)
    await fetch(
        connection,
        "INSERT INTO stats_reset (slot_id, at) VALUES (%(slot_id)s, clock_timestamp()) "
        "ON CONFLICT (slot_id) DO UPDATE SET at = EXCLUDED.at",
        params,
    )
