"""``POST /ingest/{slot_id}``: a photo in, the changed picture out of the same request, or a clear failure in time."""

from __future__ import annotations

import re
import secrets
import time
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import falcon.asgi
import orjson

from photochanger import images, jobs, logs, metrics, retention
from photochanger.admission import Coming, NoRoom
from photochanger.db import Row
from photochanger.failures import (
    Cancelled,
    Failure,
    InvalidRequest,
    SyncTimeout,
    from_code,
)
from photochanger.jobs import Submission, Submitted
from photochanger.settings import HOUR_S, Settings
from photochanger.slots import Slot
from photochanger.storage import PAYLOADS
from web import problems, uploads
from web.exchange import SCOPE_KEY, Exchange
from web.services import Services
from web.uploads import Upload
from web.waiting import GRACE_S, Waiter

#: Seconds in which an Idempotency-Key answers with its job, and the characters it may have.
IDEMPOTENCY_S = 24 * 3600.0
MAX_KEY = 255
_PREFER = re.compile(r"\s*([a-z-]+)\s*(?:=\s*\"?(\d{1,9})\"?)?\s*(?:;.*)?$", re.IGNORECASE)


class Ingest:
    """The camera's endpoint."""

    def __init__(self, services: Services) -> None:
        self._its = services

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, slot_id: str) -> None:
        began = time.monotonic()
        try:
            slot = await self._its.in_use(slot_id)
        except Failure as failure:
            self._its.refused.note(slot_id, failure.code)
            raise
        provider, outcome = "none", "internal_error"
        try:
            row = await self._serve(req, resp, slot, began)
        except Failure as failure:
            outcome = failure.code
            if not isinstance(failure, Cancelled | SyncTimeout):  # those had a job
                self._its.refused.note(slot.id, outcome)
            raise
        else:
            outcome = (row["failure_reason"] or "succeeded") if row else "accepted"
            provider = (row and row["last_provider"]) or provider
        finally:
            metrics.INGESTS.labels(slot.id, provider, outcome).inc()
            metrics.INGEST_SECONDS.labels(slot.id).observe(time.monotonic() - began)

    async def _serve(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, slot: Slot, began: float
    ) -> Row | None:
        """Receives the photo, makes the job, waits and answers. Returns the final row; ``None`` for a 202."""
        current = await self._its.settings.get()
        exchange: Exchange = req.scope[SCOPE_KEY]
        work = await self._its.door.work_of(slot, current)
        key = idempotency_key(req)
        job_id = uuid4()
        prefer = preferences(req.get_header("Prefer"))
        is_known = key is not None and await jobs.has_key(self._its.db, _idempotent(slot, key))
        with await self._its.door.pass_early(req, resp, slot, current, work, is_known=is_known) as coming:
            async with uploads.received(
                req,
                self._its.storage,
                exchange=exchange,
                max_bytes=current.max_upload_bytes,
                max_pixels=current.max_pixels,
                check_password=lambda given: self._check(given, current, req, slot, coming),
                within_s=current.t_sync_response_s,
            ) as upload:
                logs.job_id.set(str(job_id))
                with self._its.waiting.waiter(job_id) as waiter:
                    submitted = await self._submit(upload, job_id, slot, current, began, coming=coming, key=key)
                    req.context.job_id = str(submitted.job_id)
                    wished_s = 0.0 if "respond-async" in prefer else prefer.get("wait", float("inf"))
                    patience_s = min(wished_s, submitted.remaining_s + GRACE_S)
                    row = await self._outcome(submitted, waiter, exchange, slot, patience_s)
        if row is not None:
            await self._answer(req, resp, row, slot, current)
        elif patience_s == wished_s:
            end = submitted.expires_at + timedelta(hours=current.t_result_retention_h)
            accepted(self._its, req, resp, submitted.job_id, current, end=end, applied=prefer)
        else:
            raise SyncTimeout()
        return row

    async def _check(self, given: str, current: Settings, req: falcon.asgi.Request, slot: Slot, coming: Coming) -> None:
        """Only who knows the password takes a place in the queue."""
        await self._its.password.check(given, current.ingest_passwords, address=req.remote_addr, slot_id=slot.id)
        coming.is_known()

    async def _submit(
        self,
        upload: Upload,
        job_id: UUID,
        slot: Slot,
        current: Settings,
        began: float,
        *,
        coming: Coming,
        key: str | None,
    ) -> Submitted:
        """Adopts the photo and writes the job, or joins the one that has the same photo; the photo's file goes again
        unless the job is made.

        Raises:
            QueueFull: it could not be served in time.
        """
        path = f"{PAYLOADS}/{job_id}.{upload.header.extension}"
        # Not durable on purpose: after a power cut nobody waits for this photo any more.
        await self._its.storage.put(upload.photo, path, durable=False)
        elapsed_s = time.monotonic() - began
        try:
            async with retention.until_handed_over(self._its.storage, path) as photo:
                submitted = await jobs.submit(
                    self._its.db,
                    Submission(
                        job_id=job_id,
                        slot_id=slot.id,
                        payload_path=path,
                        payload_mime=upload.header.mime,
                        payload_bytes=upload.bytes,
                        payload_sha256=upload.sha256,
                        elapsed_s=elapsed_s,
                        t_sync_response_s=current.t_sync_response_s,
                        t_result_retention_s=current.t_result_retention_h * HOUR_S,
                        t_original_retention_s=current.t_original_retention_h * HOUR_S,
                        max_pixels=current.max_pixels,
                        fields=upload.fields,
                        work=coming.work,
                        **_known_by(slot, upload, key, current),
                    ),
                )
                photo.over = not submitted.joined
        except NoRoom as full:
            slack_s = current.t_sync_response_s - elapsed_s - coming.work.need_s
            raise self._its.door.admission.refusal(coming.work, full, slack_s=slack_s) from None
        if submitted.joined:
            logs.job_id.set(str(submitted.job_id))
            logs.event("job.joined", slot=slot.id)
        else:
            coming.let_in()
            logs.event("job.received", slot=slot.id, bytes=upload.bytes, mime=upload.header.mime)
        return submitted

    async def _outcome(
        self, submitted: Submitted, waiter: Waiter, exchange: Exchange, slot: Slot, patience_s: float
    ) -> Row | None:
        """The final row of the job that answers; ``None`` when patience ran out."""
        if not submitted.joined:
            waiter.deadline = time.monotonic() + submitted.remaining_s
            return await self._wait(waiter, exchange, slot, patience_s) if patience_s > 0 else None
        with self._its.waiting.waiter(submitted.job_id) as theirs:
            theirs.deadline = time.monotonic() + submitted.remaining_s
            row = await jobs.find(self._its.db, submitted.job_id)
            if row is not None and row["is_finalized"]:
                return row
            return await self._wait(theirs, exchange, slot, patience_s) if patience_s > 0 else None

    async def _wait(self, waiter: Waiter, exchange: Exchange, slot: Slot, patience_s: float) -> Row | None:
        """The job's final row; ``None`` when patience ran out. A client that hangs up ends the wait."""
        await exchange.wait(waiter.final, timeout_s=patience_s)
        if waiter.final.done():
            return waiter.final.result()
        if exchange.gone.is_set():
            words = "The camera hung up"
            if slot.options.on_disconnect == "cancel":
                final = await jobs.leave(self._its.db, waiter.job_id, detail=words)
                await retention.drop_payloads(self._its.storage, [final])
                if final is not None:
                    logs.event("job.cancelled", detail=words)
            raise Cancelled(words)
        return None

    async def _answer(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, row: Row, slot: Slot, current: Settings
    ) -> None:
        job_id = str(row["id"])
        if row["status"] != "succeeded":
            problems.write(resp, failure_of(row), job_id=job_id, result_url=self._late_link(req, row, current))
            return
        link = self._its.url(
            req, current, self._its.result_links, f"/public/results/{job_id}", row["id"], row["result_expires_at"]
        )
        resp.set_header("X-Job-Id", job_id)
        resp.append_link(link, "alternate")
        resp.set_header("PhotoChanger-Result-Expires-At", row["result_expires_at"].isoformat())
        resp.set_header("PhotoChanger-Served-By", row["served_by"])
        resp.set_header("Cache-Control", "no-store")
        resp.set_header("X-Content-Type-Options", "nosniff")
        name = f"{job_id}.{images.EXTENSIONS[row['result_mime']]}"
        if slot.options.answer == "multipart":
            _multipart(resp, row, await self._its.pictures.whole(row["result_file_path"]), name, link)
            return
        resp.content_type = row["result_mime"]
        resp.set_header("Content-Disposition", f'inline; filename="{name}"')
        await self._its.pictures.send(resp, row["result_file_path"], row["result_bytes"])

    def _late_link(self, req: falcon.asgi.Request, row: Row, current: Settings) -> str | None:
        """Where the picture will be, if the call that still runs brings one."""
        if not row["comes_late"]:
            return None
        end = row["expires_at"] + timedelta(seconds=jobs.LATE_S, hours=current.t_result_retention_h)
        return self._its.url(req, current, self._its.result_links, f"/public/results/{row['id']}", row["id"], end)


