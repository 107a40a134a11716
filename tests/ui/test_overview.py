"""The overview in a real browser: whole in every look, live, and still where one is about to click."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, Request, expect

from tests.installation import Installation
from tests.photos import photo
from tests.ui.conftest import Guest
from tests.ui.signed_in import FLOWS, LOOKS, check_focus, failed_job, look, sign_in
from web.pages import words

pytestmark = pytest.mark.xdist_group("shared")
SAMPLE = Path(__file__).parents[2] / "ops" / "sample" / "photo.jpg"


@pytest.fixture(scope="module")
def evening(shared: Installation) -> Iterator[Installation]:
    """Some photos were made, one went wrong, a provider is out, a budget is nearly spent."""
    for _ in range(5):
        assert shared.post(photo(1200, 800)).status_code == 200
    assert shared.post(SAMPLE.read_bytes()).status_code == 200
    failed_job(shared)
    shared.sql("UPDATE slot SET options = options || '{\"budget_per_day\": 10}' WHERE id = 'slot-001'")
    shared.sql(
        "INSERT INTO limit_use (key, holder, amount, expires_at) "
        "VALUES ('budget/slot-001/day', 'all', 8.4, clock_timestamp() + interval '1 hour')"
    )
    yield shared
    shared.sql("UPDATE slot SET options = options - 'budget_per_day' WHERE id = 'slot-001'")
    shared.sql("DELETE FROM limit_use")


def newest(page: Page) -> str:
    return str(page.locator(".strip .photo").first.get_attribute("id"))


@pytest.mark.parametrize(("language", "width", "scheme"), LOOKS)
def test_the_overview_is_whole(guest: Guest, evening: Installation, language: str, width: int, scheme: str) -> None:
    page = guest(language=language, width=width, scheme=scheme)
    sign_in(page, evening)
    expect(page.locator("h1")).to_have_text(words(language)["overview.title"])
    expect(page.locator(".strip img")).not_to_have_count(0)
    page.wait_for_load_state("load")
    if width == 1440:
        assert page.locator(".strip").evaluate("(strip) => strip.scrollWidth - strip.clientWidth") <= 0
    look(page, f"overview-{language}-{width}-{scheme}", width=width)
    check_focus(page)


@pytest.mark.parametrize(("language", "width"), FLOWS)
def test_the_browsers_time_zone_is_offered_while_nobody_has_set_one(
    guest: Guest, evening: Installation, language: str, width: int
) -> None:
    said, zone = words(language), "Asia/Yekaterinburg"
    page = guest(language=language, width=width)
    sign_in(page, evening, name="looker", permissions=("settings:read",))
    expect(page.locator("#zone-offer")).to_have_count(0)
    page = guest(language=language, width=width)
    sign_in(page, evening)
    look(page, f"overview-zone-{language}-{width}-light", width=width, full=False)
    try:
        page.get_by_role("button", name=said["overview.zone.use"].format(zone=zone)).click()
        expect(page.locator(".toast")).to_contain_text(zone)
        expect(page.locator("#zone-offer")).to_be_hidden()
        assert evening.sql("SELECT value FROM app_settings WHERE key = 'time_zone'")[0]["value"] == zone
    finally:
        evening.sql("DELETE FROM app_settings WHERE key = 'time_zone'")


def test_a_photo_arrives_by_itself_and_nothing_else_moves(guest: Guest, evening: Installation) -> None:
    page = guest()
    sign_in(page, evening)
    expect(page.locator("html")).to_have_attribute("data-live", "on")
    before = newest(page)
    made = page.locator("[data-live=today] dd").first
    count = int(made.inner_text())
    tops = page.evaluate("[...document.querySelectorAll('.slot')].map((one) => one.getBoundingClientRect().top)")
    evening.post(photo())
    expect(page.locator(".strip .photo").first).not_to_have_id(before)
    expect(made).to_have_text(str(count + 1))
    after = page.evaluate("[...document.querySelectorAll('.slot')].map((one) => one.getBoundingClientRect().top)")
    assert after == tops


def test_a_picture_under_the_pointer_stays_until_it_has_left(guest: Guest, evening: Installation) -> None:
    page = guest()
    sign_in(page, evening)
    expect(page.locator("html")).to_have_attribute("data-live", "on")
    before = newest(page)
    page.locator(".strip .photo").first.hover()
    made = page.locator("[data-live=today] dd").first
    count = int(made.inner_text())
    evening.post(photo())
    expect(made).to_have_text(str(count + 1))
    assert newest(page) == before
    page.mouse.move(5, 5)
    expect(page.locator(".strip .photo").first).not_to_have_id(before)


def test_when_the_stream_is_refused_the_page_asks_every_few_seconds(guest: Guest, evening: Installation) -> None:
    page = guest()
    page.route("**/api/events", lambda route: route.fulfill(status=204))
    sign_in(page, evening)
    expect(page.locator("html")).to_have_attribute("data-live", "polling")
    before = newest(page)
    evening.post(photo())
    expect(page.locator(".strip .photo").first).not_to_have_id(before, timeout=12_000)
    said = re.compile(r"^State unknown since \d\d:\d\d$")
    page.route("**/", lambda route: route.fulfill(status=503))
    expect(page.locator(".verdict:visible")).to_have_text(said, timeout=12_000)
    expect(page.locator(".standing .when-lost")).to_have_text(said)
    grey = "background-color", "rgb(179, 177, 171)"
    expect(page.locator(".health .light.good").first).to_have_css(*grey)
    page.unroute("**/")
    expect(page.locator(".verdict:visible")).not_to_have_text(said, timeout=12_000)
    expect(page.locator(".health .light.good").first).not_to_have_css(*grey)


def test_a_page_that_cannot_be_read_is_not_well_though_its_stream_is_open(guest: Guest, evening: Installation) -> None:
    page = guest()
    sign_in(page, evening)
    expect(page.locator("html")).to_have_attribute("data-live", "on")
    page.route("**/", lambda route: route.fulfill(status=503))  # as while PostgreSQL is away
    evening.post(photo())
    said = re.compile(r"^State unknown since \d\d:\d\d$")
    expect(page.locator(".verdict:visible")).to_have_text(said, timeout=25_000)
    page.unroute("**/")
    expect(page.locator("html")).to_have_attribute("data-live", "on", timeout=12_000)


def test_a_picture_of_the_strip_leads_to_its_job(guest: Guest, evening: Installation) -> None:
    page = guest(width=360)
    sign_in(page, evening)
    job = newest(page).removeprefix("p-")
    page.locator(f"#p-{job}").click()
    expect(page).to_have_url(f"{evening.url}/jobs/{job}")


def test_the_first_load_is_small(guest: Guest, evening: Installation) -> None:
    page = guest()
    sign_in(page, evening)
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request))
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-live", "on")
    others = {one.url: one for one in asked if "/public/" not in one.url}
    assert len(others) <= 10, list(others)
    sizes = [one.sizes()["responseBodySize"] for url, one in others.items() if not url.endswith("/api/events")]
    assert sum(sizes) <= 200_000
    assert all("size=320" in one.url for one in asked if "/public/" in one.url)


def test_without_javascript_it_says_how_things_are(guest: Guest, evening: Installation) -> None:
    page = guest(javascript=False)
    sign_in(page, evening)
    expect(page.locator(".health")).to_contain_text("nobody waits")
    expect(page.locator("[data-live=health-providers] strong")).to_have_text(re.compile(r"^(\d) of \1$"))
    expect(page.locator(".slot .by").first).to_contain_text("Built-in · Filter (")
    expect(page.locator(".slot h3").first).to_be_visible()


def test_what_is_wrong_is_said_with_what_to_do(guest: Guest, evening: Installation) -> None:
    page = guest()
    sign_in(page, evening)
    expect(page.locator(".alerts")).to_contain_text("is nearly spent")
    expect(page.locator(".alerts")).not_to_contain_text("ingest password is wrong")
    expect(page.locator("html")).to_have_attribute("data-live", "on")
    for _ in range(3):
        assert evening.post(photo(64, 48), password="of last year").status_code == 401
    expect(page.locator(".alerts")).to_contain_text(  # though no event tells of what made no job
        re.compile(r"\d photos for Slot 1 were refused within ten minutes: The ingest password is wrong"),
        timeout=25_000,
    )
    expect(page.locator(".verdict:visible")).to_have_text("Worth a look")
