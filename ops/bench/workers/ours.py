"""PhotoChanger's broker, as ``actors`` builds it, with the bench's actors."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import dramatiq
import psycopg

from ops.bench import work
from photochanger.broker import messages
from photochanger.broker.postgres import LeasingBroker

broker = LeasingBroker(os.environ["BENCH_URL"])
dramatiq.set_broker(broker)
for _name, _work in {"noop": work.noop, "nap": work.nap, "async_nap": work.async_nap, "hold": work.hold}.items():
    dramatiq.actor(_work, actor_name=_name, queue_name=messages.QUEUE, max_retries=0)  # type: ignore[call-overload]


def sender() -> Callable[..., None]:
    """Sends as the web process does: one statement on an open connection."""
    connection = psycopg.connect(os.environ["BENCH_URL"], autocommit=True)

    def send(actor: str, **kwargs: Any) -> None:
        messages.enqueue_sync(connection, messages.message(actor, **kwargs))

    return send
