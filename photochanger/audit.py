"""Who did what to what, from where: written in the transaction of what was done, read newest first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from photochanger import logs
from photochanger.db import Database, Row, fetch

#: Entries read at once, at most.
MOST = 200
#: Entries forgotten in one statement.
BATCH = 1000
#: The actor of what a command did; no account's name has brackets.
COMMAND_LINE = "(command)"


@dataclass(frozen=True)
class Deed:
    """One entry, as ``record`` takes it, for who writes it in a transaction of its own."""

    actor: str
    action: str
    target: str
    detail: Mapping[str, Any] = field(default_factory=dict)


async def record(
    where: AsyncConnection[Any] | Database,
    *,
    actor: str | None,
    action: str,
    target: str,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Writes one entry, on an open transaction's connection or on its own. Address and request id are those of the
    request that is being served.

    ``actor``: an account's name; ``None`` where nobody has signed in. ``action``: ``noun.verb`` in the past, such as
    ``slot.saved``. ``target``: ``kind/id``, such as ``slot/slot-001``. ``detail``: what else is worth knowing, as
    JSON; never a password, key or token.
    """
    params = {
        "actor": actor,
        "action": action,
        "target": target,
        "detail": Jsonb(dict(detail or {})),
        "address": logs.address.get(),
        "request_id": logs.request_id.get(),
    }
    if isinstance(where, Database):
        await where.fetch(_RECORD, params)
    else:
        await fetch(where, _RECORD, params)


async def sweep(db: Database, *, days: int) -> int:
    """Forgets entries older than ``days``; how many."""
    gone = 0
    while rows := await db.fetch(_SWEEP, {"days": days}):
        gone += len(rows)
    return gone


_SWEEP = f"""
DELETE FROM audit WHERE id = ANY(ARRAY(
    SELECT id FROM audit WHERE at < clock_timestamp() - %(days)s * interval '1 day' ORDER BY at LIMIT {BATCH}
)) RETURNING 1 AS gone
"""  # noqa: S608 - our own constant
_RECORD = (
    "INSERT INTO audit (actor, action, target, detail, address, request_id) "
    "VALUES (%(actor)s, %(action)s, %(target)s, %(detail)s, %(address)s, %(request_id)s)"
)
_FILTERS = {
    "actor": "actor = %(actor)s",
    "action": "action >= %(action)s AND action < %(action)s || '~'",
    "target": "target = %(target)s",
    "since": "at >= %(since)s",
    "until": "at < %(until)s",
    "before": "(at, id) < (SELECT at, id FROM audit WHERE id = %(before)s)",
}


async def listing(
    db: Database,
    *,
    actor: str | None = None,
    action: str | None = None,
    target: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    before: int | None = None,
    limit: int = 50,
) -> tuple[list[Row], bool]:
    """Entries, newest first, and whether there are older ones.

    ``action``: a prefix, such as ``slot.``; ``since`` is included, ``until`` is not. ``before``: those older than the
    entry of this id, which is how the next page is asked for. ``limit``: at most ``MOST``.
    """
    given = {
        "actor": actor,
        "action": action,
        "target": target,
        "since": since,
        "until": until,
        "before": before,
    }
    wanted = " AND ".join(_FILTERS[name] for name, value in given.items() if value is not None) or "true"
    most = max(1, min(limit, MOST))
    rows = await db.fetch(
        "SELECT id, at, actor, action, target, detail, address, request_id FROM audit "  # noqa: S608
        f"WHERE {wanted} ORDER BY at DESC, id DESC LIMIT %(limit)s",
        {**given, "limit": most + 1},
    )
    return rows[:most], len(rows) > most
