"""The reference of the API in a real browser: whole in every width, language and scheme; searched; by keyboard."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.installation import Installation
from tests.ui.accessible import faults
from tests.ui.conftest import Guest
from tests.ui.signed_in import LOOKS, SCREENSHOTS
from web.pages import words

pytestmark = pytest.mark.xdist_group("guests")

DOCS = "/api/docs"
#: Where the page is looked at; the whole of it is longer than a picture can be.
PLACES = ("", "ingestPhoto", "getResult", "failures", "schema-Slot")


def in_view(page: Page, name: str) -> bool:
    top: float = page.locator(f"#{name}").evaluate("(element) => element.getBoundingClientRect().top")
    return 0 <= top < 400


@pytest.mark.parametrize(("language", "width", "scheme"), LOOKS)
def test_the_reference_is_whole_in_both_languages_widths_and_schemes(
    guest: Guest, shared: Installation, language: str, width: int, scheme: str
) -> None:
    page = guest(width=width, language=language, scheme=scheme)
    page.goto(f"{shared.url}{DOCS}")
    expect(page.locator("h1")).to_have_text(words(language)["reference.title"])
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for place in PLACES:
        page.evaluate("(place) => { location.hash = place }", place)
        page.screenshot(path=SCREENSHOTS / f"reference-{place or 'top'}-{language}-{width}-{scheme}.png")
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert faults(page) == []


def test_the_search_leaves_what_has_all_the_words(guest: Guest, shared: Installation) -> None:
    page = guest()
    page.goto(f"{shared.url}{DOCS}")
    every = page.locator("article:visible").count()
    page.keyboard.press("/")
    field = page.get_by_role("searchbox")
    expect(field).to_be_focused()
    field.fill("Idempotency-Key 504")
    expect(page.locator("#found")).to_have_text("Found: 1")
    expect(page.locator("article:visible")).to_have_attribute("id", "ingestPhoto")
    expect(page.locator("nav li:visible")).to_have_count(1)
    page.screenshot(path=SCREENSHOTS / "reference-search-en-1440-light.png")
    field.fill("xylophone")
    expect(page.locator("#found")).to_have_text("Nothing has all these words")
    page.keyboard.press("Escape")
    expect(page.locator("article:visible")).to_have_count(every)


def test_a_link_to_what_the_search_hides_shows_it(guest: Guest, shared: Installation) -> None:
    page = guest()
    page.goto(f"{shared.url}{DOCS}")
    page.get_by_role("searchbox").fill("cancelJob /cancel Cancelling")
    expect(page.locator("#schema-JobState")).to_be_hidden()
    page.locator("#cancelJob").get_by_role("link", name="JobState").click()
    expect(page.locator("#schema-JobState")).to_be_visible()
    expect(page).to_have_url(re.compile("#schema-JobState$"))
    assert in_view(page, "schema-JobState")


def test_by_keyboard_one_gets_past_the_contents_and_to_what_was_found(guest: Guest, shared: Installation) -> None:
    page = guest()
    page.goto(f"{shared.url}{DOCS}")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the operations")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#tag-ingest")).to_be_focused()
    page.keyboard.press("/")
    page.keyboard.type("/readyz")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("#ready$"))
    assert in_view(page, "ready")


def test_without_javascript_the_page_is_complete_and_its_contents_lead_on(guest: Guest, shared: Installation) -> None:
    page = guest(width=360, javascript=False)
    page.goto(f"{shared.url}{DOCS}")
    expect(page.get_by_role("searchbox")).to_be_hidden()
    page.locator("nav").get_by_role("link", name="GET /metrics").click()
    expect(page.locator("#metrics")).to_be_in_viewport()
    expect(page.locator("article .curl").first).to_be_visible()
    page.get_by_role("link", name="Contents").click()
    expect(page.locator("#contents")).to_be_in_viewport()


def test_the_file_is_one_click_away(guest: Guest, shared: Installation) -> None:
    page = guest()
    page.goto(f"{shared.url}{DOCS}")
    target = page.get_by_role("link", name="OpenAPI 3.1").get_attribute("href")
    assert page.request.get(f"{shared.url}{target}").json()["openapi"].startswith("3.1.")
