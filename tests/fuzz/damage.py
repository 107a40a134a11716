"""Seeded damage to bytes. ``PHOTOCHANGER_FUZZ_SEED`` replays a run; ``PHOTOCHANGER_FUZZ_S``: seconds for each kind."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Sequence

SEED = int(os.environ.get("PHOTOCHANGER_FUZZ_SEED", str(random.SystemRandom().randrange(2**32))))
SECONDS = float(os.environ.get("PHOTOCHANGER_FUZZ_S", "60"))
#: What parsers trip over.
_ODD = (
    b"\0",
    b"\r",
    b"\n",
    b"\r\n\r\n",
    b"--",
    b"%",
    b"\xff" * 8,
    b'"',
    b";",
    b"A" * 3000,
    b"-1",
    b"9" * 30,
    b"\xf0\x9f",
)


def damaged(samples: Sequence[bytes], name: str) -> Iterator[tuple[str, bytes]]:
    """One sample after the other with one to five things wrong, for ``SECONDS``; each with what replays it."""
    end = time.monotonic() + SECONDS
    number = 0
    while time.monotonic() < end:
        chance = random.Random(f"{SEED}/{name}/{number}")
        data = bytearray(chance.choice(samples))
        for _ in range(chance.choice((1, 1, 1, 2, 3, 5))):
            _harm(data, samples, chance)
        yield f"PHOTOCHANGER_FUZZ_SEED={SEED}, {name} number {number}", bytes(data)
        number += 1


def _harm(data: bytearray, samples: Sequence[bytes], chance: random.Random) -> None:
    at = chance.randrange(len(data) + 1)
    if chance.random() < 0.3:  # heads are where the decisions are made
        at = min(at, chance.randrange(600))
    length = chance.choice((1, 2, 4, 16, 200, len(data)))
    kind = chance.randrange(7)
    if kind == 0 and at < len(data):
        data[at] ^= 1 << chance.randrange(8)
    elif kind == 1 and at < len(data):
        data[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
    elif kind == 2:
        del data[at : at + length]
    elif kind == 3:
        data[at:at] = chance.choice(_ODD)
    elif kind == 4:
        data[at:at] = data[at : at + length]
    elif kind == 5:
        other = chance.choice(samples)
        start = chance.randrange(len(other))
        data[at : at + length] = other[start : start + length]
    elif kind == 6:
        del data[at:]
