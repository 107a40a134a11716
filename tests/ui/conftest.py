"""Real Chromium for the tests of the pages: where Debian's is not installed, they are not collected."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from ops.simulators import serving
from ops.simulators.gemini import Gemini
from tests.conftest import database
from tests.installation import Installation

CHROMIUM = Path("/usr/bin/chromium")
collect_ignore_glob = [] if CHROMIUM.exists() else ["test_*.py"]

#: A name of this machine that is no secure context, as a studio's LAN address is none.
LAN_HOST = "booth.test"
_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    f"--host-resolver-rules=MAP {LAN_HOST} 127.0.0.1",
]

Guest = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Of one module, not of the session: Playwright keeps an event loop running in the thread, and no asynchronous
    test can run beside it."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=_ARGS)
        yield chromium
        chromium.close()


@pytest.fixture
def guest(browser: Browser) -> Iterator[Guest]:
    """Opens a page as a guest's browser would; at the end nothing may have been complained about: no message of the
    console (a policy's report is one), no error of a script, no request to a host but the page's own."""
    complaints: list[str] = []
    opened: list[Any] = []

    def open_page(
        *, width: int = 1440, language: str = "en", scheme: str = "light", javascript: bool = True, **options: Any
    ) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900 if width > 600 else 740},
            device_scale_factor=1 if width > 600 else 2,
            locale={"en": "en-GB", "ru": "ru-RU"}[language],
            timezone_id="Asia/Yekaterinburg",
            color_scheme=scheme,  # type: ignore[arg-type]
            java_script_enabled=javascript,
            accept_downloads=True,
            **options,
        )
        opened.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("console", lambda message: complaints.extend(_complaint(page, message)))
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("request", lambda request: complaints.extend(_stranger(page, request)))
        return page

    yield open_page
    for context in opened:
        context.close()
    assert complaints == []


def _complaint(page: Page, message: ConsoleMessage) -> list[str]:
    if message.type not in ("error", "warning"):
        return []
    address = message.location.get("url", "")
    if "/api/" in address and re.search(r"status of (401|409|412|413|415|422)", message.text):
        return []  # the API has refused what was asked for: the page says so, and a test looks for that
    ours = urlsplit(address).path == urlsplit(page.url).path or address.endswith("/api/nowhere")
    if ours and re.search(r"status of (400|401|403|404|410|422|429|503)", message.text):
        return []  # Chromium's own remark on the status of the page itself, or its own asking anew: meant to be so
    return [f"{message.type}: {message.text} ({address})"]


def _stranger(page: Page, request: Request) -> list[str]:
    home = urlsplit(page.url).netloc
    if (
        request.url.startswith("blob:")
        or request.is_navigation_request()
        or not home
        or urlsplit(request.url).netloc == home
    ):
        return []
    return [f"request to another host: {request.url}"]


@pytest.fixture(scope="module")
def gemini() -> Iterator[Gemini]:
    """Gemini's simulator."""
    with serving(Gemini()) as simulator:
        yield simulator


@pytest.fixture(scope="session")
def studio(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running installation whose settings and accounts tests may change: in the group ``studio``."""
    for url in database(server_url):
        with Installation(tmp_path_factory.mktemp("studio"), database_url=url) as running:
            yield running
