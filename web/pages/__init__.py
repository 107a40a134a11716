"""Pages for people: Jinja2 templates in two languages, under a strict content security policy."""

from __future__ import annotations

import functools
import ipaddress
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import falcon.asgi
import orjson
import segno
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from photochanger.db import Row
from photochanger.failures import Failure, RateLimited, ResultExpired
from web import problems
from web.api.authority import LANGUAGE_COOKIE
from web.pages import charts, formats

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


def say(language: str, key: str, **values: object) -> str:
    """A word of the catalogue, its ``{names}`` filled in."""
    word = words(language)[key]
    return word.format(**values) if values else word


def say_count(language: str, key: str, n: float, **values: object) -> str:
    """A word that has a form for each number, written ``one|many`` (English) or ``один|два|пять`` (Russian).

    >>> [say_count("en", "count.photos", n) for n in (1, 2)]
    ['1 photo', '2 photos']
    >>> [say_count("ru", "count.photos", n) for n in (1, 22, 111)]
    ['1 фотография', '22 фотографии', '111 фотографий']
    """
    forms = words(language)[key].split("|")
    shown = formats.number(language, n)
    return forms[min(formats.plural(language, n), len(forms) - 1)].format(n=shown, **values)


def word_block(language: str, keys: Iterable[str]) -> Markup:
    """The words that a page's modules say, as a data block; ``jobs.*`` stands for all that begin so."""
    catalogue = words(language)
    chosen = {name: catalogue[name] for key in keys for name in keys_of(key)}
    data = orjson.dumps(chosen).decode().replace("<", "\\u003c")
    return Markup(f'<script type="application/json" id="words">{data}</script>')  # noqa: S704 - no tag can end it


def keys_of(key: str) -> list[str]:
    """The keys that ``key`` stands for: itself, or all that begin like ``jobs.*``."""
    if not key.endswith(".*"):
        return [key]
    return [name for name in words(LANGUAGES[0]) if name.startswith(key[:-1])]


def here(link: str | None) -> str:
    """A link to this server without its address: the page may have been asked for by another name.

    >>> here("https://photos.example.com/public/results/1?token=k1")
    '/public/results/1?token=k1'
    """
    parts = urlsplit(link or "")
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def wants_page(req: falcon.asgi.Request) -> bool:
    """Whether a browser asks: one that names HTML, and does not refuse it (``q=0``: RFC 9110, 12.5.1); programs name
    nothing."""
    return "text/html" in (req.get_header("Accept") or "") and req.client_accepts("text/html")


def only_here(link: str) -> bool:
    """Whether a link leads nowhere from another machine.

    >>> only_here("http://127.0.0.1:8000/jobs"), only_here("http://[::1]/"), only_here("https://booth.example/")
    (True, True, False)
    """
    return urlsplit(link).hostname in ("127.0.0.1", "localhost", "::1")


def same_network(link: str) -> bool:
    """Whether a link leads somewhere only from the network it was made in: by a private address or a bare name.

    >>> [same_network(f"http://{host}:8000/") for host in ("192.168.1.5", "booth", "booth.local", "[fe80::1]")]
    [True, True, True, True]
    >>> same_network("http://127.0.0.1/"), same_network("https://photos.example.com/"), same_network("")
    (False, False, False)
    """
    host = urlsplit(link).hostname
    if not host or only_here(link):
        return False
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith((".local", ".lan", ".internal"))


def time_of(instant: datetime | None, mode: str = "ago") -> Markup:
    """An instant as a ``<time>``, which ``time.js`` shows in the reader's zone. ``mode``: ``ago``, ``clock``,
    ``minute``, ``day``, ``left`` until it, or ``countdown``."""
    if instant is None:
        return Markup("–")
    utc = instant.astimezone(UTC)
    return Markup('<time datetime="{}" data-time="{}">{}</time>').format(
        utc.isoformat(timespec="milliseconds"), mode, utc.strftime("%Y-%m-%d %H:%M:%S UTC")
    )


def language_of(req: falcon.asgi.Request) -> str:
    """The account's language; else what was chosen at the door; else the first the browser asks for that we have;
    else English."""
    account = getattr(req.context, "account", None)
    for chosen in (account and account.language, req.cookies.get(LANGUAGE_COOKIE)):
        if chosen in LANGUAGES:
            return str(chosen)
    asked = req.get_header("Accept-Language") or ""
    for part in asked.split(","):
        language = part.strip()[:2].lower()
        if language in LANGUAGES:
            return language
    return LANGUAGES[0]


