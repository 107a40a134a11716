"""A browser in which an administrator is signed in, and what is looked at on every page of the frame."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

from playwright.sync_api import Page, expect

from photochanger.permissions import PERMISSIONS
from tests.api import HASHED, PASSWORD
from tests.installation import Installation
from tests.ui.accessible import faults, unseen_focus
from web.api.authority import SESSION_COOKIE

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
#: The languages, widths and schemes that every page is walked in.
LOOKS = [("en", 1440, "light"), ("ru", 360, "light"), ("en", 360, "dark"), ("ru", 1440, "dark")]
#: Those that a studio's main flows are gone through in: on a laptop in one language, on a phone in the other.
FLOWS = [("en", 1440), ("ru", 360)]


#: The session of each account, by the installation's address.
_SESSIONS: dict[tuple[str, str], str] = {}


def account(
    its: Installation, name: str, permissions: Iterable[str] = PERMISSIONS, *, must_change: bool = False
) -> None:
    """Makes an account with the password ``tests.api.PASSWORD``, where there is none of this name."""
    its.sql(
        "INSERT INTO account (name, password_hash, permissions, must_change) VALUES (%s, %s, %s, %s) "
        "ON CONFLICT (name) DO UPDATE SET permissions = EXCLUDED.permissions",
        name,
        HASHED,
        list(permissions),
        must_change,
    )


def sign_in(
    page: Page,
    its: Installation,
    *,
    name: str = "studio",
    permissions: Iterable[str] = PERMISSIONS,
    path: str = "/",
    host: str = "127.0.0.1",
) -> None:
    """Signs an account in, made where it is not there, and opens ``path``, quoted; with the session that the account
    has from before while that is good, as a browser would."""
    account(its, name, permissions)
    home = its.url.replace("127.0.0.1", host)
    session = _SESSIONS.get((home, name))
    if session is not None:
        page.context.add_cookies([{"name": SESSION_COOKIE, "value": session, "url": home}])
        page.goto(home + unquote(path))
    if session is None or "/sign-in" in page.url:
        page.goto(f"{home}/sign-in?next={path}")
        page.locator("#name").fill(name)
        page.locator("#password").fill(PASSWORD)
        page.locator("form button").click()
        expect(page.locator(".framed")).to_be_visible()
        [kept] = [one for one in page.context.cookies(home) if one["name"] == SESSION_COOKIE]
        _SESSIONS[home, name] = kept["value"]
    expect(page.locator(".framed")).to_be_visible()
    page.wait_for_load_state("load")  # its modules have run


def end_sessions(its: Installation, name: str) -> None:
    """Ends every session of an account, as its owner may from elsewhere."""
    its.sql("UPDATE session SET revoked_at = clock_timestamp() WHERE account = %s", name)


def look(page: Page, name: str, *, width: int, full: bool = True) -> None:
    """Keeps a screenshot and holds the page to what every page must keep."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=full)
    page.wait_for_load_state("load")
    found_width = page.evaluate("document.documentElement.scrollWidth")
    assert found_width <= width, page.evaluate(_WIDE)
    found = faults(page)
    assert found == [], found


def check_focus(page: Page) -> None:
    """Everything that the keyboard reaches shows that it has been reached."""
    found = unseen_focus(page)
    assert found == [], found


def failed_job(its: Installation, *, code: str = "provider_refused", detail: str = "The model said: SAFETY") -> str:
    """A job that failed just now, like the newest there is."""
    made = its.sql(
        "INSERT INTO job (id, slot_id, status, is_finalized, finalized_at, failure_reason, failure_detail, created_at,"
        " expires_at, snapshot, payload_mime, payload_bytes, payload_sha256) SELECT gen_random_uuid(), slot_id,"
        " 'failed', true, clock_timestamp(), %s, %s, clock_timestamp() - interval '4 s',"
        " clock_timestamp() + interval '44 s', snapshot, payload_mime, payload_bytes, payload_sha256"
        " FROM job ORDER BY created_at DESC LIMIT 1 RETURNING id",
        code,
        detail,
    )[0]["id"]
    its.sql("INSERT INTO job_ended (job_id) VALUES (%s) ON CONFLICT DO NOTHING", made)
    return str(made)


#: What stands out of the page at its right.
_WIDE = """
() => [...document.querySelectorAll("body *")]
  .filter((one) => one.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map((one) => one.outerHTML.slice(0, 90)).slice(0, 8)
"""
