"""The audit in a real browser: newest first, readable, filtered by its address."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.installation import Installation
from tests.ui.conftest import Guest
from tests.ui.signed_in import LOOKS, check_focus, look, sign_in
from web.pages import words
from web.pages.audit import SHOWN

pytestmark = pytest.mark.xdist_group("studio")
EN = words("en")
_DEEDS = """
INSERT INTO audit (actor, action, target, detail, address) VALUES
('anna', 'settings.changed', 'settings', '{"max_upload_bytes": 41943040, "plain_links": true}', '192.168.1.20'),
('anna', 'user.changed', 'user/bert',
 '{"permissions": ["jobs:read", "stats:read"], "is_active": true}', '192.168.1.20'),
('anna', 'slot.saved', 'slot/slot-001', '{"version": 7, "changed": ["route", "options"]}', '192.168.1.20'),
('anna', 'gallery.opened', 'gallery/0b9f6c1e-8a57-4c8e-9d4b-2f7f7d1f8f10', '{"minutes": 5, "slot_id": null}', NULL),
('anna', 'template.added', 'template/7d1f8f10-8a57-4c8e-9d4b-2f7f0b9f6c1e', '{"name": "frame.png"}', '192.168.1.20'),
('anna', 'user.password_set', 'user/anna', '{}', '192.168.1.20'),
('anna', 'provider.changed', 'provider/openai', '{"options": {"calls_per_minute": 30}}', '192.168.1.20'),
(NULL, 'login.failed', 'user', '{}', '203.0.113.9'),
('(command)', 'ingest_password.rotated', 'ingest-password', '{"grace_s": 0}', NULL)
"""


@pytest.fixture(autouse=True, scope="module")
def deeds(studio: Installation) -> None:
    """Somebody has done this and that."""
    studio.sql(
        "INSERT INTO audit (actor, action, target, detail) "
        "SELECT 'carl', 'job.rerun', 'job/' || gen_random_uuid(), '{}' FROM generate_series(1, 60)"
    )
    studio.sql(_DEEDS)


@pytest.mark.parametrize(("language", "width", "scheme"), LOOKS)
def test_the_audit_is_whole(guest: Guest, studio: Installation, language: str, width: int, scheme: str) -> None:
    page = guest(language=language, width=width, scheme=scheme)
    sign_in(page, studio, path="/audit")
    expect(page.locator("h1")).to_have_text(words(language)["audit.title"])
    expect(page.locator(".trail")).to_contain_text(words(language)["action.slot.saved"])
    look(page, f"audit-{language}-{width}-{scheme}", width=width, full=False)
    check_focus(page)


def test_what_was_changed_is_readable(guest: Guest, studio: Installation) -> None:
    page = guest(javascript=False)
    sign_in(page, studio, path="/audit%3Factor%3Danna")
    rows = page.locator(".trail tbody tr")
    expect(rows).to_have_count(7)
    expect(rows.filter(has_text=EN["audit.own_password"])).to_have_count(1)
    expect(rows.get_by_role("link", name="Template frame.png", exact=True)).to_be_visible()
    expect(rows.get_by_role("link", name=f"Gallery {EN['detail.every']}", exact=True)).to_be_visible()
    expect(rows.filter(has_text="Changed settings")).to_contain_text("A file at most")
    expect(rows.filter(has_text="Changed settings")).to_contain_text("40 MB")
    expect(rows.filter(has_text="Changed a user")).to_contain_text("See jobs, See statistics")
    expect(rows.filter(has_text="Changed a slot")).to_contain_text("route, options")
    expect(rows.filter(has_text="Opened a gallery")).to_contain_text(EN["detail.every"])
    expect(rows.filter(has_text="provider’s options")).to_contain_text(f"{EN['provider_option.calls_per_minute']}: 30")


def test_the_filters_stand_in_the_address_and_the_links_set_them(guest: Guest, studio: Installation) -> None:
    page = guest(javascript=False)
    sign_in(page, studio, path="/audit")
    page.locator("#action").select_option("ingest_password.")
    page.get_by_role("button", name=EN["audit.show"]).click()
    assert "action=ingest_password." in page.url
    expect(page.locator(".trail tbody tr").first).to_contain_text(EN["action.ingest_password.rotated"])
    expect(page.locator(".trail tbody tr").first).to_contain_text(EN["audit.at_once"])
    page.get_by_role("link", name=EN["audit.all"]).first.click()
    page.get_by_role("link", name="anna").first.click()
    expect(page.locator("#actor")).to_have_value("anna")
    page.get_by_role("link", name=re.compile(r"^Slot .+ \(slot-001\)$")).click()
    expect(page.locator("#target")).to_have_value("slot/slot-001")
    expect(page.locator(".trail tbody tr")).to_have_count(1)


def test_one_goes_back_page_by_page(guest: Guest, studio: Installation) -> None:
    page = guest(javascript=False)
    sign_in(page, studio, path="/audit%3Factor%3Dcarl")
    expect(page.locator(".trail tbody tr")).to_have_count(SHOWN)
    page.get_by_role("link", name=EN["audit.older"]).click()
    expect(page.locator(".trail tbody tr")).to_have_count(60 - SHOWN)
    expect(page.locator("#actor")).to_have_value("carl")
    page.get_by_role("link", name=EN["audit.newest"]).click()
    expect(page.locator(".trail tbody tr")).to_have_count(SHOWN)


def test_where_nothing_fits_it_says_so(guest: Guest, studio: Installation) -> None:
    page = guest(language="ru", width=360)
    sign_in(page, studio, path="/audit%3Factor%3Dnobody")
    expect(page.locator(".empty")).to_contain_text(words("ru")["audit.none"])
    look(page, "audit-empty-ru-360-light", width=360)
