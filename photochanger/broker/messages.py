"""How a message gets into the queue table: always on the caller's own transaction.

A job and its message commit together or not at all. NOTIFY goes with the same transaction, as a doorbell only.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple
from uuid import uuid4

import dramatiq
import orjson
import psycopg

QUEUE = "default"
#: Rung when something was queued, and when running work is to be looked at (a job was cancelled or expired).
QUEUE_BELL = "photochanger_queue"
STOP_BELL = "photochanger_stop"

_ENQUEUE = """
INSERT INTO dramatiq.queue AS q (message_id, queue_name, state, message, priority, due_at)
VALUES (%s, %s, 'queued', %s::jsonb, %s, clock_timestamp() + %s * interval '1 millisecond')
"""
#: What is done with a message that is there already: dramatiq retries under the same id.
_AGAIN = """
ON CONFLICT (message_id) DO UPDATE SET state = 'queued', message = EXCLUDED.message,
    queue_name = EXCLUDED.queue_name, priority = EXCLUDED.priority, due_at = EXCLUDED.due_at,
    worker_id = NULL, leased_at = NULL, mtime = clock_timestamp()
"""
RING = f"SELECT pg_notify('{QUEUE_BELL}', '')"
_ENQUEUE_AND_RING = f"WITH sent AS ({_ENQUEUE} RETURNING 1) {RING} FROM sent".encode()
_REQUEUE_AND_RING = f"WITH sent AS ({_ENQUEUE} {_AGAIN} RETURNING 1) {RING} FROM sent".encode()


class Outgoing(NamedTuple):
    """A message as its row has it: its id, and dramatiq's own JSON."""

    message_id: str
    body: str


def message(actor: str, *, message_id: str | None = None, **kwargs: Any) -> Outgoing:
    """A message for ``actor``, named only: the sender need not import it. Put together by hand, because making and
    encoding dramatiq's own costs 20 µs of a message's 360."""
    message_id = message_id or str(uuid4())
    body = {
        "queue_name": QUEUE,
        "actor_name": actor,
        "args": (),
        "kwargs": kwargs,
        "options": {},
        "message_id": message_id,
        "message_timestamp": int(time.time() * 1000),
    }
    return Outgoing(message_id, orjson.dumps(body).decode())


async def enqueue(
    connection: psycopg.AsyncConnection[Any], message: Outgoing, *, delay_ms: int = 0, priority: int = 0
) -> None:
    """Writes ``message`` on ``connection``'s open transaction (or at once, in autocommit).

    An SQLAlchemy connection lends its own:
    ``(await connection.get_raw_connection()).driver_connection``.
    """
    await connection.execute(_ENQUEUE_AND_RING, (message.message_id, QUEUE, message.body, priority, delay_ms))


def enqueue_sync(
    connection: psycopg.Connection[Any], message: Outgoing, *, delay_ms: int = 0, priority: int = 0
) -> None:
    """``enqueue`` on a blocking connection."""
    connection.execute(_ENQUEUE_AND_RING, (message.message_id, QUEUE, message.body, priority, delay_ms))


def requeue_sync(connection: psycopg.Connection[Any], message: dramatiq.Message[Any], *, delay_ms: int = 0) -> None:
    """Writes a message that may be in the table already: what dramatiq's own ``broker.enqueue`` needs."""
    body = message.encode().decode()
    connection.execute(_REQUEUE_AND_RING, (message.message_id, message.queue_name, body, 0, delay_ms))
