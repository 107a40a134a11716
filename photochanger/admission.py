"""Whether a photo may come in, and if not, when: one that cannot be served before its deadline is refused at once.

What waits and runs is measured in seconds of a worker's thread: what its calls usually take (``queue.work_s``), or
what those that run now have taken on the average, if that is more already. A lane with a width, a provider
that takes so many calls at once, is served by as many threads; everything else by those that the lanes leave free.
Who has another rung waits for its lane no longer than that rung can wait, and is then served by the free threads too.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

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
#: Seconds after which every forecast knows of a job that was written.
LOOKED_S = 3.0
#: Seconds for which a photo whose upload has begun is expected in the queue; who dawdles keeps no place.
UPLOAD_S = 2.0
#: Seconds after which a refused photo may come again at the latest, however many were refused before it.
LONGEST_RETURN_S = 300.0
#: Seconds without any worker after which photos are refused; a restart takes two or three.
NO_WORKERS_S = 10.0
#: Seconds kept for those who leave a lane together to be served one after the other. Who comes within as many seconds
#: leaves within as many: only what the free threads do not serve in that time waits longer.
REST_S = 1.0
#: Threads counted on while the only worker restarts: those of one with the usual number.
CREW_THREADS = 32
#: Seconds of a thread that a photo takes beside its provider's call, on two busy cores.
AROUND_S = 0.25
#: What a wait is taken for, times what it is expected to be: a guest who was let in must have the picture in time.
CAUTION = 1.3

#: How long a photo of ``%(lane)s`` and ``%(priority)s`` would wait (``wait_s``), by how many threads it is served.
FORECAST = f"""
in_hand AS MATERIALIZED (
    SELECT CASE WHEN l.name IS NOT NULL THEN q.lane ELSE '' END AS lane, l.width, q.work_s,
           extract(epoch FROM clock_timestamp() - q.leased_at)::float8 AS since_s, q.state = 'queued' AS queued,
           q.state = 'queued' AND q.due_at > clock_timestamp() - interval '{REST_S} s' AS recent,
           avg(extract(epoch FROM clock_timestamp() - q.leased_at)::float8) OVER (PARTITION BY q.lane) AS slow_s
    FROM dramatiq.queue q LEFT JOIN dramatiq.lane l ON l.name = q.lane
    WHERE q.state = 'consumed' OR (q.state = 'queued' AND q.priority <= %(priority)s)
), waiting AS MATERIALIZED (
    SELECT lane, min(width) AS width, count(*) AS jobs, count(*) FILTER (WHERE recent) AS recent,
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
           CASE WHEN greatest(narrow.width, elsewhere) < threads
                THEN %(rest_s)s::float8 / (threads - greatest(narrow.width, elsewhere)) END AS rest_each_s,
           coalesce(mine.recent, 0) AS recent,
           coalesce(mine.jobs, 0) AS jobs, coalesce(mine.work_s, 0)::float8 AS work_s,
           coalesce(wide.jobs, 0) AS wide_jobs, coalesce(wide.work_s, 0)::float8 AS wide_work_s, threads, workers
    FROM crew CROSS JOIN narrow
    LEFT JOIN waiting mine ON mine.lane = CASE WHEN narrow.width IS NULL THEN '' ELSE %(lane)s END
    LEFT JOIN waiting wide ON wide.lane = ''
), apart AS MATERIALIZED (
    SELECT *, CASE WHEN jobs < capacity THEN 0 ELSE {CAUTION} * work_s / capacity END AS in_lane_s,
           CASE WHEN rest_each_s IS NOT NULL
                THEN %(lane_wait_s)s::float8 + greatest(recent * rest_each_s - {REST_S}, 0) END AS past_lane_s,
           CASE WHEN wide_jobs < threads THEN 0 ELSE {CAUTION} * wide_work_s / threads END AS wide_s
    FROM around
), forecast AS MATERIALIZED (
    SELECT greatest(least(in_lane_s, past_lane_s), wide_s) AS wait_s, capacity, jobs, workers,
           CASE WHEN past_lane_s < in_lane_s THEN rest_each_s END AS each_s
    FROM apart
)
"""  # noqa: S608 - our own constant


_LOOK = f"WITH {FORECAST} SELECT * FROM forecast"  # noqa: S608 - our own constant


@dataclass(frozen=True)
class Work:
    """What a photo asks of the workers.

    ``lane``: the provider asked first. ``need_s``: seconds from a worker's claim to the answer, by the quickest of its
    rungs. ``work_s``: seconds its thread is expected to be busy. ``lane_wait_s``: seconds it may wait for its lane
    before the rest of its route needs the time, and ``rest_s`` how long that keeps a thread busy; ``None``: there is
    no rest.
    """

    lane: str = ""
    need_s: float = 0.0
    work_s: float = 0.0
    lane_wait_s: float | None = None
    rest_s: float | None = None

    def params(self) -> dict[str, Any]:
        """``FORECAST``'s parameters, beside the priority."""
        return {"lane": self.lane, "lane_wait_s": self.lane_wait_s, "rest_s": self.rest_s}


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
    closed: Collection[str] = (),
) -> Work:
    """What a photo of this route asks of the workers, by what its rungs' calls usually take. ``closed``: providers that
    are not asked now, where any other is."""
    open_rungs = [rung for rung in route.rungs if rung.provider not in closed] or route.rungs
    asked, usual = "", []
    for rung in open_rungs:
        if driver := provider(rung.provider):
            asked = asked or rung.provider
            usual.append(times.of(rung, driver, options(driver)))
    if not usual:
        return Work()
    first, rest = usual[0], usual[1:]
    lane_wait_s = rest_s = None
    if rest:
        in_time_s = t_sync_response_s - STORE_S - first.p90_s - rest[0].p90_s - REST_S
        lane_wait_s = max(in_time_s, t_sync_response_s / 4)
        rest_s = rest[0].mean_s + AROUND_S
    return Work(
        lane=asked,
        need_s=min(one.p90_s for one in usual) + AROUND_S + STORE_S,
        work_s=min(first.mean_s, t_sync_response_s) + AROUND_S,
        lane_wait_s=lane_wait_s,
        rest_s=rest_s,
    )


