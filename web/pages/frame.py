"""The frame around every administrator's page: who may see it, who is sent elsewhere, what the navigation shows."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar, cast
from urllib.parse import quote, unquote, urlencode, urlsplit

import falcon
import falcon.asgi

from photochanger import __version__
from photochanger.failures import Forbidden, InvalidRequest, InvalidToken
from photochanger.permissions import Permission
from photochanger.sessions import Caller
from web.api.authority import SESSION_COOKIE, caller_of, cookie_of
from web.pages import PAGE_HEADERS, Pages, details, formats, language_of, names
from web.services import Services

R = TypeVar("R", bound=Callable[..., Any])

#: These addresses carry no token; and by a form's origin we know that a page of ours has sent it.
HEADERS = {**PAGE_HEADERS, "Referrer-Policy": "same-origin"}
SIGN_IN = "/sign-in"
PASSWORD = "/password"  # noqa: S105 - a path


class Place(NamedTuple):
    """A line of the navigation. ``name``: its word is ``nav.<name>``, its picture in ``icons.html`` has that name."""

    name: str
    path: str
    permission: Permission | None


PLACES = (
    Place("overview", "/", None),
    Place("slots", "/slots", "slots:read"),
    Place("jobs", "/jobs", "jobs:read"),
    Place("gallery", "/gallery", "jobs:read"),
    Place("statistics", "/statistics", "stats:read"),
    Place("templates", "/templates", "slots:read"),
    Place("settings", "/settings", "settings:read"),
    Place("system", "/system", "settings:read"),
    Place("users", "/users", "users:write"),
    Place("audit", "/audit", "audit:read"),
    Place("docs", "/api/docs", None),
)


class Framed:
    """A page of administrators. Each responder is marked by ``page``. It is no part of the API's contract."""

    is_page = True
    #: The line of the navigation it belongs to.
    place = ""

    def __init_subclass__(cls) -> None:
        """HEAD is answered wherever GET is."""
        if hasattr(cls, "on_get"):
            cls.on_head = cls.on_get  # type: ignore[attr-defined]

    def __init__(self, services: Services, pages: Pages) -> None:
        self._its = services
        self._pages = pages

    def show(
        self,
        req: falcon.asgi.Request,
        resp: falcon.asgi.Response,
        template: str,
        /,
        *,
        status: int = 200,
        **values: Any,
    ) -> None:
        """Renders a template that extends ``frame.html`` for who has asked (``req.context.account``)."""
        account: Caller | None = getattr(req.context, "account", None)
        language = language_of(req)
        currency = getattr(req.context, "currency", "")
        self._pages.render(
            req,
            resp,
            template,
            status=status,
            headers=HEADERS,
            account=account,
            places=[one for one in PLACES if account and may(account, one.permission)],
            place=self.place,
            may=functools.partial(may, account) if account else _nothing,
            provider_name=functools.partial(names.provider_name, language),
            made_by=functools.partial(names.made_by, language),
            currency=currency,
            said=functools.partial(details.told, language),
            money=functools.partial(formats.money, language, currency),
            version=__version__,
            now=datetime.now(UTC),
            **values,
        )


def page(permission: Permission | None, *, while_must_change: bool = False) -> Callable[[R], R]:
    """Marks a page's responder with the permission it takes; ``None``: any signed-in account.

    Without a session one is sent to sign in, and comes back; an account that must choose a password is sent to do that
    first, unless ``while_must_change``. What is refused becomes a page that says so (``Refusals``).
    """

    def mark(responder: R) -> R:
        @functools.wraps(responder)
        async def within(self: Framed, req: falcon.asgi.Request, resp: falcon.asgi.Response, **params: str) -> None:
            try:
                caller = await caller_of(self._its, req)
                req.context.account = caller
                req.context.currency = (await self._its.settings.get()).currency
                if caller.must_change and not while_must_change:
                    raise falcon.HTTPSeeOther(PASSWORD)
                if not may(caller, permission):
                    raise Forbidden(f"This account lacks the permission {permission}")
                if "\0" in unquote(req.relative_uri):  # PostgreSQL's text cannot hold it
                    raise InvalidRequest("The address holds a NUL character")
                await responder(self, req, resp, **params)
            except InvalidToken:
                raise falcon.HTTPSeeOther(sign_in_for(req)) from None

        return cast(R, within)

    return mark


def may(account: Caller, permission: str | None) -> bool:
    """Whether an account has a permission; everybody has ``None``."""
    return permission is None or permission in account.permissions


def _nothing(permission: str | None) -> bool:
    return False


def sign_in_for(req: falcon.asgi.Request) -> str:
    """Where one signs in, and then comes back to what was asked for; whose session has ended is told so."""
    wanted = req.relative_uri if req.method in ("GET", "HEAD") else "/"
    ended = bool(cookie_of(req, SESSION_COOKIE))  # that is of none that is good any more
    return sign_in_path("" if wanted == "/" else wanted, ended=ended)


def sign_in_path(goal: str, *, ended: bool) -> str:
    """The page where one signs in, with where one goes then and whether a session has ended.

    >>> sign_in_path("", ended=False), sign_in_path("/jobs?status=failed", ended=True)
    ('/sign-in', '/sign-in?ended=1&next=/jobs%3Fstatus%3Dfailed')
    """
    given = ({"ended": "1"} if ended else {}) | ({"next": goal} if goal else {})
    return f"{SIGN_IN}?{urlencode(given, quote_via=quote, safe='/')}" if given else SIGN_IN


def local(path: str | None) -> str:
    """``path`` where it leads to a page of this server, else ``/``.

    >>> local("/jobs?status=failed"), local("//evil.example"), local("/\\\\evil.example"), local(None)
    ('/jobs?status=failed', '/', '/', '/')
    """
    if not path or not path.startswith("/") or path.startswith(("//", "/\\")) or not path.isprintable():
        return "/"
    parts = urlsplit(path)
    return "/" if parts.scheme or parts.netloc else path
