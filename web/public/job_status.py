"""``/public/jobs/{job_id}``: the state of one's own job, and its cancelling; each with a token of its own, because a
guest knows the job's id from the result link."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

import falcon.asgi
import orjson

from photochanger import jobs, logs, retention
from photochanger.db import Row
from photochanger.failures import Conflict, JobNotFound
from photochanger.tokens import Links
from web import problems
from web.exchange import SCOPE_KEY
from web.ingest import failure_of, preferences
from web.services import Services

#: Seconds a status request may wait; more than any deadline.
MAX_WAIT_S = 65.0


class JobStatusResource:
    """GET: how far the job is. ``Prefer: wait=N`` answers as soon as it is final, after N seconds at the latest."""

    def __init__(self, services: Services) -> None:
        self._its = services

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, job_id: str) -> None:
        key = genuine(self._its.status_links, req, job_id)
        wait_s = min(preferences(req.get_header("Prefer")).get("wait", 0.0), MAX_WAIT_S)
        with self._its.waiting.waiter(key) as waiter:
            waiter.deadline = time.monotonic()
            row = await existing(self._its, key)
            if not row["is_finalized"] and wait_s:
                resp.set_header("Preference-Applied", f"wait={wait_s:g}")
                await req.scope[SCOPE_KEY].wait(waiter.final, timeout_s=wait_s)
                row = waiter.final.result() if waiter.final.done() else await existing(self._its, key)
        await write(self._its, req, resp, row)


class JobCancel:
    """POST: cancels a pending or running job; the provider call is aborted."""

    def __init__(self, services: Services) -> None:
        self._its = services

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, job_id: str) -> None:
        key = genuine(self._its.cancel_links, req, job_id)
        final = await jobs.cancel(self._its.db, key, detail="Cancelled by its sender")
        await retention.drop_payloads(self._its.storage, [final])
        row = await existing(self._its, key)
        if row["status"] != "cancelled":
            raise Conflict(f"The job has already ended: {row['status']}")
        if final is not None:
            logs.job_id.set(job_id)
            logs.event("job.cancelled", detail="by its own link")
        await write(self._its, req, resp, row)


def genuine(links: Links, req: falcon.asgi.Request, job_id: str) -> UUID:
    """The job's id, where the token is the right one.

    Raises:
        JobNotFound: else, whether or not there is such a job.
    """
    try:
        key = UUID(job_id)
    except ValueError:
        raise JobNotFound() from None
    if links.expiry(str(key), req.get_param("token") or "") is None:
        raise JobNotFound()
    return key


async def existing(its: Services, job_id: UUID) -> Row:
    row = await jobs.find(its.db, job_id)
    if row is None:
        raise JobNotFound("The job's record has been deleted")
    return row


async def write(its: Services, req: falcon.asgi.Request, resp: falcon.asgi.Response, row: Row) -> None:
    """A job's state as JSON; instants as RFC 3339 in UTC."""
    body: dict[str, Any] = {
        "job_id": str(row["id"]),
        "slot_id": row["slot_id"],
        "status": row["status"],
        "created_at": row["created_at"],
        "expires_at": row["expires_at"],
        "finalized_at": row["finalized_at"],
        "failure": None,
        "result": None,
    }
    if result := its.result_of(req, await its.settings.get(), row):
        body["result"] = result.model_dump()
    if row["is_finalized"] and row["status"] != "succeeded":
        body["failure"] = problems.problem(failure_of(row), job_id=str(row["id"]))
    resp.content_type = "application/json"
    resp.data = orjson.dumps(body, option=orjson.OPT_UTC_Z)
    resp.set_header("Cache-Control", "no-store")
