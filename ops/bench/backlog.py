"""A worker that starts before a large backlog: how soon it begins, how much memory it takes, how fast it goes."""

from __future__ import annotations

import time

from ops.bench.arena import Arena, Workers, resident, wait, wait_for
from ops.bench.contenders import OURS, QUEUES, Contender
from ops.bench.queueing import drain_rate
from ops.bench.report import Row


def backlog(arena: Arena) -> list[Row]:
    """Watched for some seconds; nobody has to finish."""
    size = 20_000 if arena.quick else 100_000
    watch_s = 30.0 if arena.full else 2.0 if arena.quick else 4.0
    name = f"{size // 1000}k backlog"
    first = Row(f"{name}: first job after the start of the command", "s", digits=2)
    grown = Row(f"{name}: memory over the idle worker", "MB", digits=1, ratios=False)
    rate = Row(f"{name}: drain, 1 process", "/s")
    idle = {contender: _idle(arena, contender) for contender in QUEUES}
    for contender in arena.turns(QUEUES):
        arena.clear(contender)
        arena.load(contender, size, "noop", ring=False, key=0)
        workers = arena.workers(contender, 1)
        try:
            started, peak, speed = _watch(workers, watch_s, size)
        finally:
            workers.kill()
        first.add(contender, started)
        grown.add(contender, peak - idle[contender])
        rate.add(contender, speed)
        arena.clear(contender)
    first.goal("≤1 s", first.median(OURS) <= 1)
    grown.goal("≤50 MB", grown.median(OURS) <= 50)
    if "drain 1" not in arena.found:
        arena.found["drain 1"] = drain_rate(arena, OURS, 1)
    small = arena.found["drain 1"]
    rate.goal(f"≥0.9× of the small drain's {small:.0f}/s", rate.median(OURS) >= 0.9 * small)
    return [first, grown, rate]


def _idle(arena: Arena, contender: Contender) -> float:
    """MB of a worker process that has done one message."""
    arena.clear(contender)
    workers = arena.workers(contender, 1)
    try:
        arena.ready(contender, 1)
        arena.load(contender, 1, "noop", ring=True, key=0)
        return resident(wait_for(workers.stamps, 1, within_s=5)[0].pid)
    finally:
        workers.kill()


def _watch(workers: Workers, watch_s: float, size: int) -> tuple[float, float, float]:
    """Seconds to the first job, peak MB, and messages a second from the first to the last seen."""
    one = wait(lambda: wait_for(workers.stamps, 1, within_s=0), within_s=60, what="the first job of the backlog")[0]
    peak = 0.0
    while time.monotonic() < one.end + watch_s:
        peak = max(peak, resident(one.pid))
        time.sleep(0.1)
    seen = wait_for(workers.stamps, size, within_s=0)
    return one.start - workers.began, peak, (len(seen) - 1) / (seen[-1].end - one.end)
