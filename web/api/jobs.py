"""``/api/jobs``: the list, everything about one, and what may be done to one or many."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

import falcon.asgi
from pydantic import BaseModel, ConfigDict, Field, model_validator

from photochanger import images, job_list, jobs, logs, rerun, retention
from photochanger.admission import NoRoom
from photochanger.failures import Conflict, Failure, JobNotFound, ResultNotFound
from photochanger.job_list import JobDetail, JobSummary
from photochanger.job_search import Place
from photochanger.settings import Settings
from photochanger.states import FINAL, JobStatus
from web import problems
from web.api import Instant, Page, answer, body, cursor, needs, position, query
from web.api.views import SMALL
from web.models import Accepted, Problem, Url
from web.pictures import PICTURE_CSP
from web.services import Services

#: Jobs of one bulk request that are named, and those found by a filter.
MOST_NAMED = 200
MOST_FOUND = 1000
#: Reruns of one bulk request: each takes a place in the queue.
MOST_RERUNS = 50
_OPEN = [status for status in JobStatus if status not in FINAL]


class JobInList(JobSummary):
    """A job as it stands in the list, with its picture."""

    result_url: Annotated[Url | None, Field(description="The guest's link; null: there is no picture now.")]
    thumbnail_url: Url | None


class JobPage(BaseModel):
    """Jobs, newest first."""

    items: list[JobInList]
    next: Annotated[str | None, Field(description="`after` of the next page; null: this is the last.")]


class JobView(JobDetail):
    """Everything about a job, with its pictures."""

    result_url: Annotated[Url | None, Field(description="The guest's link; null: there is no picture now.")]
    thumbnail_url: Url | None
    original_url: Annotated[str | None, Field(description="The photo as it came; null: it was deleted.")]


class JobFilter(BaseModel):
    """Which jobs; what is absent does not matter."""

    model_config = ConfigDict(extra="forbid")

    status: Annotated[list[JobStatus], Field(max_length=8, description="Any of them.")] = []
    failure_reason: Annotated[list[str], Field(max_length=40, description="Any of these failure codes.")] = []
    slot_id: Annotated[str, Field(max_length=63)] | None = None
    provider: Annotated[str, Field(max_length=64, description="It has served the job, or was called.")] | None = None
    since: Annotated[Instant, Field(description="Made then or later.")] | None = None
    until: Annotated[Instant, Field(description="Made before.")] | None = None
    text: (
        Annotated[
            str,
            Field(
                min_length=1,
                max_length=200,
                description="The job's id or its beginning, or words of what the camera sent, of the failure, of the "
                "providers' request ids.",
            ),
        ]
        | None
    ) = None


class JobQuery(JobFilter, Page):
    """A page of which jobs."""


class SomeJobs(BaseModel):
    """Jobs by name, or all that fit."""

    model_config = ConfigDict(extra="forbid")

    job_ids: Annotated[list[UUID], Field(max_length=MOST_NAMED)] | None = None
    filter: JobFilter | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> SomeJobs:
        if (self.job_ids is None) == (self.filter is None):
            raise ValueError("Give job_ids or filter, one of them")
        return self


class BulkCancelled(BaseModel):
    """What came of cancelling many."""

    cancelled: Annotated[int, Field(ge=0)]
    ended_before: Annotated[int, Field(ge=0, description="They had ended already, or there are none such.")]
    more: Annotated[bool, Field(description=f"The filter finds more than {MOST_FOUND}: say it again.")]


class RerunMany(BaseModel):
    """Jobs to be done again."""

    model_config = ConfigDict(extra="forbid")

    job_ids: Annotated[list[UUID], Field(min_length=1, max_length=MOST_RERUNS)]


class Rerun(BaseModel):
    """What came of one rerun: the new job, or why there is none."""

    of: UUID
    job_id: UUID | None
    failure: Problem | None


class Reruns(BaseModel):
    """What came of each, in the order that was asked for."""

    items: list[Rerun]


class Jobs:
    """GET: the jobs that fit, page by page."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("jobs:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        asked = query(req, JobQuery)
        place = position(asked.after, datetime, UUID)
        page = await found(self._its, asked, limit=asked.limit, after=Place(*place) if place else None)
        current = await self._its.settings.get()
        items = [JobInList(**one.model_dump(), **links(self._its, req, current, one)) for one in page.jobs]
        answer(resp, JobPage(items=items, next=cursor(*page.next) if page.next else None))


class JobSuggestions:
    """GET: what the list may be filtered by."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("jobs:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        answer(resp, await job_list.suggestions(self._its.db))


class OneJob:
    """GET: everything about a job."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("jobs:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, job_id: str) -> None:
        answer(resp, await view(self._its, req, job_key(job_id)))


class JobCancelling:
    """POST: cancels a job, waiting or running; the provider's call is aborted."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("jobs:write")
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, job_id: str) -> None:
        key = job_key(job_id)
        if not await cancel(self._its, key, actor=req.context.account.name):
            detail = await job_list.detail(self._its.db, key)
            raise Conflict(f"The job has already ended: {detail.status}")
        answer(resp, await view(self._its, req, key))


class JobRerun:
    """POST: does the photo again, as its slot is set now; behind the guests."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("jobs:write")
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, job_id: str) -> None:
        made = await again(self._its, job_key(job_id), actor=req.context.account.name)
        current = await self._its.settings.get()
        end = made.expires_at + timedelta(hours=current.t_result_retention_h)
        answer(resp, Accepted(**self._its.accepted_links(req, current, made.job_id, end)), 202)