def qr_code(link: str, title: str) -> Markup:
    """A link as a QR code, drawn."""
    drawn = segno.make(link, error="m").svg_inline(border=4, omitsize=True, title=title)
    return Markup(drawn)  # noqa: S704 - segno's own markup


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
        self._templates.filters["here"] = here
        self._templates.globals |= {
            "time_of": time_of,
            "sparkline": charts.sparkline,
            "time_bar": charts.time_bar,
            "only_here": only_here,
            "same_network": same_network,
        }

    def render(
        self,
        req: falcon.asgi.Request,
        resp: falcon.asgi.Response,
        name: str,
        /,
        *,
        status: int = 200,
        headers: Mapping[str, str] = PAGE_HEADERS,
        **values: Any,
    ) -> None:
        language = language_of(req)
        resp.status = status
        resp.content_type = "text/html; charset=utf-8"
        for header, value in headers.items():
            resp.set_header(header, value)
        if req.scheme == "https":
            resp.set_header("Strict-Transport-Security", "max-age=31536000")

        resp.text = self._templates.get_template(name).render(
            **_voice(language), language=language, languages=LANGUAGES, **values
        )

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

    def gallery_failure(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, failure: Failure) -> None:
        """A guest's page for what programs get as a problem of an open gallery."""
        status = problems.STATUS[failure.code]
        if isinstance(failure, ResultExpired):
            self.render(req, resp, "notice.html", status=status, notice="closed", again_s=None)
        elif isinstance(failure, RateLimited):
            again_s = math.ceil(failure.retry_after_s or AGAIN_S)
            resp.set_header("Retry-After", str(again_s))
            self.render(req, resp, "notice.html", status=status, notice="crowded", again_s=again_s)
        elif status >= 500:
            self.failure(req, resp, failure)
        else:
            self.render(req, resp, "notice.html", status=status, notice="no_gallery", again_s=None)

    def gallery(
        self,
        req: falcon.asgi.Request,
        resp: falcon.asgi.Response,
        gallery: Any,
        link: str,
        *,
        now: datetime,
        slideshow: bool,
        is_first: bool,
        admin_page: str | None,
    ) -> None:
        """The page of an open gallery. ``link``: its public address, for the QR code; ``is_first``: of its newest
        pictures; ``admin_page``: where whoever looks may close it."""
        qr = qr_code(link, words(language_of(req))["guests.qr"])
        name = "slideshow.html" if slideshow else "gallery_open.html"
        values: dict[str, Any] = {
            "link": link,
            "qr": qr,
            "now": now,
            "source": here(link),
            "first": gallery.items[0].url if gallery.items else None,
            "back": None,
            "admin_page": admin_page,
        }
        self.render(req, resp, name, gallery=gallery, is_first=is_first, **values)

    def result(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, row: Row, link: str) -> None:
        """The page of a picture. ``link``: its public address, for the QR code; the page itself asks where it came
        from, which may be another name of this server."""
        qr = qr_code(link, words(language_of(req))["result.qr"])
        self.render(req, resp, "result.html", row=row, here=f"?{urlsplit(link).query}", link=link, qr=qr)
        resp.set_header("PhotoChanger-Result-Expires-At", row["result_expires_at"].isoformat())


def _voice(language: str) -> dict[str, Any]:
    """What a template speaks with, in one language."""

    def t(key: str, of: str = language, /, **values: object) -> str:
        return say(of, key, **values)

    def tn(key: str, n: float, /, **values: object) -> str:
        return say_count(language, key, n, **values)

    def marked(key: str, /, **values: object) -> Markup:
        """A word into which markup is put."""
        return Markup(escape(words(language)[key])).format(**values)  # noqa: S704 - escaped here

    def seconds(value: float | None) -> str:
        return "–" if value is None else say(language, "unit.s", n=formats.seconds(language, value))

    def lasting(value: float) -> str:
        """A time in the unit that says it shortest."""
        if value < 120 and value % 60:
            return seconds(value)
        minutes = round(value / 60)
        if minutes % 60:
            return say_count(language, "system.minutes", minutes)
        return say_count(language, "system.hours", minutes // 60)

    def elapsed(since: datetime) -> Markup:
        """The seconds since an instant, which ``time.js`` counts on."""
        so_far = formats.number(language, max(0.0, (datetime.now(UTC) - since).total_seconds()))
        at, unit = since.astimezone(UTC).isoformat(timespec="milliseconds"), words(language)["unit.s"]
        return Markup('<time datetime="{}" data-time="elapsed" data-unit="{}">{}</time>').format(
            at, unit, unit.format(n=so_far)
        )

    def size(value: float) -> str:
        number, unit = formats.size(language, value)
        return say(language, f"unit.{unit}", n=number)

    return {
        "t": t,
        "tn": tn,
        "marked": marked,
        "seconds": seconds,
        "lasting": lasting,
        "elapsed": elapsed,
        "size": size,
        "number": functools.partial(formats.number, language),
        "word_block": functools.partial(word_block, language),
    }
