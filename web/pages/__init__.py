"""Pages for people: Jinja2 templates in two languages, under a strict content security policy."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

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
#: Seconds between looks of the waiting page without JavaScript.
REFRESH_S = 2


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
        catalogue = words(language)
        resp.status = status
        resp.content_type = "text/html; charset=utf-8"
        for header, value in PAGE_HEADERS.items():
            resp.set_header(header, value)
        if req.scheme == "https":
            resp.set_header("Strict-Transport-Security", "max-age=31536000")
        resp.text = self._templates.get_template(name).render(t=lambda key: catalogue[key], language=language, **values)

    def failure(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, failure: Failure) -> None:
        """A guest's page for what programs get as a problem."""
        status = problems.STATUS[failure.code]
        if type(failure).__name__ == "StillBeingMade":
            resp.set_header("Refresh", str(REFRESH_S))
            self.render(req, resp, "waiting.html")
        elif isinstance(failure, ResultExpired):
            self.render(req, resp, "notice.html", status=status, notice="expired")
        else:
            self.render(req, resp, "notice.html", status=status, notice="missing")

    def result(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, row: Row, link: str) -> None:
        qr = segno.make(link, error="m").svg_inline(scale=4, border=2, omitsize=True, title="QR")
        self.render(req, resp, "result.html", row=row, link=link, qr=Markup(qr))  # noqa: S704 - segno's own markup
        resp.set_header("PhotoChanger-Result-Expires-At", row["result_expires_at"].isoformat())


class Home:
    """``GET /``: says that the server runs, and where cameras send their photos."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        self._pages.render(req, resp, "home.html", address=f"{req.scheme}://{req.netloc}")
