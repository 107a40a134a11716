"""The queue's speed: enqueue, drain, naps on busy threads, and pickup."""

from __future__ import annotations

import time

from ops.bench.arena import THREADS, Arena, Workers, answer, turn, wait, wait_for
from ops.bench.contenders import FLOOR, OURS, POSTGRES, QUEUES, STOCK, Contender
from ops.bench.report import Row, percentile
from ops.bench.stamps import Stamp
from ops.bench.workers.floor import Trip

NAP_S = 0.05
RATE = 20.0
REST_S = 10.0
TURN_S = 0.1
TURNS = 12


def enqueue(arena: Arena) -> list[Row]:
    """One producer on one connection, as fast as it goes, every message committed; in turns of a tenth of a second."""
    row = Row("enqueue, one producer", "/s")
    contenders = (FLOOR, *QUEUES)
    for contender in contenders:
        arena.clear(contender)
    producers = {contender: arena.send(contender, seconds=TURN_S) for contender in contenders}
    for producer in producers.values():
        turn(producer)
    for contender in arena.turns(contenders, rounds=TURNS * arena.rounds):
        stdin = producers[contender].stdin
        assert stdin is not None
        stdin.write(b"\n")
        stdin.flush()
        got = turn(producers[contender])
        row.add(contender, got["sent"] / got["seconds"])
    for contender, producer in producers.items():
        producer.kill()
        arena.clear(contender)
    row.times(FLOOR, 0.9, at_least=True)
    return [row]


def drain(arena: Arena) -> list[Row]:
    """Messages that do nothing, from the first completion until none is left in the table."""
    rows = []
    for processes in (1, 2):
        row = Row(f"no-op drain, {processes} process{'es' * (processes > 1)}", "/s")
        for contender in arena.turns(QUEUES):
            row.add(contender, drain_rate(arena, contender, processes))
        row.times(STOCK, 4, at_least=True)
        row.times(POSTGRES, 1.1, at_least=True)
        arena.found[f"drain {processes}"] = row.median(OURS)
        rows.append(row)
    return rows


def drain_rate(arena: Arena, contender: Contender, processes: int) -> float:
    """Messages a second, over all of them or over as long as a slow contender is watched."""
    count, cap_s = (2000, 2.0) if arena.quick else (5000, 3.0)
    stamps, emptied = _run(arena, contender, processes, count, cap_s, "noop", key=0)
    end = emptied if len(stamps) >= count else stamps[-1].end
    return (len(stamps) - 1) / (end - stamps[0].end)


def nap50(arena: Arena) -> list[Row]:
    """50 ms of waiting on 8 threads, from the first start to the last end."""
    rows = []
    for processes in (1, 2):
        ideal = processes * THREADS / NAP_S
        row = Row(f"nap50, {processes} process{'es' * (processes > 1)} (ideal {ideal:.0f})", "/s")
        for contender in arena.turns(QUEUES):
            row.add(contender, _nap_rate(arena, contender, processes, "nap"))
        share = 0.97 if processes == 1 else 0.95
        row.goal(f"≥{share:.0%} of ideal", row.median(OURS) >= share * ideal)
        rows.append(row)
    coroutine = Row("nap50, 1 process, an async actor as PhotoChanger's own", "/s")
    for contender in arena.turns([OURS]):
        coroutine.add(contender, _nap_rate(arena, contender, 1, "async_nap"))
    return [*rows, coroutine]


def _nap_rate(arena: Arena, contender: Contender, processes: int, actor: str) -> float:
    """Naps a second, over all of them or over as long as a slow contender is watched."""
    count = round((1.0 if arena.quick else 2.5) * processes * THREADS / NAP_S)
    stamps, _ = _run(arena, contender, processes, count, 2.5 if arena.quick else 3.5, actor, key=0, seconds=NAP_S)
    return len(stamps) / (max(stamp.end for stamp in stamps) - min(stamp.start for stamp in stamps))


