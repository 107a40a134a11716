"""Signing in and out, and choosing a password: plain forms, which work before any script does."""

from __future__ import annotations

import math
from typing import Any

import falcon
import falcon.asgi

from photochanger import accounts, sessions
from photochanger.failures import Failure, InvalidCredentials, InvalidRequest, InvalidToken, LoginThrottled
from photochanger.sessions import Caller
from web import problems
from web.api import form
from web.api.authority import LANGUAGE_COOKIE, SESSION_COOKIE, caller_of, cookie_of, same_origin
from web.api.sign_in import give_session
from web.pages import LANGUAGES
from web.pages.frame import PASSWORD, SIGN_IN, Framed, local, page, sign_in_path

_MOST_CHARACTERS = 1024
_YEAR_S = 365 * 24 * 3600


class SignInPage(Framed):
    """GET: the form; ``language``: the one it shall have in this browser until somebody signs in; ``ended``: it says
    why one is here. POST: opens a session and goes on to where one wanted to be."""

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        goal, ended = local(req.get_param("next")), req.get_param("ended") == "1"
        if (language := req.get_param("language")) in LANGUAGES:
            resp.set_cookie(
                LANGUAGE_COOKIE,
                language,
                max_age=_YEAR_S,
                path="/",
                secure=req.scheme == "https",
                http_only=True,
                same_site="Lax",
            )
            see(resp, sign_in_path(goal, ended=ended))
            return
        try:
            await caller_of(self._its, req)
        except Failure:
            await self._form(req, resp, goal, ended=ended)
        else:
            raise falcon.HTTPSeeOther(goal)

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        given = await _fields(req)
        name, goal = given.get("name", ""), local(given.get("next"))
        try:
            same_origin(req)
            signed_in = await sessions.sign_in(
                self._its.db,
                self._its.keys,
                name=name,
                password=given.get("password", ""),
                address=req.remote_addr,
                user_agent=req.user_agent or "",
                kind="browser",
            )
        except Failure as failure:
            await self._form(req, resp, goal, name=name, failure=failure)
            return
        caller, chosen = signed_in.caller, req.cookies.get(LANGUAGE_COOKIE)
        if chosen in LANGUAGES and caller.language is None:  # from here on it is the account's, which may change it
            await accounts.update(self._its.db, caller.name, {"language": chosen}, actor=caller.name)
        resp.unset_cookie(LANGUAGE_COOKIE, same_site="Lax", path="/")
        give_session(req, resp, signed_in)
        see(resp, PASSWORD if caller.must_change else goal)

    async def _form(
        self,
        req: falcon.asgi.Request,
        resp: falcon.asgi.Response,
        goal: str,
        *,
        name: str = "",
        ended: bool = False,
        failure: Failure | None = None,
    ) -> None:
        is_first = await sessions.none_yet(self._its.db)
        status, wait_s = _told(resp, failure)
        values: dict[str, Any] = {"goal": goal, "name": name, "is_first": is_first, "first_admin": accounts.FIRST_ADMIN}
        values["ended"] = ended
        values["has_own_home"] = self._its.config.has_own_home
        self.show(req, resp, "sign_in.html", status=status, failure=failure, wait_s=wait_s, **values)


class PasswordPage(Framed):
    """GET: the form. POST: another password for one's own account; one stays signed in here, and nowhere else."""

    @page(None, while_must_change=True)
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        self._form(req, resp)

    @page(None, while_must_change=True)
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        caller: Caller = req.context.account
        given = await _fields(req)
        new = given.get("new", "")
        if new != given.get("again", ""):
            self._form(req, resp, wrong="password.differ")
            return
        try:
            address, agent = req.remote_addr, req.user_agent or ""
            await sessions.change_password(
                self._its.db, caller.name, old=given.get("old", ""), new=new, address=address
            )
            signed_in = await sessions.sign_in(
                self._its.db,
                self._its.keys,
                name=caller.name,
                password=new,
                address=address,
                user_agent=agent,
                kind="browser",
            )
        except InvalidCredentials:
            self._form(req, resp, wrong="password.old_wrong")
        except Failure as failure:
            self._form(req, resp, failure=failure)
        else:
            give_session(req, resp, signed_in)
            see(resp, "/?password=changed")

    def _form(
        self,
        req: falcon.asgi.Request,
        resp: falcon.asgi.Response,
        *,
        wrong: str | None = None,
        failure: Failure | None = None,
    ) -> None:
        status, wait_s = _told(resp, failure)
        self.show(
            req,
            resp,
            "password.html",
            status=422 if wrong else status,
            wrong=wrong,
            failure=failure,
            wait_s=wait_s,
            least=accounts.PASSWORD_CHARACTERS,
            most=_MOST_CHARACTERS,
        )


class SignOutPage(Framed):
    """POST: ends this session; ``everywhere``: every one of the account's."""

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        given = await _fields(req)
        same_origin(req)
        try:
            if given.get("everywhere"):
                caller = await caller_of(self._its, req)
                await sessions.revoke_all(self._its.db, caller.name, actor=caller.name)
            else:
                await sessions.sign_out(self._its.db, self._its.keys, cookie=cookie_of(req, SESSION_COOKIE))
        except InvalidToken:
            pass  # it is over already
        resp.unset_cookie(SESSION_COOKIE, same_site="Lax", path="/")
        see(resp, SIGN_IN)


async def _fields(req: falcon.asgi.Request) -> dict[str, str]:
    """The fields of a plain form; of one that is there twice, the first.

    Raises:
        UnsupportedMediaType, InvalidRequest: it is something else, or not fit to be kept.
    """
    given = await form(req, falcon.MEDIA_URLENCODED)
    fields = {name: value[0] if isinstance(value, list) else value for name, value in given.items()}
    if any(len(value) > _MOST_CHARACTERS or "\0" in value for value in fields.values()):
        raise InvalidRequest(f"A field has more than {_MOST_CHARACTERS} characters, or a NUL")
    return fields


def see(resp: falcon.asgi.Response, path: str) -> None:
    """Sends the browser on to another page."""
    resp.status = 303
    resp.location = path
    resp.set_header("Cache-Control", "no-store")


def _told(resp: falcon.asgi.Response, failure: Failure | None) -> tuple[int, int]:
    """The status, and the seconds to wait before another try."""
    if failure is None:
        return 200, 0
    wait_s = math.ceil(failure.retry_after_s or 0) if isinstance(failure, LoginThrottled) else 0
    if wait_s:
        resp.set_header("Retry-After", str(wait_s))
    return problems.STATUS[failure.code], wait_s
