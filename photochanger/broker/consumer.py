"""Claims, leases and takeovers of one worker process.

One thread (dramatiq's consumer thread) and one connection do all of it, so that a claim, a beat and a lost lease
can never race inside the process:

- **claim**: one statement deletes what was acknowledged and takes, FIFO within priority, as many messages as there
  are free threads, and of a lane with a width no more than it has room for over all workers (two that look in the
  same instant may take more, which permits then hold back; and one may find what it could take locked by the other,
  until its next beat);
- **beat**: every ``BEAT_S`` the worker's row is renewed. It is the lease on everything claimed. The same statement
  gives back the rows of dead workers, and says which rows are still ours;
- **sign of life**: the connection holds an advisory lock on the worker's id. PostgreSQL drops it the moment the
  process dies, so survivors need not wait for the lease to run out.

Claims and acknowledgements commit asynchronously: losing one in a crash of PostgreSQL redelivers the message, and
an actor that spends money first commits a claim on its own row, synchronously and later in the same log.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import psycopg
from dramatiq import Message
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.errors import ConnectionError, DecodeError

from photochanger import logs
from photochanger.broker.messages import QUEUE_BELL, STOP_BELL
from photochanger.db import FINDS_OUT

#: Seconds between beats; also the fallback poll, so that a lost NOTIFY costs at most this.
BEAT_S = 0.5
#: A worker silent this long is dead, whatever its connection says. With one beat on top, its work runs again ≤5 s.
LEASE_S = 4.0
#: A worker whose connection is gone is dead after this; a living one has reconnected and beaten by then.
DISCONNECTED_S = 1.0
#: After PostgreSQL itself restarted, every connection is gone at once: no takeover by connection death until then.
RESTART_GRACE_S = 5.0
#: First key of the advisory locks that say "worker <second key> lives".
LIFE_LOCK = 0x50436C66
RECONNECT_PAUSE_S = 0.1

_READY = """
    SELECT message_id, priority, due_at FROM dramatiq.queue
    WHERE queue_name = %(queue)s AND state = 'queued' AND due_at <= clock_timestamp() AND {which}
    ORDER BY priority, due_at
    LIMIT {limit}
    FOR UPDATE SKIP LOCKED
