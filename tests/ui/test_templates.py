"""The templates' page in a real browser: brought by dropping, shown with what uses them, deleted by name."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import FilePayload, Page, expect

from tests.conftest import database
from tests.installation import Installation
from tests.photos import photo
from tests.ui.conftest import Guest
from tests.ui.signed_in import LOOKS, check_focus, look, sign_in
from web.pages import words

pytestmark = pytest.mark.xdist_group("templates")


@pytest.fixture(scope="module")
def studio(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    for url in database(server_url):
        with Installation(tmp_path_factory.mktemp("home"), database_url=url) as running:
            yield running


def drop(page: Page, name: str) -> None:
    """Drops a picture on the page's zone, as from a folder."""
    data = list(photo(900, 600, "PNG"))
    transfer = page.evaluate_handle(
        """([name, data]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(data)], name, { type: "image/png" }));
          return transfer;
        }""",
        [name, data],
    )
    page.locator("#upload-zone").dispatch_event("drop", {"dataTransfer": transfer})


def use(its: Installation, name: str, slot_id: str) -> None:
    """Has a slot's route name the template."""
    template_id = str(its.sql("SELECT id FROM template_media WHERE name = %s", name)[0]["id"])
    route = {"rungs": [{"provider": "local", "operation": "frame", "settings": {"template": template_id}}]}
    its.sql("UPDATE slot SET route = %s::jsonb WHERE id = %s", json.dumps(route), slot_id)


def test_an_empty_page_says_what_to_do_next(guest: Guest, studio: Installation) -> None:
    page = guest(width=360)
    sign_in(page, studio, path="/templates")
    expect(page.locator(".empty h2")).to_have_text("No templates yet")
    expect(page.locator("#upload-zone")).to_be_visible()
    look(page, "templates-empty-en-360-light", width=360)


def test_a_dropped_picture_becomes_a_template(guest: Guest, studio: Installation) -> None:
    page = guest()
    sign_in(page, studio, path="/templates")
    for name in ("Gold frame.png", "Beach.png", "Painter.png"):
        drop(page, name)
        shown = page.locator(".template h2", has_text=name.removesuffix(".png"))
        expect(shown).to_be_visible()
        shown.hover()  # what one has brought oneself comes all the same
        page.locator(".template .photo").first.focus()
    expect(page.locator("#uploads li")).to_have_count(0)
    use(studio, "Gold frame", "slot-002")


def test_what_is_no_picture_is_refused_in_words(guest: Guest, studio: Installation) -> None:
    page = guest()
    sign_in(page, studio, path="/templates")
    text = FilePayload(name="notes.png", mimeType="image/png", buffer=b"no picture at all")
    page.locator("#upload-zone input").set_input_files(text)
    expect(page.locator("#uploads .bad")).not_to_be_empty()
    page.locator("#uploads button").click()
    expect(page.locator("#uploads li")).to_have_count(0)


@pytest.mark.parametrize(("language", "width", "scheme"), LOOKS)
def test_the_templates_are_whole(guest: Guest, studio: Installation, language: str, width: int, scheme: str) -> None:
    page = guest(language=language, width=width, scheme=scheme)
    sign_in(page, studio, path="/templates")
    expect(page.locator("h1")).to_have_text(words(language)["templates.title"])
    expect(page.locator(".template")).to_have_count(3)
    expect(page.locator(".template", has_text="Gold frame")).to_contain_text("Slot 2")
    page.wait_for_load_state("load")
    look(page, f"templates-{language}-{width}-{scheme}", width=width)
    check_focus(page)


def test_a_template_in_use_is_deleted_only_with_clear_words(guest: Guest, studio: Installation) -> None:
    page = guest()
    sign_in(page, studio, path="/templates")
    expect(page.locator("#upload-zone")).to_be_visible()
    page.locator(".template", has_text="Gold frame").locator("[data-delete]").click()
    dialog = page.locator("dialog[open]")
    expect(dialog).to_contain_text("Delete Gold frame?")
    expect(dialog.locator("li")).to_have_text("Slot 2")
    look(page, "templates-delete-en-1440-light", width=1440, full=False)
    dialog.get_by_role("button", name="Delete all the same").click()
    expect(page.locator(".template")).to_have_count(2)
    expect(page.locator(".template :focus")).to_have_count(1)  # not at the page's begin again


def test_a_template_taken_into_use_meanwhile_is_asked_about_again(guest: Guest, studio: Installation) -> None:
    page = guest()
    sign_in(page, studio, path="/templates")
    expect(page.locator("#upload-zone")).to_be_visible()
    use(studio, "Beach", "slot-003")
    page.locator(".template", has_text="Beach").locator("[data-delete]").click()
    page.locator("dialog[open] .danger").click()
    expect(page.locator("dialog[open]")).to_contain_text("Beach is in use")
    page.get_by_role("button", name="Cancel").click()
    page.reload()
    expect(page.locator(".template", has_text="Beach")).to_contain_text("Slot 3")
