"""Rights that one process at a time holds, as rows that run out: a paused or dead holder loses them by itself."""

from __future__ import annotations

import os
import socket
from typing import Any

from psycopg import AsyncConnection

from photochanger.db import Database, fetch

_HOLD = """
INSERT INTO lease AS l (name, holder, expires_at)
VALUES (%(name)s, %(holder)s, clock_timestamp() + %(ttl_s)s * interval '1 second')
ON CONFLICT (name) DO UPDATE SET holder = EXCLUDED.holder, expires_at = EXCLUDED.expires_at
WHERE l.holder = EXCLUDED.holder OR l.expires_at < clock_timestamp()
RETURNING holder
"""


def new_holder() -> str:
    """A name for one who holds a right, not used before: where it runs, and chance."""
    return f"{socket.gethostname()}:{os.getpid()}:{os.urandom(4).hex()}"


async def hold(where: AsyncConnection[Any] | Database, name: str, holder: str, *, ttl_s: float) -> bool:
    """Takes or renews the right ``name`` for ``ttl_s`` seconds, on an open transaction's connection or on its own;
    False while somebody else has it."""
    params = {"name": name, "holder": holder, "ttl_s": ttl_s}
    rows = await where.fetch(_HOLD, params) if isinstance(where, Database) else await fetch(where, _HOLD, params)
    return bool(rows)


async def release(db: Database, name: str, holder: str) -> None:
    await db.fetch("DELETE FROM lease WHERE name = %(name)s AND holder = %(holder)s", {"name": name, "holder": holder})
