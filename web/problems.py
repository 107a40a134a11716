"""The one table failure code → HTTP status, and the one writer of ``application/problem+json`` (RFC 9457)."""

from __future__ import annotations

import math
from typing import Any

import falcon
import falcon.asgi
import orjson

from photochanger import logs
from photochanger.failures import BY_CODE, Failure, InternalError, InvalidRequest, VersionMismatch
from web.exchange import SlowBody

STATUS: dict[str, int] = {
    "invalid_request": 400,
    "invalid_image": 400,
    "invalid_password": 401,
    "invalid_credentials": 401,
    "invalid_token": 401,
    "forbidden": 403,
    "not_found": 404,
    "slot_not_found": 404,
    "slot_disabled": 404,
    "job_not_found": 404,
    "result_not_found": 404,
    "media_not_found": 404,
    "conflict": 409,
    "in_use": 409,
    "cancelled": 409,
    "version_mismatch": 412,
    "version_required": 428,
    "result_expired": 410,
    "media_expired": 410,
    "payload_too_large": 413,
    "image_too_large": 413,
    "unsupported_media_type": 415,
    "invalid_settings": 422,
    "idempotency_mismatch": 422,
    "provider_refused": 422,
    "rate_limited": 429,
    "login_throttled": 429,
    "provider_error": 502,
    "provider_no_image": 502,
    "provider_bad_output": 502,
    "provider_auth": 502,
    "provider_quota": 502,
    "queue_full": 503,
    "storage_full": 503,
    "budget_spent": 503,
    "no_workers": 503,
    "worker_lost": 503,
    "unavailable": 503,
    "sync_timeout": 504,
    "internal_error": 500,
}
#: Statuses of HTTP itself; they all carry ``invalid_request`` or the nearest code of ours.
_FALCON = {404: "not_found", 413: "payload_too_large", 415: "unsupported_media_type"}
MEDIA_TYPE = "application/problem+json"
_OF_A_PICTURE = (
    "Accept-Ranges",
    "Content-Disposition",
    "Content-Security-Policy",
    "ETag",
    "Expires",
    "Last-Modified",
    "PhotoChanger-Result-Expires-At",
    "X-Content-Type-Options",
)


def problem(
    failure: Failure, *, status: int | None = None, job_id: str | None = None, result_url: str | None = None
) -> dict[str, Any]:
    """The body of a failure. ``status`` overrides the table for HTTP's own (405, 406, 408, 416). ``result_url``: where
    a late picture will be."""
    body: dict[str, Any] = {
        "type": f"urn:photochanger:failure:{failure.code}",
        "title": failure.title(),
        "status": status or STATUS[failure.code],
        "detail": failure.detail,
        "code": failure.code,
        "retryable": failure.retryable,
    }
    if job_id:
        body["job_id"] = job_id
    if result_url:
        body["result_url"] = result_url
    if failure.errors:
        body["errors"] = [{"field": e.field, "code": e.code, "message": e.message} for e in failure.errors]
    return body


def write(
    resp: falcon.asgi.Response,
    failure: Failure,
    *,
    status: int | None = None,
    job_id: str | None = None,
    result_url: str | None = None,
) -> None:
    """Makes ``resp`` the answer to ``failure``, whatever was prepared before it was found out."""
    for header in _OF_A_PICTURE:
        resp.delete_header(header)
    body = problem(failure, status=status, job_id=job_id, result_url=result_url)
    resp.status = body["status"]
    resp.content_type = MEDIA_TYPE
    resp.data = orjson.dumps(body)
    resp.set_header("Cache-Control", "no-store")
    resp.context.failure = failure
    if failure.retry_after_s is not None or STATUS[failure.code] == 503:
        resp.set_header("Retry-After", str(max(1, math.ceil(failure.retry_after_s or 1))))
    if job_id:
        resp.set_header("X-Job-Id", job_id)
    if isinstance(failure, VersionMismatch) and failure.version is not None:
        resp.set_header("ETag", f'"{failure.version}"')


async def on_failure(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: Failure, params: dict[str, Any]
) -> None:
    resp.stream = None
    status = 408 if isinstance(error, SlowBody) else None
    write(resp, error, status=status, job_id=getattr(req.context, "job_id", None))


async def on_http_error(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: falcon.HTTPError, params: dict[str, Any]
) -> None:
    """Falcon's own refusals (no route, wrong method, malformed form) in our shape."""
    words = error.description or ("" if error.status_code == 404 else error.title or "")  # "404 Not Found" says nothing
    failure = BY_CODE[_FALCON.get(error.status_code, InvalidRequest.code)](words)
    write(resp, failure, status=error.status_code)
    for name, value in dict(error.headers or {}).items():
        resp.set_header(name, value)


async def on_exception(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: Exception, params: dict[str, Any]
) -> None:
    """Anything unforeseen: the log has the trace, the client has the request id."""
    logs.event("request.broken", method=req.method, path=req.context.path, exc_info=True)
    resp.stream = None
    write(resp, InternalError(f"The log has the details, under request {logs.request_id.get()}"))
