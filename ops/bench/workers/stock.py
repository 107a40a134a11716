"""dramatiq-pg as it is published, with the bench's actors."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import dramatiq
from dramatiq.middleware import AsyncIO, CurrentMessage, Retries
from dramatiq_pg import PostgresBroker

from ops.bench import work

broker = PostgresBroker(
    url=os.environ["BENCH_URL"],
    results=False,
    middleware=[AsyncIO(), CurrentMessage(), Retries(max_retries=0)],  # type: ignore[no-untyped-call]
)
dramatiq.set_broker(broker)
_actors: dict[str, Any] = {
    name: dramatiq.actor(function, actor_name=name, queue_name="default", max_retries=0)  # type: ignore[call-overload]
    for name, function in {"noop": work.noop, "nap": work.nap, "hold": work.hold}.items()
}


def sender() -> Callable[..., None]:
    """Sends as its users do: ``actor.send()``."""

    def send(actor: str, **kwargs: Any) -> None:
        _actors[actor].send(**kwargs)

    return send
