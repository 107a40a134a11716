"""How a message gets into the queue table: always on the caller's own transaction.

A job and its message commit together or not at all. NOTIFY goes with the same transaction, as a doorbell only.
"""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import psycopg
from dramatiq import Message

QUEUE = "default"
#: Rung when something was queued, and when running work is to be looked at (a job was cancelled or expired).
QUEUE_BELL = "photochanger_queue"
STOP_BELL = "photochanger_stop"

#: Inserts one message; parameters as ``row()`` gives them.
ENQUEUE = """
INSERT INTO dramatiq.queue AS q (message_id, queue_name, state, message, priority, due_at)
VALUES (%(message_id)s, %(queue_name)s, 'queued', %(message)s::jsonb, %(priority)s,
        clock_timestamp() + %(delay_ms)s * interval '1 millisecond')
"""
#: What ``ENQUEUE`` does with a message that is there already: dramatiq retries under the same id.
AGAIN = """
ON CONFLICT (message_id) DO UPDATE SET state = 'queued', message = EXCLUDED.message,
    queue_name = EXCLUDED.queue_name, priority = EXCLUDED.priority, due_at = EXCLUDED.due_at,
    worker_id = NULL, leased_at = NULL, mtime = clock_timestamp()
"""
RING = "SELECT pg_notify('photochanger_queue', '')"


def message(actor: str, *, message_id: str | None = None, **kwargs: Any) -> Message[Any]:
    """A message for ``actor``, named only: the sender need not import it."""
    return Message(
        queue_name=QUEUE,
        actor_name=actor,
        args=(),
        kwargs=kwargs,
        options={},
        message_id=message_id or str(uuid4()),
    )


def row(message: Message[Any], *, delay_ms: int = 0, priority: int = 0) -> dict[str, Any]:
    """``ENQUEUE``'s parameters."""
    return {
        "message_id": message.message_id,
        "queue_name": message.queue_name,
        "message": message.encode().decode(),
        "priority": priority,
        "delay_ms": delay_ms,
    }


async def enqueue(
    connection: psycopg.AsyncConnection[Any], message: Message[Any], *, delay_ms: int = 0, priority: int = 0
) -> None:
    """Writes ``message`` on ``connection``'s open transaction (or at once, in autocommit).

    An SQLAlchemy connection lends its own:
    ``(await connection.get_raw_connection()).driver_connection``.
    """
    await connection.execute(_ENQUEUE_AND_RING, row(message, delay_ms=delay_ms, priority=priority))


def enqueue_sync(
    connection: psycopg.Connection[Any], message: Message[Any], *, delay_ms: int = 0, priority: int = 0
) -> None:
    """``enqueue`` on a blocking connection."""
    connection.execute(_ENQUEUE_AND_RING, row(message, delay_ms=delay_ms, priority=priority))


def requeue_sync(connection: psycopg.Connection[Any], message: Message[Any], *, delay_ms: int = 0) -> None:
    """``enqueue_sync`` of a message that may be in the table: what dramatiq's own ``broker.enqueue`` needs."""
    connection.execute(_REQUEUE_AND_RING, row(message, delay_ms=delay_ms))


_REQUEUE_AND_RING = f"WITH sent AS ({ENQUEUE} {AGAIN} RETURNING 1) {RING} FROM sent".encode()
_ENQUEUE_AND_RING = f"WITH sent AS ({ENQUEUE} RETURNING 1) {RING} FROM sent".encode()