@dataclass
class Coming:
    """A photo that has passed the door, while inside; it is counted once its password was right. ``let_in_at``: when
    its job was written."""

    work: Work
    door: Admission
    forecast: _Forecast
    slack_s: float
    at: float = 0.0
    let_in_at: float | None = None
    gone: bool = False

    def __enter__(self) -> Coming:
        return self

    def __exit__(self, *error: object) -> None:
        self.gone = True

    def is_known(self) -> None:
        """Its password was right: from now on it has a place.

        Raises:
            QueueFull: others have taken the room since it came.
        """
        self.door.refuse_late(self.work, self.forecast, slack_s=self.slack_s)
        self.at = time.monotonic()
        self.door.coming.setdefault(self.work.lane, []).append(self)

    def let_in(self) -> None:
        self.let_in_at = time.monotonic()

    def counts(self, *, read_at: float, now: float) -> bool:
        """Whether it is on its way, for no longer than an upload usually takes, or in since the forecast was read."""
        if self.let_in_at is not None:
            return self.let_in_at >= read_at
        return not self.gone and now - self.at < UPLOAD_S


@dataclass
class _Forecast:
    """As it was read at ``at`` (monotonic)."""

    at: float = float("-inf")
    wait_s: float = 0.0
    capacity: float = 1.0
    jobs: float = 0.0
    each_s: float | None = None