"""
_LANES = f"""
in_hand AS MATERIALIZED (
    SELECT lane, count(*) AS jobs FROM dramatiq.queue
    WHERE state = 'consumed' AND message_id <> ALL(%(acks)s::uuid[]) GROUP BY lane
), wide AS ({
    _READY.format(
        which="(lane <> ALL(ARRAY(SELECT name FROM dramatiq.lane)) OR lane_until <= clock_timestamp())",
        limit="%(free)s",
    )
}), narrow AS (
    SELECT q.* FROM dramatiq.lane l CROSS JOIN LATERAL ({
    _READY.format(
        which="lane = l.name AND (lane_until IS NULL OR lane_until > clock_timestamp())",
        limit="greatest(least(%(free)s, l.width - coalesce((SELECT jobs FROM in_hand h WHERE h.lane = l.name), 0)), 0)",
    )
}) q
), ready AS (
    SELECT message_id FROM (TABLE wide UNION ALL TABLE narrow) AS either
    ORDER BY priority, due_at LIMIT %(free)s
)
"""  # noqa: S608 - our own constants
_CLAIM = """
WITH acked AS (
    DELETE FROM dramatiq.queue
    WHERE message_id = ANY(%(acks)s::uuid[]) AND state = 'consumed' AND worker_id = %(worker)s
), {ready}, at AS MATERIALIZED (SELECT clock_timestamp() AS now)
UPDATE dramatiq.queue q SET state = 'consumed', worker_id = %(worker)s, mtime = at.now, leased_at = at.now
FROM ready, at WHERE q.message_id = ready.message_id
RETURNING q.message::text, q.priority, q.due_at, q.message_id::text
"""
_CLAIM_WIDE = _CLAIM.format(ready=f"ready AS ({_READY.format(which='true', limit='%(free)s')})").encode()
_CLAIM_IN_LANES = _CLAIM.format(ready=_LANES).encode()

# Rows of dead workers go back to the queue; rows that are ours in the table but not in our hands (the answer to a
# claim was lost) too. Whoever deletes the dead worker's row is the one who gives its rows back; where a paused
# process holds that row, the next beat tries again: nobody's own beat waits for it.
_BEAT = b"""
WITH at AS MATERIALIZED (
    SELECT clock_timestamp() AS now, pg_postmaster_start_time() AS server_started
), me AS (
    UPDATE dramatiq.worker SET beat_at = at.now, draining = %(draining)s FROM at WHERE id = %(worker)s RETURNING id
), silent AS MATERIALIZED (
    SELECT w.id FROM dramatiq.worker w, at
    WHERE w.id <> %(worker)s AND (
        greatest(w.beat_at, at.server_started) < at.now - %(lease_s)s * interval '1 second'
        OR (w.beat_at < at.now - %(disconnected_s)s * interval '1 second'
            AND at.server_started < at.now - %(grace_s)s * interval '1 second'
            AND NOT EXISTS (
                SELECT FROM pg_locks l
                WHERE l.locktype = 'advisory' AND l.classid = %(life)s AND l.objid = w.id AND l.objsubid = 2
                  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())))
    ) FOR UPDATE OF w SKIP LOCKED
), dead AS (
    DELETE FROM dramatiq.worker w USING silent WHERE w.id = silent.id RETURNING w.id
), given_back AS (
    UPDATE dramatiq.queue q SET state = 'queued', worker_id = NULL, leased_at = NULL, mtime = at.now
    FROM at WHERE q.state = 'consumed' AND (
        q.worker_id IN (SELECT id FROM dead)
        OR (q.worker_id = %(worker)s AND q.message_id <> ALL(%(in_hand)s::uuid[]))
        OR NOT EXISTS (SELECT FROM dramatiq.worker w WHERE w.id = q.worker_id)
    ) RETURNING q.message_id
)
SELECT
    EXISTS (SELECT FROM me) AS alive,
    EXISTS (SELECT FROM dramatiq.lane) AS lanes,
    ARRAY(SELECT id FROM dead) AS dead,
    (SELECT count(*) FROM given_back) AS given_back,
    ARRAY(SELECT message_id::text FROM dramatiq.queue
          WHERE state = 'consumed' AND worker_id = %(worker)s AND message_id = ANY(%(in_hand)s::uuid[])) AS mine
"""
_REQUEUE = b"""
UPDATE dramatiq.queue SET state = 'queued', worker_id = NULL, leased_at = NULL, mtime = clock_timestamp()
WHERE message_id = ANY(%(ids)s::uuid[]) AND state = 'consumed' AND worker_id = %(worker)s
"""
_SET_ASIDE = b"""
UPDATE dramatiq.queue SET state = 'rejected', worker_id = NULL, leased_at = NULL, mtime = clock_timestamp()
WHERE message_id = ANY(%(ids)s::uuid[]) AND state = 'consumed' AND worker_id = %(worker)s
"""
_REJECT = b"""
UPDATE dramatiq.queue SET state = 'rejected', message = %(message)s::jsonb, worker_id = NULL, leased_at = NULL,
    mtime = clock_timestamp()
