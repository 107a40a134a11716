"""``/api/settings``: what an administrator sets while the server runs, and the ingest password."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any

import falcon.asgi
import orjson
from pydantic import BaseModel, ConfigDict, Field, RootModel

from photochanger import accounts, settings
from photochanger.settings import SERVERS_OWN, Settings
from web.api import answer, body, needs, parsed
from web.services import Services

#: Hours for which a replaced ingest password stays valid, where nobody says.
GRACE_H = 24.0


class SettingsChanges(RootModel[dict[str, Any]]):
    """Settings by name, as `settings` describes them; what is absent stays."""


class Grace(BaseModel):
    """How long the present password stays valid beside the new one."""

    model_config = ConfigDict(extra="forbid")

    grace_h: Annotated[float, Field(ge=0, le=24 * 30, description="Hours; 0: it ends now.")] = GRACE_H


class MadeIngestPassword(BaseModel):
    """The new ingest password."""

    password: Annotated[str, Field(description="Shown only now.")]
    grace_ends_at: Annotated[datetime | None, Field(description="Until then the one before is valid too.")]


class IngestPasswords(BaseModel):
    """What is known of the ingest passwords: never they themselves."""

    valid: Annotated[int, Field(ge=0, description="How many are valid now, the newest and those in their grace.")]
    grace_ends_at: datetime | None
    from_environment: Annotated[bool, Field(description="PHOTOCHANGER_INGEST_PASSWORD is set, and wins at a start.")]


class SettingsResource:
    """GET: the settings. PATCH: changes what is sent."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("settings:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        answer(resp, shown(await settings.load(self._its.db)))

    @needs("settings:write")
    async def on_patch(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        changes = (await body(req, SettingsChanges)).root
        # All that is wrong at once; but providers are looked at beside the hosts that are allowed already, in ``save``.
        parsed(orjson.dumps(changes), Settings, context=set(changes) - {"providers"})
        known = {name: value for name, value in changes.items() if name not in SERVERS_OWN}
        unknown = {f"{name} (the server's own)": None for name in changes if name in SERVERS_OWN}
        answer(resp, shown(await settings.save(self._its.db, known | unknown, actor=req.context.account.name)))


class IngestPasswordResource:
    """GET: how many are valid. POST: makes a new one. DELETE: ends the grace of those before it."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("settings:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        answer(resp, await self._standing())

    @needs("settings:write")
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        given = await body(req, Grace)
        made = await accounts.rotate_ingest_password(
            self._its.db, grace=timedelta(hours=given.grace_h), actor=req.context.account.name
        )
        standing = await self._standing()
        answer(resp, MadeIngestPassword(password=made, grace_ends_at=standing.grace_ends_at), 201)

    @needs("settings:write")
    async def on_delete(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        await accounts.end_grace(self._its.db, actor=req.context.account.name)
        resp.status = 204

    async def _standing(self) -> IngestPasswords:
        valid = (await settings.load(self._its.db)).ingest_passwords
        ends = [one.valid_until for one in valid if one.valid_until is not None]
        return IngestPasswords(
            valid=len(valid),
            grace_ends_at=max(ends, default=None),
            from_environment=self._its.config.ingest_password is not None,
        )


def shown(current: Settings) -> dict[str, Any]:
    """The settings without the server's own."""
    return current.model_dump(mode="json", exclude=set(SERVERS_OWN))