@dataclass
class Admission:
    """The door of one web process: refuses before the body is read, by a forecast that is at most half a second old.
    The statement that writes the job looks again."""

    db: Database
    #: By slot and priority.
    forecasts: dict[tuple[str, int], _Forecast] = field(default_factory=dict)
    #: By lane: photos whose upload is under way, and those let in lately.
    coming: dict[str, list[Coming]] = field(default_factory=dict)
    #: Monotonic instants: the last return that was promised, by lane, and when no worker was seen for the first time.
    promised: dict[str, float] = field(default_factory=dict)
    alone_since: float = float("inf")
    _looks: dict[tuple[str, int], asyncio.Future[None]] = field(default_factory=dict)

    async def check(
        self, work: Work, *, slot_id: str, slack_s: float, priority: int = 0, is_known: bool = False
    ) -> Coming:
        """Returns when a photo that may wait ``slack_s`` can be served, or ``is_known`` to have a job that answers it;
        keep what it gives while the photo comes.

        Raises:
            QueueFull, NoWorkers: with the seconds after which it may come again.
            Unavailable: PostgreSQL cannot be reached.
        """
        forecast = await self._forecast(work, slot_id, priority)
        if time.monotonic() - self.alone_since > NO_WORKERS_S:
            raise NoWorkers()
        slack_s = float("inf") if is_known else max(0.0, slack_s)
        self.refuse_late(work, forecast, slack_s=slack_s)
        return Coming(work, self, forecast, slack_s)

    def refuse_late(self, work: Work, forecast: _Forecast, *, slack_s: float) -> None:
        """
        Raises:
            QueueFull: one more would wait longer than ``slack_s``.
        """
        wait_s = self._wait_now_s(work, forecast)
        if wait_s > slack_s:
            raise self.refusal(work, NoRoom(wait_s, forecast.capacity), slack_s=slack_s)

    def refusal(self, work: Work, full: NoRoom, *, slack_s: float) -> QueueFull:
        """A refusal with the time at which there will be room, counting the returns promised to others before."""
        now = time.monotonic()
        each_s = work.work_s / full.capacity
        at = max(now + full.wait_s - max(0.0, slack_s), self.promised.get(work.lane, 0.0)) + each_s
        at = min(at, now + LONGEST_RETURN_S)
        self.promised[work.lane] = at
        retry_after_s = math.ceil(at - now) + 1
        return QueueFull(
            f"Too many photos are waiting: the next one would wait {full.wait_s:.0f} s and be late",
            retry_after_s=retry_after_s,
        )

    def _wait_now_s(self, work: Work, forecast: _Forecast) -> float:
        now = time.monotonic()
        coming = self.coming.get(work.lane, [])
        coming[:] = [one for one in coming if one.counts(read_at=now - LOOKED_S, now=now)]
        since = [one for one in coming if one.counts(read_at=forecast.at, now=now)]
        if forecast.jobs + len(since) < forecast.capacity:
            return 0.0
        more_s = sum(forecast.each_s or CAUTION * one.work.work_s / forecast.capacity for one in since)
        return max(0.0, forecast.wait_s - (now - forecast.at)) + more_s

    async def _forecast(self, work: Work, slot_id: str, priority: int) -> _Forecast:
        key = (slot_id, priority)
        forecast = self.forecasts.setdefault(key, _Forecast())
        if time.monotonic() - forecast.at > FRESH_S:
            if key not in self._looks:  # one looks for all who ask meanwhile, and fails for all
                self._looks[key] = asyncio.ensure_future(self._look(forecast, work, priority))
                self._looks[key].add_done_callback(lambda _: self._looks.pop(key))
            await asyncio.shield(self._looks[key])
        return forecast

    async def _look(self, forecast: _Forecast, work: Work, priority: int) -> None:
        at = time.monotonic()
        row = (await self.db.fetch(_LOOK, {**work.params(), "priority": priority}))[0]
        forecast.at, forecast.each_s = at, row["each_s"]
        forecast.wait_s, forecast.capacity, forecast.jobs = row["wait_s"], row["capacity"], row["jobs"]
        self.alone_since = float("inf") if row["workers"] else min(self.alone_since, at)