class JobsCancel:
    """POST: cancels those named, or all that fit."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("jobs:write")
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        given = await body(req, SomeJobs)
        ids, more = given.job_ids, False
        if given.filter is not None:
            ids, more = await self._open(given.filter)
        cancelled = 0
        for key in dict.fromkeys(ids or ()):
            cancelled += await cancel(self._its, key, actor=req.context.account.name)
        answer(resp, BulkCancelled(cancelled=cancelled, ended_before=len(set(ids or ())) - cancelled, more=more))

    async def _open(self, wanted: JobFilter) -> tuple[list[UUID], bool]:
        statuses = [one for one in wanted.status or _OPEN if one in _OPEN]
        ids: list[UUID] = []
        after = None
        while statuses and len(ids) < MOST_FOUND:
            asked = wanted.model_copy(update={"status": statuses})
            page = await found(self._its, asked, limit=MOST_NAMED, after=after)
            ids += [one.job_id for one in page.jobs]
            after = page.next
            if after is None:
                break
        return ids, after is not None


class JobsRerun:
    """POST: does several photos again."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("jobs:write")
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        given = await body(req, RerunMany)
        answer(resp, Reruns(items=[await self._one(key, req.context.account.name) for key in given.job_ids]))

    async def _one(self, key: UUID, actor: str) -> Rerun:
        try:
            made = await again(self._its, key, actor=actor)
        except Failure as failure:
            return Rerun(of=key, job_id=None, failure=Problem.model_validate(problems.problem(failure)))
        return Rerun(of=key, job_id=made.job_id, failure=None)


class JobOriginal:
    """GET: the photo as it came, where it is kept."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("jobs:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, job_id: str) -> None:
        row = await jobs.find(self._its.db, job_key(job_id))
        if row is None:
            raise JobNotFound()
        if row["payload_path"] is None:
            raise ResultNotFound("The photo was deleted")
        resp.content_type = row["payload_mime"]
        resp.set_header("Content-Security-Policy", PICTURE_CSP)
        name = f"{row['id']}-original.{images.EXTENSIONS[row['payload_mime']]}"
        resp.set_header("Content-Disposition", f'inline; filename="{name}"')
        await self._its.pictures.send(resp, row["payload_path"], row["payload_bytes"])


def job_key(job_id: str) -> UUID:
    """
    Raises:
        JobNotFound: it is no id.
    """
    try:
        return UUID(job_id)
    except ValueError:
        raise JobNotFound() from None


async def found(its: Services, asked: JobFilter, *, limit: int, after: Place | None) -> job_list.Listing:
    """A page of the jobs that fit."""
    return await job_list.listing(
        its.db,
        statuses=asked.status,
        failure_reasons=asked.failure_reason,
        slot_id=asked.slot_id,
        provider=asked.provider,
        since=asked.since,
        until=asked.until,
        text=asked.text,
        after=after,
        limit=limit,
    )


async def view(its: Services, req: falcon.asgi.Request, key: UUID) -> JobView:
    """Everything about a job, with its links.

    Raises:
        JobNotFound: there is none.
    """
    detail = await job_list.detail(its.db, key)
    current = await its.settings.get()
    original = f"/api/jobs/{key}/original" if detail.has_original else None
    return JobView(**detail.model_dump(), **links(its, req, current, detail), original_url=original)


def links(its: Services, req: falcon.asgi.Request, current: Settings, one: JobSummary) -> dict[str, str | None]:
    """Of its picture, where it can be fetched now."""
    if not one.has_result or one.result_expires_at is None:
        return {"result_url": None, "thumbnail_url": None}
    url = its.result_url(req, current, one.job_id, one.result_expires_at)
    return {"result_url": url, "thumbnail_url": f"{url}&size={SMALL}"}


async def cancel(its: Services, key: UUID, *, actor: str) -> bool:
    """Cancels a job; False where it had ended, or there is none."""
    final = await jobs.cancel(its.db, key, detail="Cancelled by an administrator", actor=actor)
    if final is None:
        return False
    await retention.drop_payloads(its.storage, [final])
    logs.event("job.cancelled", detail="by an administrator")
    return True


async def again(its: Services, key: UUID, *, actor: str) -> jobs.Submitted:
    """Does a photo again.

    Raises:
        JobNotFound, Conflict, SlotDisabled, QueueFull: there is no new job.
    """
    row = await rerun.original(its.db, key)
    current = await its.settings.get()
    slot = await its.in_use(row["slot_id"])
    work = await its.door.work_of(slot, current)
    try:
        return await asyncio.shield(rerun.submit(its.db, its.storage, row, current, work, actor=actor))
    except NoRoom as full:
        slack_s = current.t_sync_response_s - work.need_s
        raise its.door.admission.refusal(work, full, slack_s=slack_s) from None
