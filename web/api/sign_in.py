"""``/api/login``, ``/api/refresh`` and ``/api/logout``."""

from __future__ import annotations

from typing import Annotated, Literal

import falcon.asgi
from pydantic import BaseModel, ConfigDict, Field

from photochanger import bearer, sessions
from photochanger.failures import InvalidToken
from photochanger.sessions import SignedIn
from web.api import OPEN, answer, body, needs
from web.api.authority import SESSION_COOKIE, bearer_of, cookie_of, same_origin
from web.services import Services

REFRESH_COOKIE = "photochanger_refresh"


class Credentials(BaseModel):
    """Who signs in."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(max_length=200)]
    password: Annotated[str, Field(max_length=1024)]


class AuthToken(BaseModel):
    """What an API client sends as ``Authorization: Bearer`` from now on."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - the scheme's name
    expires_in_sec: Annotated[int, Field(ge=1, description="Then `POST /api/refresh` gives the next one.")]


class Login:
    """POST: opens a session for a name and a password."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs(OPEN)
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        given = await body(req, Credentials)
        signed_in = await sessions.sign_in(
            self._its.db,
            self._its.keys,
            name=given.name,
            password=given.password,
            address=req.remote_addr,
            user_agent=req.user_agent or "",
        )
        _give(req, resp, signed_in)


class Refresh:
    """POST: exchanges the refresh cookie for the next one and a new access token."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs(OPEN)
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        same_origin(req)
        _give(req, resp, await sessions.refresh(self._its.db, self._its.keys, cookie_of(req, REFRESH_COOKIE)))


class Logout:
    """POST: ends the session that the access token or a cookie names."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs(OPEN)
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        refresh, cookie = cookie_of(req, REFRESH_COOKIE), cookie_of(req, SESSION_COOKIE)
        if req.get_header("Authorization") is not None:
            caller = await sessions.check(self._its.db, self._its.keys, bearer_of(req))
            await sessions.revoke(self._its.db, caller.session_id)
        elif refresh or cookie:
            same_origin(req)
            await sessions.sign_out(self._its.db, self._its.keys, refresh_token=refresh, cookie=cookie)
        else:
            raise InvalidToken()
        resp.status = 204
        resp.unset_cookie(REFRESH_COOKIE, same_site="Strict", path="/api")
        resp.unset_cookie(SESSION_COOKIE, same_site="Lax", path="/")


def give_session(req: falcon.asgi.Request, resp: falcon.asgi.Response, signed_in: SignedIn) -> None:
    """Keeps a browser signed in, for the pages."""
    resp.set_cookie(
        SESSION_COOKIE,
        signed_in.token,
        expires=signed_in.expires_at,
        path="/",
        secure=req.scheme == "https",
        http_only=True,
        same_site="Lax",
    )


def _give(req: falcon.asgi.Request, resp: falcon.asgi.Response, signed_in: SignedIn) -> None:
    resp.set_cookie(
        REFRESH_COOKIE,
        signed_in.token,
        expires=signed_in.expires_at,
        path="/api",
        secure=req.scheme == "https",
        http_only=True,
        same_site="Strict",
    )
    seconds = int(bearer.LASTS.total_seconds())
    answer(resp, AuthToken(access_token=signed_in.access_token, expires_in_sec=seconds))
