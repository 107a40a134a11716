"""``GET /api/audit``: who did what, newest first."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import falcon.asgi
from pydantic import BaseModel, Field

from photochanger import audit
from web.api import Instant, Page, answer, cursor, needs, position, query
from web.services import Services


class AuditQuery(Page):
    """Which entries are wanted."""

    actor: Annotated[str, Field(max_length=200)] | None = None
    action: Annotated[str, Field(pattern="^[a-z_.]{1,60}$")] | None = None
    target: Annotated[str, Field(max_length=200)] | None = None
    since: Instant | None = None
    until: Instant | None = None


class AuditEntry(BaseModel):
    """Something that was done, or tried."""

    id: int
    at: datetime
    actor: Annotated[str | None, Field(description="Whose doing it was; null where nobody had signed in.")]
    action: Annotated[str, Field(examples=["user.changed"])]
    target: Annotated[str, Field(description="The kind and the id of what it was done to.", examples=["user/anna"])]
    detail: dict[str, Any]
    address: Annotated[str | None, Field(description="Where the request came from; null for commands.")]
    request_id: Annotated[str | None, Field(description="The request's id in the log.")]


class AuditPage(BaseModel):
    """Entries, newest first."""

    items: list[AuditEntry]
    next: Annotated[str | None, Field(description="`after` of the next page; null: this is the last.")]


class AuditTrail:
    """GET: a page of the audit."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("audit:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        wanted = query(req, AuditQuery)
        [before] = position(wanted.after, int) or [None]
        filters = wanted.model_dump(exclude={"limit", "after"})
        rows, has_more = await audit.listing(self._its.db, **filters, before=before, limit=wanted.limit)
        shown = [AuditEntry.model_validate(row) for row in rows]
        answer(resp, AuditPage(items=shown, next=cursor(shown[-1].id) if has_more else None))
