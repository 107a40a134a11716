"""Sweeps as actors: thin; ``retention`` decides what goes. The scheduler only sends them."""

from __future__ import annotations

import dramatiq

from actors import shared
from photochanger import audit, galleries, jobs, limits, logs, retention, sessions, settings
from photochanger.broker.messages import QUEUE


@dramatiq.actor(queue_name=QUEUE, max_retries=0)  # type: ignore[arg-type]
async def sweep(task: str) -> None:
    """Runs one of ``SWEEPS`` and remembers that it did."""
    try:
        removed = await SWEEPS[task]()
    except Exception as error:
        logs.event("sweep.failed", task=task, exc_info=True)
        # not as it is: a TimeoutError would keep dramatiq's thread asking for ever
        raise RuntimeError(f"the sweep of {task} failed") from error
    await retention.record_run(shared.db, task, removed)
    logs.event("sweep.finished", task=task, removed=removed)


async def _results() -> int:
    return await retention.clean_results(shared.db, shared.storage)


async def _originals() -> int:
    return await retention.clean_originals(shared.db, shared.storage)


async def _media() -> int:
    return await retention.clean_media(shared.db, shared.storage)


async def _orphans() -> int:
    return await retention.clean_orphans(shared.db, shared.storage)


async def _history() -> int:
    days = (await settings.load(shared.db)).t_audit_d
    kept = await audit.sweep(shared.db, days=days) + await galleries.sweep(shared.db, days=30)
    return kept + await retention.clean_history(shared.db)


async def _queue() -> int:
    return await retention.clean_queue(shared.db)


async def _limits() -> int:
    gone = await limits.sweep(shared.db) + await jobs.forget_keys(shared.db)
    return gone + await sessions.sweep(shared.db)


SWEEPS = {
    "limits": _limits,
    "results": _results,
    "originals": _originals,
    "media": _media,
    "orphans": _orphans,
    "history": _history,
    "queue": _queue,
}
