"""``/api/stats``: counts, times and costs of a slot or of all, as JSON or CSV."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

import falcon.asgi
from pydantic import BaseModel, ConfigDict, Field

from photochanger import jobs, slots, stats
from photochanger.stats import By
from web.api import Instant, answer, needs, query
from web.services import Services

#: Steps shown where nobody says since when.
_USUAL = {
    "hour": timedelta(days=1),
    "day": timedelta(days=30),
    "week": timedelta(weeks=12),
    "month": timedelta(days=365),
}


#: Days before and after these are nobody's, and no calendar can be trusted with what is near its own ends.
CountedAt = Annotated[Instant, Field(ge=datetime(2000, 1, 1, tzinfo=UTC), le=datetime(2200, 1, 1, tzinfo=UTC))]


class StatsQuery(BaseModel):
    """Over which time, in which steps."""

    model_config = ConfigDict(extra="forbid")

    by: By = "day"
    since: (
        Annotated[
            CountedAt,
            Field(description="The step it lies in is the first. Absent: a day, month, quarter or year ago."),
        ]
        | None
    ) = None
    until: Annotated[CountedAt, Field(description="Absent: now.")] | None = None
    time_zone: Annotated[str, Field(max_length=64, description="Absent: the administrator's.")] | None = None
    format: Literal["json", "csv"] = "json"


class GlobalStats:
    """GET: of all slots together."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("stats:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        await _answer(self._its, req, resp, None)


class SlotStats:
    """GET: of one slot, since its statistics were begun anew."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("stats:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, slot_id: str) -> None:
        await slots.get_any(self._its.db, slot_id)
        await _answer(self._its, req, resp, slot_id)


async def _answer(its: Services, req: falcon.asgi.Request, resp: falcon.asgi.Response, slot_id: str | None) -> None:
    asked = query(req, StatsQuery)
    until: datetime = asked.until or await jobs.now(its.db)
    found = await stats.read(
        its.db,
        slot_id=slot_id,
        since=asked.since or until - _USUAL[asked.by],
        until=until,
        by=asked.by,
        time_zone=asked.time_zone or (await its.settings.get()).time_zone,
    )
    if asked.format == "json":
        answer(resp, found)
        return
    resp.content_type = "text/csv; charset=utf-8"
    resp.set_header("Content-Disposition", f'attachment; filename="statistics-{slot_id or "all"}-{asked.by}.csv"')
    resp.text = stats.as_csv(found)
