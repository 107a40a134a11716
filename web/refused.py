"""Photos that this process has refused lately: they leave no job, and so no statistics."""

from __future__ import annotations

import time
from collections import Counter, deque

#: Seconds for which a refusal is remembered, and how many are.
LATELY_S = 600.0
MOST = 1000


class Refused:
    """One per web process."""

    def __init__(self) -> None:
        self._noted: deque[tuple[float, str, str]] = deque(maxlen=MOST)

    def note(self, slot_id: str, code: str) -> None:
        """A photo for the slot was refused, by the failure code."""
        self._noted.append((time.monotonic(), slot_id[:64], code))

    def lately(self) -> Counter[tuple[str, str]]:
        """How many there were, by slot and code."""
        since = time.monotonic() - LATELY_S
        return Counter((slot_id, code) for at, slot_id, code in self._noted if at > since)
