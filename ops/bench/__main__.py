"""``python -m ops.bench``: runs the figures one after the other and prints the table."""

from __future__ import annotations

import argparse
import fcntl
import os
import platform
import shlex
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from ops.bench import report
from ops.bench.arena import Arena
from ops.bench.backlog import backlog
from ops.bench.contenders import BUILD
from ops.bench.history import history
from ops.bench.ingest import ingest, million
from ops.bench.queueing import drain, enqueue, nap50, pickup
from ops.bench.report import Row
from ops.bench.takeover import takeover
from ops.bench.waiting import waiting
from photochanger.config import PROJECT

FIGURES: dict[str, Callable[[Arena], list[Row]]] = {
    "enqueue": enqueue,
    "drain": drain,
    "nap50": nap50,
    "pickup": pickup,
    "takeover": takeover,
    "backlog": backlog,
    "waiting": waiting,
    "ingest": ingest,
    "million": million,
    "history": history,
}
NOT_QUICK = {"million"}
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    options = _options()
    os.chdir(PROJECT)
    BUILD.mkdir(parents=True, exist_ok=True)
    for number in _ENDINGS:
        signal.signal(number, _stop)
    with (BUILD / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("bench: another bench runs in this folder")
        try:
            return _run(options)
        except KeyboardInterrupt:
            print("\nbench: stopped", file=sys.stderr)
            return 130


def _run(options: argparse.Namespace) -> int:
    arena = Arena(quick=options.quick, full=options.full, rounds=1 if options.quick else options.rounds)
    names = options.only or [name for name in FIGURES if not (options.quick and name in NOT_QUICK)]
    rows: list[Row] = []
    try:
        arena.open()
        head = _head(arena)
        print("\n".join(head), flush=True)
        for name in names:
            began = time.monotonic()
            rows += FIGURES[name](arena)
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    finally:
        _deaf()
        arena.close()
    print(f"\n{report.text(rows)}\n")
    if options.markdown:
        options.markdown.write_text(report.markdown(rows, head))
    missed = [f"{row.name}: {words}" for row in rows for words, met in row.goals if not met]
    print("Every goal is met." if not missed else "Missed:\n" + "\n".join(f"  {line}" for line in missed))
    return 0


def _stop(number: int, frame: FrameType | None) -> None:
    """Once is enough: cleaning up is not to be interrupted again."""
    _deaf()
    raise KeyboardInterrupt


def _deaf() -> None:
    for number in _ENDINGS:
        signal.signal(number, signal.SIG_IGN)


def _head(arena: Arena) -> list[str]:
    return [
        f"{os.cpu_count()} cores, {platform.machine()}; Python {platform.python_version()}; {arena.version()}",
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"{arena.rounds} rounds in turn; medians (smallest–largest), ratios: medians of each round's own; "
        "one PostgreSQL for all, fsync on",
        f"`{shlex.join(['python', '-m', 'ops.bench', *sys.argv[1:]])}`",
    ]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ops.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of small figures: tries the bench itself")
    parser.add_argument("--full", action="store_true", help="20 kills, and longer looks at the backlog")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender (default 3)")
    parser.add_argument("--only", action="append", choices=FIGURES, help="this figure; may be given again")
    parser.add_argument(
        "--markdown", type=lambda name: Path(name).resolve(), metavar="FILE", help="write the table here too"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
