"""``/api/media`` and ``/api/template-media``: pictures that an administrator brings, and the emptying of caches."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import falcon
import falcon.asgi
from pydantic import BaseModel, ConfigDict, Field

from photochanger import audit, media, templates
from photochanger.broker import messages
from photochanger.failures import InvalidRequest, MediaNotFound
from web import uploads
from web.api import Page, answer, cursor, needs, position, query
from web.exchange import SCOPE_KEY
from web.models import MediaObject, TemplateMedia
from web.pictures import PICTURE_CSP
from web.services import Services

MAX_TEMPLATE_BYTES = 50 * 1024**2
MAX_NAME = 120
#: Sweeps that a purge sends.
PURGED = ("media", "orphans", "results", "originals")


class TemplatePage(BaseModel):
    """Templates, newest first."""

    items: list[TemplateMedia]
    next: Annotated[str | None, Field(description="`after` of the next page; null: this is the last.")]


class DeletedTemplate(BaseModel):
    """What the deletion leaves behind."""

    used_by: Annotated[
        list[str], Field(description="Slots that name it all the same: their photos fail until changed.")
    ]


class DeleteQuery(BaseModel):
    """How it is deleted."""

    model_config = ConfigDict(extra="forbid")

    force: Annotated[bool, Field(description="Though slots use it.")] = False


class PictureQuery(BaseModel):
    """How large."""

    model_config = ConfigDict(extra="forbid")

    size: Annotated[int | None, Field(description="Pixels of the longer side: 160, 320, 640 or 1280; as WebP.")] = None


class Purge(BaseModel):
    """What was sent to the workers; `GET /api/system/schedules` tells when each has run."""

    tasks: list[str]


class MediaRegister:
    """POST: a picture that the internet can fetch for as long as a photo may take."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("media:write")
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        current = await self._its.settings.get()
        async with uploads.received(
            req,
            self._its.storage,
            exchange=req.scope[SCOPE_KEY],
            max_bytes=current.max_upload_bytes,
            max_pixels=current.max_pixels,
            check_password=None,
        ) as upload:
            if upload.header.mime not in ("image/jpeg", "image/png", "image/webp"):
                raise InvalidRequest("Providers fetch JPEG, PNG and WebP")
            row = await media.register(
                self._its.db,
                self._its.storage,
                self._its.pool,
                upload.photo,
                upload.header.mime,
                max_pixels=current.max_pixels,
                ttl_s=current.t_sync_response_s,
                actor=req.context.account.name,
            )
        url = f"{self._its.base(req, current)}/public/media/{row['id']}"
        answer(resp, MediaObject(**row, job_id=None, url=url), 201)


class TemplateRegister:
    """POST: stores a template."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("media:write")
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        async with uploads.received(
            req,
            self._its.storage,
            exchange=req.scope[SCOPE_KEY],
            max_bytes=MAX_TEMPLATE_BYTES,
            max_pixels=templates.MAX_PIXELS,
            check_password=None,
        ) as upload:
            name = upload.fields.get("name", "").strip() or "template"
            if len(name) > MAX_NAME:
                raise InvalidRequest(f"A name has at most {MAX_NAME} characters")
            template_id = await templates.add(
                self._its.db,
                self._its.storage,
                self._its.pool,
                upload.photo,
                name=name,
                actor=req.context.account.name,
            )
        resp.set_header("Location", f"/api/template-media/{template_id}")
        answer(resp, view(await templates.find(self._its.db, template_id)), 201)


class TemplateList:
    """GET: every template."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("slots:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        page = query(req, Page)
        place = position(page.after, datetime, UUID)
        after = (place[0], place[1]) if place else None
        rows = await templates.listing(self._its.db, after=after, limit=page.limit + 1)
        shown = rows[: page.limit]
        following = cursor(shown[-1]["created_at"], shown[-1]["id"]) if len(rows) > page.limit else None
        answer(resp, TemplatePage(items=[view(row) for row in shown], next=following))


class OneTemplate:
    """GET: the template. DELETE: deletes it."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("slots:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, template_id: str) -> None:
        answer(resp, view(await templates.find(self._its.db, _id(template_id))))

    @needs("media:write")
    async def on_delete(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, template_id: str) -> None:
        asked = query(req, DeleteQuery)
        used = await templates.delete(
            self._its.db, self._its.storage, _id(template_id), force=asked.force, actor=req.context.account.name
        )
        answer(resp, DeletedTemplate(used_by=used))


class TemplatePicture:
    """GET: its picture, whole or small."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("slots:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, template_id: str) -> None:
        asked = query(req, PictureQuery)
        row = await templates.find(self._its.db, _id(template_id))
        resp.set_header("Content-Security-Policy", PICTURE_CSP)
        if asked.size is not None:
            await self._its.pictures.small(req, resp, {**row, "modified_at": row["created_at"]}, asked.size)
            return
        resp.content_type = row["mime"]
        await self._its.pictures.send(resp, row["storage_key"], row["bytes"])


class CachePurge:
    """POST: has what is no longer needed deleted now, in the background."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("media:write")
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        async with self._its.db.transaction() as connection:
            for task in PURGED:
                await messages.enqueue(connection, messages.message("sweep", task=task), priority=10)
            actor = req.context.account.name
            await audit.record(connection, actor=actor, action="cache.purged", target="media/cache")
        answer(resp, Purge(tasks=list(PURGED)), 202)


def view(row: dict[str, Any]) -> TemplateMedia:
    return TemplateMedia.model_validate({name: row[name] for name in TemplateMedia.model_fields if name in row})


def _id(template_id: str) -> UUID:
    try:
        return UUID(template_id)
    except ValueError:
        raise MediaNotFound(f"There is no template {template_id[:64]!r}") from None
