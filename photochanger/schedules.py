"""How often what is done, in seconds: the scheduler acts by it, the administrator is told by it."""

from __future__ import annotations

#: Done by the scheduler itself: it must not wait behind the queue.
OWN_EVERY_S = {"expire": 1.0, "measure": 5.0, "rollups": 5.0}
#: How often is looked whether the nightly backup is due.
BACKUP_LOOK_S = 60.0
#: Sent to the workers. Bytes are gone ≤15 minutes after their time.
SWEEPS_EVERY_S = {
    "results": 300.0,
    "originals": 300.0,
    "media": 300.0,
    "orphans": 600.0,
    "history": 3600.0,
    "queue": 3600.0,
    "limits": 60.0,
}
EVERY_S = {**OWN_EVERY_S, **SWEEPS_EVERY_S}