def _known_by(slot: Slot, upload: Upload, key: str | None, current: Settings) -> dict[str, Any]:
    """What makes a photo that comes again the same one: its Idempotency-Key, else its bytes, while its job lasts."""
    if key is not None:
        return {"key": _idempotent(slot, key), "key_s": IDEMPOTENCY_S, "key_is_final": True}
    if slot.options.join_duplicates:
        return {"key": f"photo/{slot.id}/{slot.version}/{upload.sha256}", "key_s": current.t_sync_response_s}
    return {}


def _idempotent(slot: Slot, key: str) -> str:
    return f"key/{slot.id}/{key}"


def idempotency_key(req: falcon.asgi.Request) -> str | None:
    """The client's ``Idempotency-Key``, quoted as the draft wants it or not.

    Raises:
        InvalidRequest: it is empty, too long, or not printable ASCII.
    """
    given = req.get_header("Idempotency-Key")
    if given is None:
        return None
    key = given.strip()
    if len(key) > 1 and key.startswith('"') and key.endswith('"'):
        key = key[1:-1]
    if not key or len(key) > MAX_KEY or not key.isascii() or not key.isprintable():
        raise InvalidRequest(f"Idempotency-Key must be 1 to {MAX_KEY} printable ASCII characters")
    return key


def _multipart(resp: falcon.asgi.Response, row: Row, picture: bytes, name: str, link: str) -> None:
    """Breeze Booth's shape: a JSON block, then the picture."""
    boundary = secrets.token_hex(16)
    block = orjson.dumps({"job_id": str(row["id"]), "result_url": link, "expires_at": row["result_expires_at"]})
    resp.content_type = f"multipart/form-data; boundary={boundary}"
    resp.data = b"".join(
        [
            f'--{boundary}\r\nContent-Disposition: form-data; name="json"\r\n'
            "Content-Type: application/json\r\n\r\n".encode(),
            block,
            f'\r\n--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
            f"Content-Type: {row['result_mime']}\r\n\r\n".encode(),
            picture,
            f"\r\n--{boundary}--\r\n".encode(),
        ]
    )


