"""How a run's facts leave the workers: one fixed-size record per call of an actor, appended to one file.

Instants are ``time.monotonic()``, which on Linux all processes of a machine share.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import NamedTuple

_FORM = struct.Struct("<dddd")


class Stamp(NamedTuple):
    """``key`` came with the message; ``end`` is 0 in a record that only says that the work was started."""

    key: float
    pid: float
    start: float
    end: float


def append(file: int, key: float, start: float, end: float) -> None:
    """Writes one record; ``file`` was opened with ``O_APPEND``, so that processes never mix theirs."""
    os.write(file, _FORM.pack(key, os.getpid(), start, end))


def count(path: Path) -> int:
    """How many records there are by now."""
    try:
        return path.stat().st_size // _FORM.size
    except FileNotFoundError:
        return 0


def read(path: Path) -> list[Stamp]:
    """Every record, in the order of writing."""
    whole = count(path) * _FORM.size
    return [Stamp(*fields) for fields in _FORM.iter_unpack(path.read_bytes()[:whole])] if whole else []
