"""``POST /api/slots/{slot_id}/test-run``: a photo on the same way as the guests', with what is not saved yet."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated
from uuid import uuid4

import falcon.asgi
from pydantic import BaseModel, ConfigDict, Field

from photochanger import job_list, jobs, readiness, rerun, retention, settings, slots
from photochanger.admission import Coming, NoRoom, Work
from photochanger.audit import Deed
from photochanger.failures import Cancelled, StorageFull, SyncTimeout
from photochanger.job_list import AttemptView
from photochanger.jobs import Submission, Submitted
from photochanger.settings import HOUR_S, Settings
from photochanger.slots import Options, Route, Slot
from photochanger.states import JobStatus
from photochanger.storage import PAYLOADS
from web import problems, uploads
from web.api import answer, needs, parsed
from web.api.jobs import cancel
from web.exchange import SCOPE_KEY, Exchange
from web.ingest import failure_of
from web.models import Problem, Result
from web.pages import details
from web.services import Services
from web.uploads import Upload
from web.waiting import GRACE_S, Waiter

OVERRIDES_FIELD = "overrides"


class Overrides(BaseModel):
    """What is tried instead of what is saved; what is absent is as saved."""

    model_config = ConfigDict(extra="forbid")

    route: Route | None = None
    options: Options | None = None


class TestRun(BaseModel):
    """What came of trying a slot. ``failure`` is there when no picture came of it."""

    __test__ = False  # it is no test of ours, whatever pytest makes of its name

    job_id: Annotated[str, Field(description="The job, with its attempts and log.")]
    status: JobStatus
    seconds: Annotated[float, Field(ge=0, description="From the upload's begin to the end.")]
    cost: Annotated[float, Field(ge=0, description="In the `currency` of the settings.")]
    served_by: str | None
    result: Result | None
    failure: Problem | None
    attempts: list[AttemptView]


class SlotTestRun:
    """POST: tries a slot, on or off; its photo goes behind those of guests, and into no statistics. Hanging up cancels
    it."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("slots:write")
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, slot_id: str) -> None:
        began = time.monotonic()
        slot = await slots.get(self._its.db, slot_id)
        current = await settings.load(self._its.db)
        with await self._let_in(slot, current, await self._its.door.work_of(slot, current)) as coming:
            async with uploads.received(
                req,
                self._its.storage,
                exchange=req.scope[SCOPE_KEY],
                max_bytes=current.max_upload_bytes,
                max_pixels=current.max_pixels,
                check_password=None,
                within_s=current.t_sync_response_s,
            ) as upload:
                tried = _with(slot, upload.fields.pop(OVERRIDES_FIELD, ""), current)
                submission = await self._submission(upload, tried, current, began)
                with self._its.waiting.waiter(submission.job_id) as waiter:
                    detail = {"job_id": str(submission.job_id)}
                    deed = Deed(req.context.account.name, "slot.tested", f"slot/{slot_id}", detail)
                    submitted = await self._submit(upload, submission, coming, deed)
                    await self._ended(req, waiter, submitted)
        answer(resp, await self._outcome(req, submitted, current))

    async def _let_in(self, slot: Slot, current: Settings, work: Work) -> Coming:
        if full := readiness.room(await asyncio.to_thread(self._its.storage.free_bytes), current):
            raise StorageFull(full)
        slack_s = current.t_sync_response_s - work.need_s
        coming = await self._its.door.admission.check(work, slot_id=slot.id, slack_s=slack_s, priority=rerun.PRIORITY)
        coming.is_known()
        return coming

    async def _submission(self, upload: Upload, tried: Slot, current: Settings, began: float) -> Submission:
        job_id = uuid4()
        return Submission(
            job_id=job_id,
            slot_id=tried.id,
            payload_path=f"{PAYLOADS}/{job_id}.{upload.header.extension}",
            payload_mime=upload.header.mime,
            payload_bytes=upload.bytes,
            payload_sha256=upload.sha256,
            elapsed_s=time.monotonic() - began,
            t_sync_response_s=current.t_sync_response_s,
            t_result_retention_s=current.t_result_retention_h * HOUR_S,
            t_original_retention_s=current.t_original_retention_h * HOUR_S,
            max_pixels=current.max_pixels,
            fields=upload.fields,
            work=await self._its.door.work_of(tried, current),
            priority=rerun.PRIORITY,
            is_test=True,
            route=tried.route.model_dump(mode="json"),
            options=tried.options.model_dump(mode="json"),
        )

    async def _submit(self, upload: Upload, submission: Submission, coming: Coming, deed: Deed) -> Submitted:
        await self._its.storage.put(upload.photo, submission.payload_path, durable=False)
        try:
            async with retention.until_handed_over(self._its.storage, submission.payload_path) as photo:
                submitted = await jobs.submit(self._its.db, submission, deed=deed)
                photo.over = True
        except NoRoom as full:
            slack_s = submission.t_sync_response_s - submission.elapsed_s - submission.work.need_s
            raise self._its.door.admission.refusal(submission.work, full, slack_s=slack_s) from None
        coming.let_in()
        return submitted

    async def _ended(self, req: falcon.asgi.Request, waiter: Waiter, submitted: Submitted) -> None:
        """Waits for the job's end. Whoever hangs up has cancelled it: nobody else waits for its picture."""
        waiter.deadline = time.monotonic() + submitted.remaining_s
        exchange: Exchange = req.scope[SCOPE_KEY]
        await exchange.wait(waiter.final, timeout_s=submitted.remaining_s + GRACE_S)
        if exchange.gone.is_set() and not waiter.final.done():
            await cancel(self._its, submitted.job_id, actor=req.context.account.name)
            raise Cancelled("Whoever tried the slot has hung up")

    async def _outcome(self, req: falcon.asgi.Request, submitted: Submitted, current: Settings) -> TestRun:
        row = await jobs.find(self._its.db, submitted.job_id)
        if row is None or not row["is_finalized"]:
            raise SyncTimeout()
        detail = await job_list.detail(self._its.db, submitted.job_id)
        failure = None
        if row["status"] != "succeeded":
            failure = Problem.model_validate(problems.problem(failure_of(row), job_id=str(row["id"])))
            failure.detail = details.for_page(req, failure.detail)
        for attempt in detail.attempts:
            attempt.detail = attempt.detail and details.for_page(req, attempt.detail)
        return TestRun(
            job_id=str(row["id"]),
            status=row["status"],
            seconds=round((row["finalized_at"] - row["created_at"]).total_seconds(), 3),
            cost=row["cost"],
            served_by=row["served_by"],
            result=self._its.result_of(req, current, row),
            failure=failure,
            attempts=detail.attempts,
        )


def _with(slot: Slot, given: str, current: Settings) -> Slot:
    """The slot with what is tried instead.

    Raises:
        InvalidRequest, InvalidSettings: it could not be saved like this.
    """
    overrides = parsed(given.encode(), Overrides, what=f"The field “{OVERRIDES_FIELD}”") if given else Overrides()
    route = slots.check_route(overrides.route or slot.route, current)
    return slot.model_copy(update={"route": route, "options": overrides.options or slot.options})
