"""``/api/slots``: the slots, as they are set, what came of them today, and what may be done to them."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import falcon.asgi
from pydantic import BaseModel, ConfigDict, Field

from photochanger import audit, job_list, slots, stats
from photochanger.failures import Failure
from photochanger.settings import Settings
from photochanger.slots import Options, Route, Slot, SlotId, SlotName
from photochanger.stats import Today
from web.api import Page, answer, body, cursor, etag, if_match, needs, position, query
from web.api.views import PictureView, picture
from web.models import Url, left_out
from web.pages import details, names
from web.services import Services

RECENT = 10


class SlotInList(BaseModel):
    """A slot, its day so far and its newest picture."""

    slot: Slot
    today: Annotated[Today | None, Field(description="Null for an archived slot.")]
    latest_picture: PictureView | None


class SlotPage(BaseModel):
    """Slots, by id."""

    items: list[SlotInList]
    next: Annotated[str | None, Field(description="`after` of the next page; null: this is the last.")]


class SlotDetail(SlotInList):
    """Everything about a slot."""

    is_archived: bool
    ingest_url: Annotated[Url, Field(description="Where cameras send its photos.")]
    warnings: Annotated[list[str], Field(description="What is unwise about its route, though it works.")]
    recent_results: list[PictureView]


class NewSlot(BaseModel):
    """A slot to be made."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[SlotId | None, Field(description="For ever; absent or null: the next number.")] = None
    name: SlotName
    is_active: bool = False
    route: Route
    options: Options = Options()


class SlotChanges(BaseModel):
    """What is to change; what is absent stays. ``route`` and ``options`` are replaced as a whole."""

    model_config = ConfigDict(extra="forbid")

    name: SlotName = Field("", json_schema_extra=left_out)
    is_active: bool = Field(False, json_schema_extra=left_out)
    route: Route = Field(Route(rungs=[slots.Rung(provider="local", operation="original")]), json_schema_extra=left_out)
    options: Options = Field(Options(), json_schema_extra=left_out)


class SlotQuery(Page):
    """Which slots."""

    provider: Annotated[str, Field(max_length=64, description="Some rung asks it.")] | None = None
    operation: Annotated[str, Field(max_length=64, description="Some rung does it.")] | None = None
    search: Annotated[str, Field(max_length=80, description="Name or id holds it.")] | None = None
    is_active: bool | None = None
    is_archived: bool = False


class RecentQuery(BaseModel):
    """How much comes with a slot."""

    model_config = ConfigDict(extra="forbid")

    recent: Annotated[int, Field(ge=0, le=200, description="Pictures in `recent_results`.")] = RECENT


class Slots:
    """GET: the slots. POST: makes one."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("slots:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        asked = query(req, SlotQuery)
        [after] = position(asked.after, str) or [""]
        filters = asked.model_dump(exclude={"limit", "after"})
        found = await slots.listing(self._its.db, **filters, after=after, limit=asked.limit + 1)
        shown = found[: asked.limit]
        current = await self._its.settings.get()
        days = await stats.today(self._its.db, current.time_zone)
        latest = await job_list.latest_of_each(self._its.db, [slot.id for slot in shown])
        items = [
            SlotInList(
                slot=slot,
                today=days.get(slot.id),
                latest_picture=picture(self._its, req, current, latest[slot.id]) if slot.id in latest else None,
            )
            for slot in shown
        ]
        answer(resp, SlotPage(items=items, next=cursor(shown[-1].id) if len(found) > asked.limit else None))

    @needs("slots:write")
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        given = await body(req, NewSlot)
        slot = await slots.create(
            self._its.db,
            slot_id=given.id,
            name=given.name,
            is_active=given.is_active,
            route=given.route,
            options=given.options,
            actor=req.context.account.name,
        )
        made(resp, slot)


class OneSlot:
    """GET: a slot with its newest pictures. PATCH: changes what is sent of it."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("slots:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, slot_id: str) -> None:
        asked = query(req, RecentQuery)
        slot, is_archived = await slots.get_any(self._its.db, slot_id)
        current = await self._its.settings.get()
        recent: list[job_list.Picture] = []
        if asked.recent:
            recent = (await job_list.latest_results(self._its.db, slot_id, limit=asked.recent)).pictures
        views = [picture(self._its, req, current, one) for one in recent]
        detail = SlotDetail(
            slot=slot,
            today=(await stats.today(self._its.db, current.time_zone)).get(slot_id),
            latest_picture=views[0] if views else None,
            is_archived=is_archived,
            ingest_url=f"{self._its.base(req, current)}/ingest/{quote(slot_id)}",
            warnings=warnings_of(slot, current),
            recent_results=views,
        )
        resp.set_header("ETag", etag(slot.version))
        answer(resp, detail)

    @needs("slots:write")
    async def on_patch(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, slot_id: str) -> None:
        version = if_match(req)
        changes = await body(req, SlotChanges)
        slot = await slots.get(self._its.db, slot_id)
        sent = {name: getattr(changes, name) for name in changes.model_fields_set}
        whole = slot.model_copy(update={**sent, "version": version})
        changed(resp, await slots.save(self._its.db, whole, actor=req.context.account.name))


class SlotArchive:
    """POST: takes a slot out of use; its jobs, pictures and id stay."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("slots:write")
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, slot_id: str) -> None:
        actor = req.context.account.name
        changed(resp, await slots.archive(self._its.db, slot_id, if_match(req), actor=actor))


class SlotRestore:
    """POST: brings an archived slot back, switched off."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("slots:write")
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, slot_id: str) -> None:
        actor = req.context.account.name
        changed(resp, await slots.restore(self._its.db, slot_id, if_match(req), actor=actor))


class SlotDuplicate:
    """POST: makes a copy of a slot, switched off."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("slots:write")
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, slot_id: str) -> None:
        called = names.copy_name(details.language_for(req))
        made(resp, await slots.duplicate(self._its.db, slot_id, actor=req.context.account.name, called=called))


class SlotResetStats:
    """POST: begins a slot's statistics anew, from now."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("slots:write")
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, slot_id: str) -> None:
        await slots.get(self._its.db, slot_id)
        async with self._its.db.transaction() as connection:
            await stats.reset(connection, slot_id)
            await audit.record(
                connection, actor=req.context.account.name, action="slot.stats_reset", target=f"slot/{slot_id}"
            )
        resp.status = 204


def made(resp: falcon.asgi.Response, slot: Slot) -> None:
    resp.set_header("Location", f"/api/slots/{slot.id}")
    changed(resp, slot, status=201)


def changed(resp: falcon.asgi.Response, slot: Slot, *, status: int = 200) -> None:
    resp.set_header("ETag", etag(slot.version))
    answer(resp, slot, status)


def warnings_of(slot: Slot, current: Settings) -> list[str]:
    """What is wrong or unwise about a slot's route."""
    try:
        return [one.words for one in slots.warnings(slots.check_route(slot.route, current), current)]
    except Failure as failure:
        return [failure.detail]