def failure_of(row: Row) -> Failure:
    """Why a final job has no picture."""
    failure = from_code(row["failure_reason"], row["failure_detail"] or "")
    if row["retry_at"] is not None:
        failure.retry_after_s = max(0.0, (row["retry_at"] - row["now"]).total_seconds())
    return failure


def preferences(header: str | None) -> dict[str, float]:
    """``Prefer`` (RFC 7240): ``wait`` in seconds, ``respond-async`` as 0; others are ignored, as the RFC says.

    >>> preferences("respond-async, wait=10")
    {'respond-async': 0.0, 'wait': 10.0}
    >>> preferences("wait=soon, handling=strict")
    {}
    """
    found: dict[str, float] = {}
    for part in (header or "").split(","):
        match = _PREFER.match(part)
        if match is None:
            continue
        name = match[1].lower()
        if name == "respond-async" or (name == "wait" and match[2]):
            found.setdefault(name, float(match[2] or 0))
    return found


def accepted(
    its: Services,
    req: falcon.asgi.Request,
    resp: falcon.asgi.Response,
    job_id: UUID,
    current: Settings,
    *,
    end: datetime,
    applied: dict[str, float],
) -> None:
    """202: where to ask, where the picture will be, where to cancel; links that are genuine until ``end``."""
    links = its.accepted_links(req, current, job_id, end)
    resp.status = 202
    resp.content_type = "application/json"
    resp.data = orjson.dumps(links)
    resp.set_header("X-Job-Id", str(job_id))
    resp.set_header("Location", links["status_url"])
    resp.set_header("Cache-Control", "no-store")
    resp.set_header(
        "Preference-Applied", "respond-async" if "respond-async" in applied else f"wait={applied['wait']:g}"
    )
