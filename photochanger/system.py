"""What an administrator sees of the machinery: workers, queue, dead letters, schedules, disk, versions."""

from __future__ import annotations

import platform
from datetime import datetime
from typing import Any
from uuid import UUID

from photochanger import __version__, audit, schema
from photochanger.broker.messages import QUEUE_BELL
from photochanger.db import Database, Row, fetch
from photochanger.failures import NotFound
from photochanger.metrics import QUEUE

_WORKERS = """
SELECT w.id, w.host, w.pid, w.threads, w.started_at, w.beat_at, w.draining,
       extract(epoch FROM clock_timestamp() - w.beat_at)::float8 AS silent_s,
       (SELECT count(*)::int FROM dramatiq.queue q WHERE q.state = 'consumed' AND q.worker_id = w.id) AS busy
FROM dramatiq.worker w ORDER BY w.id LIMIT 200
"""


async def queue(db: Database) -> Row:
    """How many messages wait, run and have failed, how long the oldest has waited in seconds, and the live workers."""
    return (await db.fetch(QUEUE))[0]


async def workers(db: Database) -> list[Row]:
    """Every worker process with its last sign of life and the messages it has in hand."""
    return await db.fetch(_WORKERS)


async def schedules(db: Database) -> list[Row]:
    """Scheduled tasks: when each last ran, and what came of it."""
    return await db.fetch("SELECT name, last_run_at, last_result FROM scheduled_run ORDER BY name LIMIT 200")


async def leader(db: Database) -> str | None:
    """The scheduler that acts now."""
    rows = await db.fetch("SELECT holder FROM lease WHERE name = 'scheduler' AND expires_at > clock_timestamp()")
    return rows[0]["holder"] if rows else None


async def versions(db: Database) -> dict[str, str | None]:
    """What runs here."""
    server = (await db.fetch("SELECT current_setting('server_version') AS version"))[0]["version"]
    return {
        "photochanger": __version__,
        "python": platform.python_version(),
        "postgresql": server,
        "migration": await schema.current(db),
    }


async def dead_letters(db: Database, *, after: tuple[datetime, UUID] | None = None, limit: int = 50) -> list[Row]:
    """Messages whose actor has failed, newest first: id, actor, arguments, when; and the last line of the trace."""
    return await db.fetch(
        "SELECT message_id AS id, message->>'actor_name' AS actor, message->'kwargs' AS arguments, mtime AS failed_at, "
        "right(message #>> '{options,traceback}', 400) AS trace FROM dramatiq.queue WHERE state = 'rejected' "
        "AND (%(at)s::timestamptz IS NULL OR (mtime, message_id) < (%(at)s, %(id)s::uuid)) "
        "ORDER BY mtime DESC, message_id DESC LIMIT %(limit)s",
        {"at": after and after[0], "id": after and after[1], "limit": limit},
    )


_REQUEUE = f"""
UPDATE dramatiq.queue SET state = 'queued', due_at = clock_timestamp(), mtime = clock_timestamp()
WHERE message_id = %(id)s AND state = 'rejected' RETURNING pg_notify('{QUEUE_BELL}', '')
"""  # noqa: S608 - our own constant


async def requeue(db: Database, message_id: UUID, *, actor: str) -> None:
    """Has a dead letter's message tried again.

    Raises:
        NotFound: there is no such dead letter.
    """
    await _dead_letter(
        db,
        _REQUEUE,
        message_id,
        actor=actor,
        action="dead_letter.requeued",
    )


async def drop(db: Database, message_id: UUID, *, actor: str) -> None:
    """Deletes a dead letter.

    Raises:
        NotFound: there is no such dead letter.
    """
    await _dead_letter(
        db,
        "DELETE FROM dramatiq.queue WHERE message_id = %(id)s AND state = 'rejected' RETURNING 1 AS gone",
        message_id,
        actor=actor,
        action="dead_letter.deleted",
    )


async def _dead_letter(db: Database, sql: str, message_id: UUID, **what: Any) -> None:
    async with db.transaction() as connection:
        if not await fetch(connection, sql, {"id": message_id}):
            raise NotFound(f"There is no dead letter {message_id}")
        await audit.record(connection, target=f"message/{message_id}", **what)
