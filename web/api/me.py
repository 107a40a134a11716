"""``/api/me``: one's own account."""

from __future__ import annotations

from typing import Annotated, Literal

import falcon.asgi
from pydantic import BaseModel, ConfigDict, Field

from photochanger import accounts, sessions
from photochanger.permissions import Permission
from photochanger.sessions import Caller
from web.api import answer, body, needs
from web.services import Services


class Myself(BaseModel):
    """Who is signed in, and what they may do."""

    name: str
    permissions: list[Permission]
    language: Literal["en", "ru"] | None
    must_change: Annotated[bool, Field(description="Before anything else, a password must be chosen.")]


class MyChanges(BaseModel):
    """What one may change about oneself; null: the browser's language."""

    model_config = ConfigDict(extra="forbid")

    language: Literal["en", "ru"] | None


class NewPassword(BaseModel):
    """The present password and the one to come."""

    model_config = ConfigDict(extra="forbid")

    old: Annotated[str, Field(max_length=1024)]
    new: Annotated[str, Field(min_length=accounts.PASSWORD_CHARACTERS, max_length=accounts.PASSWORD_BYTES)]


class Me:
    """GET: one's own account. PATCH: one's own language."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs(None, while_must_change=True)
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        caller: Caller = req.context.account
        row = await accounts.get(self._its.db, caller.name)
        answer(resp, Myself.model_validate(row))

    @needs(None)
    async def on_patch(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        name = req.context.account.name
        changes = await body(req, MyChanges)
        saved = await accounts.update(self._its.db, name, changes.model_dump(), actor=name)
        answer(resp, Myself.model_validate(saved))


class MyPassword:
    """POST: another password for one's own account; every session of it ends, this one too."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs(None, while_must_change=True)
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        given = await body(req, NewPassword)
        await sessions.change_password(
            self._its.db, req.context.account.name, old=given.old, new=given.new, address=req.remote_addr
        )
        resp.status = 204
