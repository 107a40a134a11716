"""The dramatiq broker of the workers: dramatiq-pg's class and table, psycopg 3 for every statement."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

import dramatiq
import psycopg
import uvloop
from dramatiq.asyncio import EventLoopThread, set_event_loop_thread
from dramatiq.broker import Consumer
from dramatiq.middleware import AsyncIO, CurrentMessage, Middleware, Retries
from dramatiq_pg import PostgresBroker

from photochanger.broker import messages
from photochanger.broker.consumer import LeasingConsumer
from photochanger.process import die_with_parent


class _NeverConnected:
    """Stands where dramatiq-pg wants a psycopg2 pool: touching it is a bug."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"a psycopg2 connection was asked for ({name}); every statement of ours is psycopg 3")


class LeasingBroker(PostgresBroker):  # type: ignore[misc]
    """Transactional enqueue, SKIP LOCKED claims and leases on dramatiq-pg's queue table.

    Args:
        url: ``postgresql://`` URL.
        on_stop: called (in the consumer's thread) with a message id whose work is to be looked at again, or with
            ``None`` when any may be: the bell is a hint, not a truth.
        ring: whether to listen; without, messages are found by the fallback poll.
    """

    def __init__(self, url: str, *, on_stop: Callable[[str | None], None] | None = None, ring: bool = True) -> None:
        super().__init__(
            pool=_NeverConnected(),
            results=False,
            schema="dramatiq",
            prefix="",
            middleware=[_EventLoop(), CurrentMessage(), Retries(max_retries=0), _Lifecycle()],  # type: ignore[no-untyped-call]
        )
        self.url = url
        self.on_stop = on_stop or (lambda message_id: None)
        self.ring = ring
        self.threads = 1
        self.consumer: LeasingConsumer | None = None

    @property
    def worker_id(self) -> int | None:
        """This process's row among the workers, while it consumes; what is leased to it goes with that row."""
        return self.consumer.worker_id if self.consumer is not None else None

    def declare_queue(self, queue_name: str) -> None:
        """Declares a queue without a delay queue beside it: delayed messages wait in the table."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues[queue_name] = True
            self.emit_after("declare_queue", queue_name)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30000) -> Consumer:
        self.consumer = LeasingConsumer(
            self.url,
            queue_name=queue_name,
            threads=self.threads,
            host=socket.gethostname(),
            on_stop=self.on_stop,
            ring=self.ring,
        )
        return self.consumer

    def enqueue(self, message: dramatiq.Message[Any], *, delay: int | None = None) -> dramatiq.Message[Any]:
        """Sends on a connection of its own: for dramatiq's retries and ``actor.send()`` in scripts. Code with a
        transaction uses ``messages.enqueue``."""
        self.emit_before("enqueue", message, delay)
        with psycopg.connect(self.url, autocommit=True) as connection:
            messages.requeue_sync(connection, message, delay_ms=delay or 0)
        self.emit_after("enqueue", message, delay)
        return message


class _EventLoop(AsyncIO):
    """dramatiq's event loop thread, with uvloop, and as a daemon: at a second SIGTERM the main thread exits while the
    first still drains, and a thread that is waited for would keep the process alive for ever."""

    def before_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
        thread = EventLoopThread(self.logger)
        thread.daemon = True
        thread.start(timeout=10.0)
        set_event_loop_thread(thread)


class _Lifecycle(Middleware):
    """Tells the broker how many threads it may feed, and stops claims when the worker drains."""

    def after_process_boot(self, broker: dramatiq.Broker) -> None:
        # A master that dies while its worker boots leaves it waiting for ever in multiprocessing's Event, claiming
        # but deaf to SIGTERM: no worker outlives its master. Its leases end, others take over.
        die_with_parent()
        parent = multiprocessing.parent_process()
        if parent is not None and parent.pid != os.getppid():  # it ended before the promise was made
            os.kill(os.getpid(), signal.SIGKILL)

    def before_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        assert isinstance(broker, LeasingBroker)
        broker.threads = worker.worker_threads

    def before_worker_shutdown(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        assert isinstance(broker, LeasingBroker)
        if broker.consumer is not None:
            broker.consumer.drain()