WHERE message_id = %(id)s AND state = 'consumed' AND worker_id = %(worker)s
"""


class LeasingConsumer(Consumer):
    """One worker process's hold on the queue. ``ack`` and ``nack`` may be called from any thread.

    It never raises for a lost connection: it reconnects under the same worker id and keeps what is in hand.
    """

    def __init__(
        self,
        url: str,
        *,
        queue_name: str,
        threads: int,
        host: str,
        on_stop: Callable[[str | None], None],
        ring: bool = True,
    ) -> None:
        self.url = url
        self.queue_name = queue_name
        self.threads = threads
        self.host = host
        self.worker_id: int | None = None
        self._on_stop = on_stop
        self._ring = ring
        self._connection: psycopg.Connection[Any] | None = None
        self._lock = threading.Lock()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._claimed: deque[Message[Any]] = deque()
        self._in_hand: set[str] = set()
        self._acks: list[str] = []
        self._rejects: list[Message[Any]] = []
        self._next_beat = 0.0
        self._look = True
        self._draining = False
        self._alive_shown = False
        #: Whether there are lanes, as of the last beat: looking into them costs a claim a third more.
        self._in_lanes = True

    # -- dramatiq's consumer protocol ---------------------------------------------------------------------------

    def __next__(self) -> MessageProxy | None:
        """The next message, or ``None`` after at most ``BEAT_S`` without one."""
        if self._claimed:
            return MessageProxy(self._claimed.popleft())  # type: ignore[no-untyped-call]
        try:
            self._wait()
            self._settle()
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            self._disconnect(error)
        return MessageProxy(self._claimed.popleft()) if self._claimed else None  # type: ignore[no-untyped-call]

    def ack(self, message: MessageProxy) -> None:
        """Done: the row leaves the table with the next claim, if it is still ours."""
        with self._lock:
            self._acks.append(message.message_id)
        self._wake()

    def nack(self, message: MessageProxy) -> None:
        """Failed: the row stays as a dead letter that an administrator can see and requeue."""
        with self._lock:
            self._rejects.append(message._message)
        self._wake()

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Gives messages back that were claimed but not started."""
        ids = [message.message_id for message in messages]
        if not ids:
            return
        try:
            self._connected().execute(_REQUEUE, {"ids": ids, "worker": self.worker_id})
        except psycopg.Error as error:
            raise ConnectionError(str(error)) from error  # type: ignore[no-untyped-call]
        with self._lock:
            self._in_hand.difference_update(ids)

    def close(self) -> None:
        """Acknowledges what is done, gives back the rest, and removes the worker's row."""
        try:
            connection = self._connected()
            self._reject()
            with self._lock:
                acks, self._acks = self._acks, []
            connection.execute(_CLAIM_WIDE, self._claim_params(acks, free=0))
            connection.execute(_REQUEUE, {"ids": list(self._in_hand.difference(acks)), "worker": self.worker_id})
            connection.execute(b"DELETE FROM dramatiq.worker WHERE id = %s", (self.worker_id,))
        except psycopg.Error as error:
            logs.event("queue.disconnected", error=type(error).__name__)  # its lease runs out instead
        finally:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    # -- ours -----------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """No new claims from now on; beats and acknowledgements go on until ``close``."""
        self._draining = True
        self._next_beat = 0.0
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # the pipe is full of reasons to wake already
            os.write(self._wake_write, b"!")

    def _wait(self) -> None:
        """Sleeps until a bell, an acknowledgement or the next beat."""
        connection = self._connected()
        if self._look:
            return
        timeout = max(0.0, self._next_beat - time.monotonic())
        ready, _, _ = select.select([connection.fileno(), self._wake_read], [], [], timeout)
        if self._wake_read in ready:
            os.read(self._wake_read, 65536)
            self._look = True
        if connection.fileno() in ready:
            # Read what is there; the handler below turns it into flags.
            connection.pgconn.consume_input()
            while notify := connection.pgconn.notifies():
                self._heard(notify.relname.decode(), notify.extra.decode())

    def _settle(self) -> None:
        """One round: dead letters, the beat when it is due, then acknowledge and claim."""
        self._reject()
        if time.monotonic() >= self._next_beat:
            self._beat()
            self._look = True
        if not self._look:
            return
        with self._lock:
            acks, self._acks = self._acks, []
            self._in_hand.difference_update(acks)
            free = 0 if self._draining else self.threads - len(self._in_hand)
        self._look = False
        if not acks and free <= 0:
            return
        try:
            claim = _CLAIM_IN_LANES if self._in_lanes else _CLAIM_WIDE
            rows = self._connected().execute(claim, self._claim_params(acks, free=free)).fetchall()
        except psycopg.Error:
            with self._lock:  # nobody else would acknowledge them: they are said again after reconnecting
                self._acks.extend(acks)
                self._in_hand.update(acks)
            self._look = True
            raise
        read = {row[3]: _read(row[0], row[3]) for row in sorted(rows, key=lambda row: row[1:3])}
        claimed = [message for message in read.values() if message is not None]
        with self._lock:
            self._in_hand.update(message.message_id for message in claimed)
        self._claimed.extend(claimed)
        if unreadable := [message_id for message_id, message in read.items() if message is None]:
            self._connected().execute(_SET_ASIDE, {"ids": unreadable, "worker": self.worker_id})
            logs.event("queue.unreadable", messages=unreadable)

    def _claim_params(self, acks: list[str], *, free: int) -> dict[str, Any]:
        return {"acks": acks, "worker": self.worker_id, "queue": self.queue_name, "free": max(free, 0)}

    def _reject(self) -> None:
        while self._rejects:
            message = self._rejects[0]
            self._connected().execute(
                _REJECT, {"message": message.encode().decode(), "id": message.message_id, "worker": self.worker_id}
            )
            with self._lock:
                self._rejects.pop(0)
                self._in_hand.discard(message.message_id)
            self._look = True

    def _beat(self) -> None:
        with self._lock:
            in_hand = list(self._in_hand)
        row = (
            self._connected()
            .execute(
                _BEAT,
                {
                    "worker": self.worker_id,
                    "draining": self._draining,
                    "lease_s": LEASE_S,
                    "disconnected_s": DISCONNECTED_S,
                    "grace_s": RESTART_GRACE_S,
                    "life": LIFE_LOCK,
                    "in_hand": in_hand,
                },
            )
            .fetchone()
        )
        assert row is not None
        alive, self._in_lanes, dead, given_back, mine = row
        self._next_beat = time.monotonic() + BEAT_S
        if dead:
            logs.event("worker.lost", workers=dead, messages=given_back)
        lost = set(in_hand).difference(mine)
        if not self._alive_shown:  # our own earlier connection still held it
            self._show_life()
        if not alive:
            # We were taken for dead (paused for longer than a lease): what we hold has other owners now.
            lost = set(in_hand)
            self._register()
        with self._lock:
            lost.difference_update(self._acks)
            lost.difference_update(message.message_id for message in self._rejects)
        for message_id in lost:
            self._on_stop(message_id)

    def _heard(self, channel: str, payload: str) -> None:
        if channel == STOP_BELL:
            self._on_stop(payload or None)
        else:
            self._look = True

    def _connected(self) -> psycopg.Connection[Any]:
        if self._connection is None:
            connection = psycopg.connect(
                self.url, autocommit=True, application_name="photochanger worker queue", **FINDS_OUT
            )
            # The table's statistics are always stale (it is empty or flooded); its partial indexes are always right.
            for setting in ("synchronous_commit", "enable_seqscan", "enable_bitmapscan", "enable_sort"):
                connection.execute(f"SET {setting} = off".encode())
            connection.execute(b"SET plan_cache_mode = force_generic_plan")
            connection.prepare_threshold = 0
            connection.add_notify_handler(lambda notify: self._heard(notify.channel, notify.payload))
            self._connection = connection
            if self.worker_id is None:
                self._register()
            else:
                self._show_life()
            if self._ring:
                connection.execute(f'LISTEN "{QUEUE_BELL}"'.encode())
                connection.execute(f'LISTEN "{STOP_BELL}"'.encode())
            self._next_beat = 0.0
            self._look = True
        return self._connection

    def _register(self) -> None:
        assert self._connection is not None
        row = self._connection.execute(
            b"INSERT INTO dramatiq.worker (host, pid, threads) VALUES (%s, %s, %s) RETURNING id",
            (self.host, os.getpid(), self.threads),
        ).fetchone()
        assert row is not None
        self.worker_id = row[0]
        self._show_life()

    def _show_life(self) -> None:
        assert self._connection is not None
        row = self._connection.execute(b"SELECT pg_try_advisory_lock(%s, %s)", (LIFE_LOCK, self.worker_id)).fetchone()
        self._alive_shown = row == (True,)

    def _disconnect(self, error: psycopg.Error) -> None:
        logs.event("queue.disconnected", error=type(error).__name__)
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._on_stop(None)
        time.sleep(RECONNECT_PAUSE_S)


def _read(body: str | None, message_id: str) -> Message[Any] | None:
    """A row's message; ``None`` where it is not one of that id, as somebody's hand or another version may have left."""
    try:
        message: Message[Any] = Message.decode((body or "").encode())
    except DecodeError:
        return None
    return message if message.message_id == message_id else None
