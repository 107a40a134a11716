"""How long the work of a worker lies still when the worker is killed, with and without another one beside it."""

from __future__ import annotations

import math
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

from ops.bench import stamps
from ops.bench.arena import Arena, Workers, wait
from ops.bench.contenders import OURS, POSTGRES, STOCK, Contender
from ops.bench.report import Row

HOLD_S = 30.0
HELD = 4
CAP_S = 20.0


def takeover(arena: Arena) -> list[Row]:
    """Each kill: until every message the dead worker had in hand is started again."""
    cap_s = 10.0 if arena.quick else CAP_S
    survivor = Row("takeover after kill -9, a survivor beside it", "s", digits=2, cap=cap_s)
    restart = Row("takeover after kill -9, restarted at once", "s", digits=2, cap=cap_s)
    lease = Row("takeover by lease alone (SIGSTOP)", "s", digits=2, cap=cap_s)
    whole = Row("after the kills: lost or done twice", "messages", ratios=False)
    kills = 20 if arena.full else 2 if arena.quick else 5
    for row, how in ((survivor, "survivor"), (restart, "restart"), (lease, "stop")):
        others = [_Trial(arena, contender) for contender in (STOCK, POSTGRES) if row is not lease]
        for trial in others:
            trial.begin()
            trial.strike(how)
        ours = _Trial(arena, OURS)
        ours.begin()
        for _ in range(kills if row is survivor else 1 if arena.quick else 3):
            row.add(OURS, ours.once(how))
        whole.add(OURS, ours.finish())
        for trial in others:  # they have lain idle beside ours
            row.add(trial.contender, trial.recovered(row.cap))
            trial.stop()
    survivor.goal(f"≤2 s, all of {kills}", max(survivor.values[OURS.name]) <= 2)
    lease.goal("≤5 s", max(lease.values[OURS.name]) <= 5)
    whole.goal("0", sum(whole.values[OURS.name]) == 0)
    return [survivor, restart, lease, whole]


class _Trial:
    """One contender's held messages, and the workers that have them in turn."""

    def __init__(self, arena: Arena, contender: Contender) -> None:
        self.arena = arena
        self.contender = contender
        self.folder = Path(tempfile.mkdtemp(dir=arena.scratch))
        self.path = self.folder / "stamps"
        self.holder: Workers
        self.heir: Workers
        self._struck = 0.0

    def begin(self) -> None:
        self.arena.clear(self.contender)
        self.holder = self._start()
        self.arena.ready(self.contender, 1)
        for key in range(1, HELD + 1):
            self.arena.load(self.contender, 1, "hold", ring=False, key=key, seconds=HOLD_S)
        self.arena.sql(self.contender, self.contender.ring)
        wait(lambda: self._starts(0.0) == HELD, within_s=10, what=f"{self.contender.title} holds {HELD} messages")

    def once(self, how: str) -> float:
        """Seconds from the blow until the heir has started every message; the heir is the next holder."""
        self.strike(how)
        seconds = self.recovered(CAP_S)
        if how == "stop":
            self.holder.kill()
        self.holder = self.heir
        return seconds

    def strike(self, how: str) -> None:
        if how != "restart":
            self.heir = self._start()
            self.arena.ready(self.contender, 2)
        self._struck = time.monotonic()
        self.holder.kill(signal.SIGSTOP if how == "stop" else signal.SIGKILL)
        if how == "restart":
            self.heir = self._start()

    def recovered(self, within_s: float) -> float:
        """Seconds from the blow to the last message's new start; infinite when that is more than ``within_s``."""
        left_s = max(0.0, self._struck + within_s - time.monotonic())
        if not wait(lambda: self._starts(self._struck) >= HELD, within_s=left_s):
            return math.inf
        seconds = max(s.start for s in stamps.read(self.path)) - self._struck
        return seconds if seconds <= within_s else math.inf

    def finish(self) -> int:
        """Lets the last holder end its work; how many messages did not end exactly once."""
        (self.folder / "release").touch()
        ended: Counter[float] = Counter()

        def all_ended() -> bool:
            nonlocal ended
            ended = Counter(s.key for s in stamps.read(self.path) if s.end)
            return len(ended) >= HELD and not self.arena.unfinished(self.contender)

        wait(all_ended, within_s=10)
        self.stop()
        return sum(ended[float(key)] != 1 for key in range(1, HELD + 1))

    def stop(self) -> None:
        self.holder.kill()
        self.heir.kill()

    def _start(self) -> Workers:
        return self.arena.workers(self.contender, 1, folder=self.folder)

    def _starts(self, since: float) -> int:
        """How many different messages were started after ``since``."""
        return len({s.key for s in stamps.read(self.path) if s.start > since})