def _run(
    arena: Arena, contender: Contender, processes: int, count: int, cap_s: float, actor: str, **kwargs: float
) -> tuple[list[Stamp], float]:
    """Loads ``count`` messages for listening workers. The records, and when the table was empty or ``cap_s`` passed."""
    arena.clear(contender)
    workers = arena.workers(contender, processes)
    try:
        arena.ready(contender, processes)
        arena.load(contender, count, actor, ring=True, **kwargs)
        stamps = wait_for(workers.stamps, count, within_s=cap_s)
        if len(stamps) >= count:
            wait(lambda: not arena.unfinished(contender), within_s=10, what=f"{contender.title} has emptied its queue")
        elif len(stamps) < 2:
            raise RuntimeError(
                f"{contender.title} did {len(stamps)} messages in {cap_s:g} s: {workers.log.read_text()}"
            )
        return stamps, time.monotonic()
    finally:
        workers.kill()


def pickup(arena: Arena) -> list[Row]:
    """From the instant before the producer's call to the actor's first line; the floor is the whole bare trip."""
    spread = {
        name: Row(f"pickup at 20/s, {name} (floor: the whole trip)", "ms", digits=1) for name in ("p50", "p95", "p99")
    }
    claimed = Row("pickup at 20/s, p50 (floor: until claimed)", "ms", digits=1)
    rested = Row("pickup after 10 s idle", "ms", digits=1, ratios=False)
    seconds = 2.0 if arena.quick else 3.5
    for _ in range(arena.rounds):
        running = {}
        for contender in QUEUES:
            arena.clear(contender)
            running[contender] = arena.workers(contender, 1)
        try:
            for contender in running:
                arena.ready(contender, 1)
            trips = floor_trips(arena, round(seconds * RATE))
            claimed.add(FLOOR, percentile([first for first, _ in trips], 0.5) * 1000)
            _spread(spread, FLOOR, [whole for _, whole in trips])
            for contender, workers in running.items():
                answer(arena.send(contender, rate=RATE, seconds=seconds), within_s=60)
                stamps = wait_for(workers.stamps, round(seconds * RATE) + 1, within_s=5)
                waits = [stamp.start - stamp.key for stamp in stamps if stamp.key]
                claimed.add(contender, percentile(waits, 0.5) * 1000)
                _spread(spread, contender, waits)
            _rest(arena, running, rested)
        finally:
            for workers in running.values():
                workers.kill()
    spread["p50"].times(FLOOR, 1.6, at_least=False)
    ours, floor = spread["p95"].median(OURS), spread["p95"].median(FLOOR)
    spread["p95"].goal("≤2× floor or +5 ms", ours <= max(2 * floor, floor + 5))
    rested.goal("≤25 ms", max(rested.values[OURS.name]) <= 25)
    return [*spread.values(), claimed, rested]


def _rest(arena: Arena, running: dict[Contender, Workers], row: Row) -> None:
    """Everybody is idle together; then each gets one message, with a pause between them."""
    before = {contender: len(wait_for(workers.stamps, 1, within_s=0)) for contender, workers in running.items()}
    senders = []
    for contender in running:
        senders.append(arena.send(contender, rest=1.0 if arena.quick else REST_S))
        time.sleep(0.4)
    for sender in senders:
        answer(sender, within_s=60)
    for contender, workers in running.items():
        last = max(wait_for(workers.stamps, before[contender] + 2, within_s=5), key=lambda stamp: stamp.key)
        row.add(contender, (last.start - last.key) * 1000)


def floor_trips(arena: Arena, count: int) -> list[tuple[float, float]]:
    """Bare trips at the pickup's pace: seconds until claimed, and until seen."""
    arena.clear(FLOOR)
    trip = Trip(arena.url(FLOOR))
    try:
        trip.take()
        began = time.monotonic()
        trips = []
        for number in range(count):
            time.sleep(max(0.0, began + number / RATE - time.monotonic()))
            trips.append(trip.take())
        return trips
    finally:
        trip.close()


def _spread(rows: dict[str, Row], contender: Contender, seconds: list[float]) -> None:
    for share, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99")):
        rows[name].add(contender, percentile(seconds, share) * 1000)
