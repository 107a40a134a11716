"""Decides who may call what under ``/api``, before a responder runs; what is not marked is called by nobody."""

from __future__ import annotations

from urllib.parse import urlsplit

import falcon
import falcon.asgi

from photochanger import network, sessions
from photochanger.failures import Forbidden, InvalidToken, NotFound
from photochanger.sessions import Caller
from web import rates
from web.api import OPEN, needed_by
from web.services import Services

SESSION_COOKIE = "photochanger_session"
#: The language chosen before one has signed in.
LANGUAGE_COOKIE = "photochanger_language"
_SAFE = ("GET", "HEAD", "OPTIONS")
_PORTS = {"http": 80, "https": 443}


class Authority:
    """A Falcon middleware; ``req.context.account`` is the ``Caller`` from here on."""

    def __init__(self, services: Services) -> None:
        self._its = services

    async def process_resource(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, resource: object, params: dict[str, object]
    ) -> None:
        if not _is_ours(req.uri_template):
            return
        responder = getattr(resource, f"on_{req.method.lower()}", None)
        if responder is None:
            if req.method == "OPTIONS":  # Falcon's own, which names the methods
                return
            raise falcon.HTTPMethodNotAllowed(_methods(resource))
        needed = needed_by(responder)
        if needed is None:
            raise Forbidden("Nobody may call this")
        await self._within_limit(req, resp)
        if any("\0" in str(value) for value in params.values()):
            raise NotFound()
        if needed.permission == OPEN:
            return
        caller = await caller_of(self._its, req)
        req.context.account = caller
        if caller.must_change and not needed.while_must_change:
            raise Forbidden("This account must choose a password of its own first: POST /api/me/password")
        if needed.permission is not None and needed.permission not in caller.permissions:
            raise Forbidden(f"This account lacks the permission {needed.permission}")

    async def process_response(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, resource: object, req_succeeded: bool
    ) -> None:
        if not _is_ours(req.path):
            return
        if resp.get_header("Cache-Control") in (None, "no-store"):  # a problem is written by who knows no better
            resp.set_header("Cache-Control", "private, no-store")
        resp.set_header("X-Content-Type-Options", "nosniff")
        if isinstance(getattr(resp.context, "failure", None), InvalidToken):
            resp.set_header("WWW-Authenticate", "Bearer")

    async def _within_limit(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        current = await self._its.settings.get()
        most = {
            "api/server": current.api_per_minute,
            f"api/address/{network.subscriber(req.remote_addr)}": current.api_per_minute_address,
        }
        await rates.take(self._its.db, resp, most, what="requests")


async def caller_of(its: Services, req: falcon.asgi.Request) -> Caller:
    """Who asks: by the access token, else by the browser's session.

    Raises:
        InvalidToken: nobody who is known.
        Forbidden: a page of somebody else's has sent the browser.
    """
    if req.get_header("Authorization") is not None:
        return await sessions.check(its.db, its.keys, bearer_of(req))
    caller = await sessions.check_cookie(its.db, its.keys, cookie_of(req, SESSION_COOKIE))
    if req.method not in _SAFE:
        same_origin(req)
    return caller


def bearer_of(req: falcon.asgi.Request) -> str:
    """The request's bearer token.

    Raises:
        InvalidToken: its Authorization is something else, or there is none.
    """
    scheme, _, token = (req.get_header("Authorization") or "").partition(" ")
    if scheme.lower() != "bearer":
        raise InvalidToken()
    return token.strip()


def cookie_of(req: falcon.asgi.Request, name: str) -> str:
    """The first cookie of this name; empty without one."""
    return (req.get_cookie_values(name) or [""])[0]


def same_origin(req: falcon.asgi.Request) -> None:
    """Returns when a page of ours has sent this request: a cookie alone comes from anybody's.

    Raises:
        Forbidden: the browser names another, or says nothing.
    """
    if req.get_header("Sec-Fetch-Site") == "same-origin":
        return
    try:
        origin = urlsplit(req.get_header("Origin") or "")
        usual = _PORTS.get(origin.scheme)
        host = urlsplit(f"//{req.get_header('Host') or ''}")
        if usual and origin.hostname and (origin.hostname, origin.port or usual) == (host.hostname, host.port or usual):
            return
    except ValueError:
        pass
    raise Forbidden("A request that is known by a cookie must come from a page of this server")


def _is_ours(path: str | None) -> bool:
    return path is not None and (path == "/api" or path.startswith("/api/"))


def _methods(resource: object) -> list[str]:
    methods = [method for method in falcon.HTTP_METHODS if hasattr(resource, f"on_{method.lower()}")]
    return [*methods, "OPTIONS"]
