"""``/api/users``: everybody's accounts."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import falcon.asgi
from pydantic import BaseModel, ConfigDict, Field

from photochanger import accounts, sessions
from photochanger.db import Row
from photochanger.permissions import Permission
from web.api import Page, answer, body, cursor, needs, position, query
from web.models import left_out
from web.services import Services

Name = Annotated[str, Field(pattern=f"^{accounts.NAME.pattern}$")]
Password = Annotated[str, Field(min_length=accounts.PASSWORD_CHARACTERS, max_length=accounts.PASSWORD_BYTES)]
Language = Literal["en", "ru"]
Shown = Annotated[str | None, Field(description="The one that was made, shown only now; null where one was given.")]


class Account(BaseModel):
    """Somebody who may sign in."""

    name: Name
    permissions: list[Permission]
    is_active: bool
    language: Annotated[Language | None, Field(description="Of the pages; null: the browser's.")]
    must_change: Annotated[bool, Field(description="They must choose a password of their own first.")]
    created_at: datetime
    updated_at: datetime


class AccountPage(BaseModel):
    """Accounts, by name."""

    items: list[Account]
    next: Annotated[str | None, Field(description="`after` of the next page; null: this is the last.")]


class NewAccount(BaseModel):
    """An account to be made."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[
        str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", description="For ever; it is kept in lower case.")
    ]
    permissions: list[Permission] = []
    language: Language | None = None
    password: Annotated[Password | None, Field(description="Absent or null: one is made, and shown once.")] = None


class AccountChanges(BaseModel):
    """What is to change; what is absent stays."""

    model_config = ConfigDict(extra="forbid")

    permissions: list[Permission] = Field([], json_schema_extra=left_out)
    is_active: bool = Field(True, json_schema_extra=left_out)
    language: Language | None = Field(None, json_schema_extra=left_out)
    must_change: bool = Field(False, json_schema_extra=left_out)


class PasswordChoice(BaseModel):
    """A password to be set."""

    model_config = ConfigDict(extra="forbid")

    password: Annotated[Password | None, Field(description="Absent or null: one is made, and shown once.")] = None


class MadeAccount(BaseModel):
    """The account that was made."""

    account: Account
    password: Annotated[
        str | None, Field(description="The one that was made, shown only now; null where one was given.")
    ]


class MadePassword(BaseModel):
    """The password that was set; it must be changed at the next sign-in."""

    password: Annotated[
        str | None, Field(description="The one that was made, shown only now; null where one was given.")
    ]


class Users:
    """GET: the accounts. POST: makes one."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("users:write")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        page = query(req, Page)
        [after] = position(page.after, str) or [""]
        rows: list[Row] = await accounts.listing(self._its.db, after=after, limit=page.limit + 1)
        shown = [Account.model_validate(row) for row in rows[: page.limit]]
        answer(resp, AccountPage(items=shown, next=cursor(shown[-1].name) if len(rows) > page.limit else None))

    @needs("users:write")
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        given = await body(req, NewAccount)
        row, password = await accounts.create(
            self._its.db,
            actor=req.context.account.name,
            name=given.name,
            permissions=given.permissions,
            language=given.language,
            password=given.password,
        )
        shown = password if given.password is None else None
        resp.set_header("Location", f"/api/users/{row['name']}")
        answer(resp, MadeAccount(account=Account.model_validate(row), password=shown), 201)


class User:
    """GET: one account. PATCH: changes what is sent of it."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("users:write")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, name: str) -> None:
        answer(resp, Account.model_validate(await accounts.get(self._its.db, name)))

    @needs("users:write")
    async def on_patch(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, name: str) -> None:
        changes = (await body(req, AccountChanges)).model_dump(exclude_unset=True)
        saved = await accounts.update(self._its.db, name, changes, actor=req.context.account.name)
        answer(resp, Account.model_validate(saved))


class UserPassword:
    """POST: a new password for somebody, to be changed at the next sign-in; their sessions end."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("users:write")
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, name: str) -> None:
        given = await body(req, PasswordChoice)
        password = await accounts.set_password(self._its.db, name, given.password, actor=req.context.account.name)
        answer(resp, MadePassword(password=password if given.password is None else None))


class SignOut:
    """POST: ends every session of somebody."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("users:write")
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, name: str) -> None:
        await sessions.revoke_all(self._its.db, name, actor=req.context.account.name)
        resp.status = 204
