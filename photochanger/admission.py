"""Whether a photo may come in, and if not, when: one that cannot be served before its deadline is refused at once.

What waits and runs is measured in seconds of a worker's thread: what its calls usually take (``queue.work_s``), or
what those that run now have taken on the average, if that is more already. A lane with a width, a provider
that takes so many calls at once, is served by as many threads; everything else by those that the lanes leave free.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from photochanger.db import Database
from photochanger.deadlines import STORE_S
from photochanger.failures import NoWorkers, QueueFull
from photochanger.providers import Options, Provider
from photochanger.slots import Route
from photochanger.usual import Times

#: First key of the advisory locks under which photos are let in one after the other; the second is the lane's hash.
LOCK = 0x50436C61
#: Share of the room that may be used up by photos that come in at once, without looking at one another.
AT_ONCE = 0.5
#: Seconds a process acts on the forecast it read before.
FRESH_S = 0.5
#: Seconds without any worker after which photos are refused; a restart takes two or three.
NO_WORKERS_S = 10.0
#: Threads counted on while the only worker restarts: those of one with the usual number.
CREW_THREADS = 32
#: Seconds of a thread that a photo takes beside its provider's call.
AROUND_S = 0.1

#: How long a photo of ``%(lane)s`` and ``%(priority)s`` would wait (``wait_s``), by how many threads it is served.
FORECAST = f"""
in_hand AS MATERIALIZED (
    SELECT CASE WHEN l.name IS NOT NULL THEN q.lane ELSE '' END AS lane, l.width, q.work_s,
           extract(epoch FROM clock_timestamp() - q.leased_at)::float8 AS since_s, q.state = 'queued' AS queued,
           avg(extract(epoch FROM clock_timestamp() - q.leased_at)::float8) OVER (PARTITION BY q.lane) AS slow_s
    FROM dramatiq.queue q LEFT JOIN dramatiq.lane l ON l.name = q.lane
    WHERE q.state = 'consumed' OR (q.state = 'queued' AND q.priority <= %(priority)s)
), waiting AS MATERIALIZED (
    SELECT lane, min(width) AS width, count(*) AS jobs,
           sum(CASE WHEN queued THEN greatest(work_s, slow_s)
               ELSE greatest(greatest(work_s, slow_s) - since_s, work_s / 10) END) AS work_s
    FROM in_hand GROUP BY lane
), crew AS MATERIALIZED (
    SELECT coalesce(nullif(sum(threads), 0), {CREW_THREADS})::float8 AS threads, count(*) AS workers
    FROM dramatiq.worker WHERE NOT draining AND beat_at > clock_timestamp() - interval '5 s'
), narrow AS MATERIALIZED (
    SELECT (SELECT width FROM dramatiq.lane WHERE name = %(lane)s) AS width,
           coalesce((SELECT sum(least(jobs, width)) FROM waiting WHERE width IS NOT NULL), 0) AS elsewhere
), around AS MATERIALIZED (
    SELECT CASE WHEN narrow.width IS NULL THEN greatest(threads - elsewhere, 1)
                ELSE least(narrow.width, threads) END::float8 AS capacity,
           coalesce(mine.jobs, 0) AS jobs, coalesce(mine.work_s, 0)::float8 AS work_s,
           coalesce(wide.jobs, 0) AS wide_jobs, coalesce(wide.work_s, 0)::float8 AS wide_work_s, threads, workers
    FROM crew CROSS JOIN narrow
    LEFT JOIN waiting mine ON mine.lane = CASE WHEN narrow.width IS NULL THEN '' ELSE %(lane)s END
    LEFT JOIN waiting wide ON wide.lane = ''
), forecast AS MATERIALIZED (
    SELECT greatest(CASE WHEN jobs < capacity THEN 0 ELSE work_s / capacity END,
                    CASE WHEN wide_jobs < threads THEN 0 ELSE wide_work_s / threads END) AS wait_s,
           capacity, jobs, workers
    FROM around
)
"""  # noqa: S608 - our own constant


_LOOK = f"WITH {FORECAST} SELECT * FROM forecast"  # noqa: S608 - our own constant


@dataclass(frozen=True)
class Work:
    """What a photo asks of the workers.

    ``lane``: the provider asked first. ``need_s``: seconds from a worker's claim to the answer, by the quickest of its
    rungs. ``work_s``: seconds its thread is expected to be busy. ``lane_wait_s``: seconds it may wait for its lane
    before the rest of its route needs the time; ``None``: there is no rest.
    """

    lane: str = ""
    need_s: float = 0.0
    work_s: float = 0.0
    lane_wait_s: float | None = None


class NoRoom(Exception):
    """A photo would wait ``wait_s`` and be late. ``capacity``: the threads that serve it."""

    def __init__(self, wait_s: float, capacity: float) -> None:
        super().__init__(f"{wait_s:.1f} s")
        self.wait_s = wait_s
        self.capacity = capacity


def work_of(
    route: Route,
    times: Times,
    *,
    t_sync_response_s: float,
    provider: Callable[[str], Provider | None],
    options: Callable[[Provider], Options],
) -> Work:
    """What a photo of this route asks of the workers, by what its rungs' calls usually take."""
    usual = []
    for rung in route.rungs:
        if driver := provider(rung.provider):
            usual.append(times.of(rung, driver, options(driver)))
    if not usual:
        return Work()
    first, rest = usual[0], usual[1:]
    lane_wait_s = None
    if rest:
        in_time_s = t_sync_response_s - STORE_S - first.p90_s - rest[0].p90_s
        lane_wait_s = max(in_time_s, t_sync_response_s / 4)
    return Work(
        lane=route.rungs[0].provider,
        need_s=min(one.p90_s for one in usual) + STORE_S,
        work_s=min(first.mean_s, t_sync_response_s) + AROUND_S,
        lane_wait_s=lane_wait_s,
    )


