"""The floor: bare psycopg and PostgreSQL, with nothing around them that a queue needs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import psycopg

TABLE = """
CREATE TABLE message (
    id uuid PRIMARY KEY, state text NOT NULL, body jsonb NOT NULL, at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON message (at) WHERE state = 'queued'
"""
SEND = b"""
WITH sent AS (INSERT INTO message (id, state, body) VALUES (%s, 'queued', %s::jsonb) RETURNING 1)
SELECT pg_notify('queue', '') FROM sent
"""
_CLAIM = b"""
UPDATE message SET state = 'running' WHERE id = (
    SELECT id FROM message WHERE state = 'queued' ORDER BY at LIMIT 1 FOR UPDATE SKIP LOCKED
) RETURNING id, body
"""
_FINALISE = b"""
WITH done AS (UPDATE message SET state = 'done' WHERE id = %s RETURNING id)
SELECT pg_notify('done', id::text) FROM done
"""


def _row(actor: str, kwargs: dict[str, Any]) -> tuple[str, str]:
    """The same message as dramatiq writes, put together by hand."""
    key = str(uuid4())
    body = {
        "queue_name": "default",
        "actor_name": actor,
        "args": [],
        "kwargs": kwargs,
        "options": {},
        "message_id": key,
        "message_timestamp": int(time.time() * 1000),
    }
    return key, json.dumps(body, separators=(",", ":"))


def sender() -> Callable[..., None]:
    """INSERT and NOTIFY in one statement, committed as PostgreSQL does by default."""
    connection = psycopg.connect(os.environ["BENCH_URL"], autocommit=True)

    def send(actor: str, **kwargs: Any) -> None:
        connection.execute(SEND, _row(actor, kwargs))

    return send


class Trip:
    """One message's way there and back over three connections: send, claim, finalise, seen."""

    def __init__(self, url: str) -> None:
        self._camera, self._worker, self._waiter = (psycopg.connect(url, autocommit=True) for _ in range(3))
        self._worker.execute(b"LISTEN queue")
        self._waiter.execute(b"LISTEN done")

    def take(self) -> tuple[float, float]:
        """Seconds until the message was claimed, and until it was seen to be done."""
        began = time.monotonic()
        self._camera.execute(SEND, _row("noop", {"key": began}))
        next(self._worker.notifies(timeout=5, stop_after=1))
        row = self._worker.execute(_CLAIM).fetchone()
        claimed = time.monotonic()
        assert row is not None
        self._worker.execute(_FINALISE, (row[0],))
        next(self._waiter.notifies(timeout=5, stop_after=1))
        return claimed - began, time.monotonic() - began

    def close(self) -> None:
        for connection in (self._camera, self._worker, self._waiter):
            connection.close()
