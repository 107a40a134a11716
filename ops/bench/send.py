"""Sends through one contender's own producer, inside its environment: as fast as it goes, at a pace, or after a rest.

Prints how many were sent in how many seconds, as JSON. Without a pace or a rest: once for each line it reads, so that
producers can take turns.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable

WARM_UP = 20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("contender")
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--rate", type=float, default=0.0, help="messages a second; as many as can be without")
    parser.add_argument("--rest", type=float, default=0.0, help="send one, be silent this long, send another")
    options = parser.parse_args()
    send: Callable[..., None] = importlib.import_module(f"ops.bench.workers.{options.contender}").sender()
    if options.rest:
        send("noop", key=0.0)
        time.sleep(options.rest)
        send("noop", key=time.monotonic())
        sent, began = 1, time.monotonic()
    elif options.rate:
        sent, began = _paced(send, options.rate, options.seconds)
    else:
        for _ in range(WARM_UP):
            send("noop", key=0.0)
        _report(0, time.monotonic())
        for _ in sys.stdin:
            _report(*_burst(send, options.seconds))
        return
    _report(sent, began)


def _report(sent: int, began: float) -> None:
    print(json.dumps({"sent": sent, "seconds": time.monotonic() - began}), flush=True)


def _burst(send: Callable[..., None], seconds: float) -> tuple[int, float]:
    sent, began = 0, time.monotonic()
    while time.monotonic() < began + seconds:
        send("noop", key=0.0)
        sent += 1
    return sent, began


def _paced(send: Callable[..., None], rate: float, seconds: float) -> tuple[int, float]:
    send("noop", key=0.0)
    began = time.monotonic() + 0.5
    count = round(rate * seconds)
    for number in range(count):
        time.sleep(max(0.0, began + number / rate - time.monotonic()))
        send("noop", key=time.monotonic())
    return count, began


if __name__ == "__main__":
    main()