@dataclass
class _Seen:
    """A lane's forecast as it was read, and what was let in since."""

    at: float
    wait_s: float
    capacity: float
    jobs: float
    more_s: float = 0.0

    def wait_now_s(self) -> float:
        if self.jobs < self.capacity:
            return 0.0
        return max(0.0, self.wait_s - (time.monotonic() - self.at)) + self.more_s / self.capacity


@dataclass
class Admission:
    """The door of one web process: refuses before the body is read, by a forecast that is at most half a second old.
    The statement that writes the job looks again."""

    db: Database
    seen: dict[tuple[str, int], _Seen] = field(default_factory=dict)
    #: Monotonic instants: the last return that was promised, by lane, and when a worker was last seen.
    promised: dict[str, float] = field(default_factory=dict)
    worker_at: float = field(default_factory=time.monotonic)
    _one: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def check(self, work: Work, *, slack_s: float, priority: int = 0) -> None:
        """Returns when a photo that may wait ``slack_s`` can be served.

        Raises:
            QueueFull, NoWorkers: with the seconds after which it may come again.
            Unavailable: PostgreSQL cannot be reached.
        """
        seen = await self._forecast(work.lane, priority)
        if time.monotonic() - self.worker_at > NO_WORKERS_S:
            raise NoWorkers(retry_after_s=NO_WORKERS_S)
        wait_s = seen.wait_now_s()
        if wait_s > max(0.0, slack_s):
            raise self.refusal(work, NoRoom(wait_s, seen.capacity), slack_s=slack_s)

    def let_in(self, work: Work, *, priority: int = 0) -> None:
        """Counts a photo that was let in until the next forecast sees it."""
        if seen := self.seen.get((work.lane, priority)):
            seen.jobs += 1
            seen.more_s += work.work_s

    def refusal(self, work: Work, full: NoRoom, *, slack_s: float) -> QueueFull:
        """A refusal with the time at which there will be room, counting the returns promised to others before."""
        now = time.monotonic()
        each_s = work.work_s / full.capacity
        at = max(now + full.wait_s - max(0.0, slack_s), self.promised.get(work.lane, 0.0)) + each_s
        self.promised[work.lane] = at
        retry_after_s = math.ceil(at - now) + 1
        return QueueFull(
            f"Too many photos are waiting: the next one would wait {full.wait_s:.0f} s and be late",
            retry_after_s=retry_after_s,
        )

    async def _forecast(self, lane: str, priority: int) -> _Seen:
        async with self._one:
            seen = self.seen.get((lane, priority))
            if seen is None or time.monotonic() - seen.at > FRESH_S:
                row = (await self.db.fetch(_LOOK, {"lane": lane, "priority": priority}))[0]
                seen = _Seen(time.monotonic(), row["wait_s"], row["capacity"], row["jobs"])
                self.seen[(lane, priority)] = seen
                if row["workers"]:
                    self.worker_at = seen.at
            return seen
