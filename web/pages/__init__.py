"""Pages for people: Jinja2 templates in two languages, under a strict content security policy."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import falcon.asgi
import orjson
import segno
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from photochanger.db import Row
from photochanger.failures import Failure, ResultExpired
from web import problems

WEB = Path(__file__).resolve().parent.parent
LANGUAGES = ("en", "ru")
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # links carry their token in the address
    "Cache-Control": "private, no-store",
}
#: Seconds until a page that waits for something is loaded again: the waiting page only where JavaScript is off.
AGAIN_S = 2


@functools.cache
def words(language: str) -> dict[str, str]:
    """The catalogue of a language."""
    catalogue: dict[str, str] = orjson.loads((WEB / "locales" / f"{language}.json").read_bytes())
    return catalogue


def language_of(req: falcon.asgi.Request) -> str:
    """The first language the browser asks for that we have; else English."""
    asked = req.get_header("Accept-Language") or ""
    for part in asked.split(","):
        language = part.strip()[:2].lower()
        if language in LANGUAGES:
            return language
    return LANGUAGES[0]


class Pages:
    """Renders a template in the reader's language into a response."""

    def __init__(self) -> None:
        self._templates = Environment(
            loader=FileSystemLoader(WEB / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def render(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, name: str, *, status: int = 200, **values: Any
    ) -> None:
        language = language_of(req)
        resp.status = status
        resp.content_type = "text/html; charset=utf-8"
        for header, value in PAGE_HEADERS.items():
            resp.set_header(header, value)
        if req.scheme == "https":
            resp.set_header("Strict-Transport-Security", "max-age=31536000")

        def t(key: str, of: str = language) -> str:
            return words(of)[key]

        resp.text = self._templates.get_template(name).render(t=t, language=language, languages=LANGUAGES, **values)

    def failure(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, failure: Failure) -> None:
        """A guest's page for what programs get as a problem."""
        status = problems.STATUS[failure.code]
        if type(failure).__name__ == "StillBeingMade":
            resp.set_header("Retry-After", str(AGAIN_S))  # by this the waiting page knows itself
            self.render(req, resp, "waiting.html", again_s=AGAIN_S)
        elif isinstance(failure, ResultExpired):
            self.render(req, resp, "notice.html", status=status, notice="expired", again_s=None)
        elif status >= 500:
            resp.set_header("Retry-After", str(AGAIN_S))
            self.render(req, resp, "notice.html", status=status, notice="unavailable", again_s=AGAIN_S)
        else:
            self.render(req, resp, "notice.html", status=status, notice="missing", again_s=None)

    def result(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, row: Row, link: str) -> None:
        """The page of a picture. ``link``: its public address, for the QR code; the page itself asks where it came
        from, which may be another name of this server."""
        title = words(language_of(req))["result.qr"]
        qr = segno.make(link, error="m").svg_inline(border=4, omitsize=True, title=title)
        here = f"?{urlsplit(link).query}"
        self.render(req, resp, "result.html", row=row, here=here, qr=Markup(qr))  # noqa: S704 - segno's own markup
        resp.set_header("PhotoChanger-Result-Expires-At", row["result_expires_at"].isoformat())


class Home:
    """``GET /``: says that the server runs, and where cameras send their photos."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        self._pages.render(req, resp, "home.html", address=f"{req.scheme}://{req.netloc}")
