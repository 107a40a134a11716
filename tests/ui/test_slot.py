"""A slot's page in a real browser: set up from nothing, tried, saved, sent to, and changed by two at once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Dialog, FilePayload, Locator, Page, expect

from ops.simulators import KEY
from ops.simulators.gemini import Gemini
from tests.api import PASSWORD
from tests.conftest import database
from tests.installation import INGEST_PASSWORD, Installation, until
from tests.photos import photo
from tests.ui.conftest import LAN_HOST, Guest
from tests.ui.signed_in import FLOWS, LOOKS, check_focus, end_sessions, failed_job, look, sign_in
from web.pages import words
from web.pages.names import made_by

pytestmark = pytest.mark.xdist_group("slot")
SAMPLE = Path(__file__).parents[2] / "ops" / "sample" / "photo.jpg"
#: Permissions of somebody who looks and changes nothing.
READS = ("slots:read", "jobs:read", "stats:read")


@pytest.fixture(scope="module")
def studio(server_url: str, tmp_path_factory: pytest.TempPathFactory, gemini: Gemini) -> Iterator[Installation]:
    """An installation that reaches a simulated Gemini; some photos were made."""
    env = {"PHOTOCHANGER_GEMINI_API_KEY": KEY, "PHOTOCHANGER_GEMINI_BASE_URL": gemini.url}
    for url in database(server_url):
        with Installation(tmp_path_factory.mktemp("home"), database_url=url, env=env) as running:
            for _ in range(4):
                assert running.post(photo(1200, 800)).status_code == 200
            assert running.post(SAMPLE.read_bytes()).status_code == 200
            failed_job(running)
            yield running


def rung(page: Page, number: int) -> Locator:
    return page.locator(".rung").nth(number)


def ready(page: Page) -> None:
    """Waits for the editor."""
    expect(page.locator(".rung-head").first).to_be_visible()


def saved(page: Page) -> None:
    """Saves, and sees that it was."""
    page.locator(".savebar .button:not(.quiet)").click()
    expect(page.locator(".savebar")).to_be_hidden()


def discard(page: Page, language: str = "en") -> None:
    """Gives up what was changed, as asked."""
    page.locator(".savebar .quiet").click()
    page.get_by_role("dialog").get_by_role("button", name=words(language)["ui.discard"]).click()
    expect(page.locator(".savebar")).to_be_hidden()


def slot_of(its: Installation, slot_id: str) -> dict[str, object]:
    return its.sql("SELECT name, is_active, version, route, options FROM slot WHERE id = %s", slot_id)[0]


@pytest.mark.parametrize(("language", "width", "scheme"), LOOKS)
def test_a_slot_is_whole(guest: Guest, studio: Installation, language: str, width: int, scheme: str) -> None:
    page = guest(language=language, width=width, scheme=scheme)
    sign_in(page, studio, path="/slots/slot-001")
    ready(page)
    expect(page.locator(".try")).to_be_visible()
    expect(page.locator(".recent img")).not_to_have_count(0)
    page.wait_for_load_state("load")
    look(page, f"slot-{language}-{width}-{scheme}", width=width)
    check_focus(page)


@pytest.mark.parametrize(("language", "width", "scheme"), LOOKS)
def test_the_list_is_whole(guest: Guest, studio: Installation, language: str, width: int, scheme: str) -> None:
    page = guest(language=language, width=width, scheme=scheme)
    sign_in(page, studio, path="/slots")
    expect(page.locator("h1")).to_have_text(words(language)["slots.title"])
    page.wait_for_load_state("load")
    look(page, f"slots-{language}-{width}-{scheme}", width=width)
    check_focus(page)


def test_the_list_is_live_and_can_be_searched(guest: Guest, studio: Installation) -> None:
    page = guest()
    sign_in(page, studio, path="/slots?state=on")
    expect(page.locator("tbody tr")).to_have_count(1)
    today = page.locator("[data-live='slot-001-today']")
    page.locator(".named a.strong").hover()
    before = today.inner_text()
    studio.post(photo(300, 200))
    expect(today).not_to_have_text(before)
    page.mouse.move(5, 5)
    studio.done("slot", "set", "slot-007", "--on")
    studio.post(photo(300, 200))
    expect(page.locator("tbody tr")).to_have_count(2, timeout=10_000)
    studio.done("slot", "set", "slot-007", "--off")
    studio.post(photo(300, 200))
    expect(page.locator("tbody tr")).to_have_count(1, timeout=10_000)
    page.locator("[name=search]").fill("nowhere")
    page.keyboard.press("Enter")
    expect(page.locator(".empty h2")).to_have_text(words("en")["slots.none"])
    expect(page).to_have_url(re.compile("state=on"))


@pytest.mark.parametrize(("language", "width"), FLOWS)
def test_from_nothing_to_a_picture_that_arrives_live(
    guest: Guest, studio: Installation, gemini: Gemini, language: str, width: int
) -> None:
    said = words(language)
    page = guest(language=language, width=width, permissions=["clipboard-read", "clipboard-write"])
    sign_in(page, studio, path="/")
    page.locator("a[href='/slots#new']").click()
    page.locator("#new-name").fill("Watercolour")
    page.locator("#new-id").fill("slot-001")
    page.locator("#new-slot .button:not(.quiet)").click()
    expect(page.locator("#new-id-error")).to_contain_text(said["slots.id_taken"])
    expect(page.locator("#new-id")).to_be_focused()
    page.locator("#new-id").fill(f"water-{language}")
    page.locator("#new-slot .button:not(.quiet)").click()
    expect(page.locator("h1")).to_have_text("Watercolour")
    slot_id = page.url.rsplit("/", 1)[1]
    assert slot_id == f"water-{language}"
    ready(page)

    first = rung(page, 0)
    first.get_by_label(said["slot.provider"]).select_option("gemini")
    first.get_by_label(said["slot.operation"]).select_option("image_edit")
    expect(first.get_by_label(said["field.prompt"])).to_have_value("")
    first.get_by_label(said["field.prompt"]).fill("As a watercolour")
    expect(first.get_by_label(said["field.image_size"]).locator("option")).to_have_text([said["ui.not_set"], "1K"])
    first.get_by_label(said["field.model"], exact=True).select_option(label="gemini-3-pro-image")
    first.get_by_label(said["field.image_size"]).select_option("2K")
    expect(first.get_by_label(said["field.prompt"])).to_have_value("As a watercolour")
    expect(page.locator(".savebar")).to_contain_text(said["slot.unsaved"])
    page.get_by_role("button", name=said["slot.add_rung"]).click()
    second = rung(page, 1)
    second.get_by_label(said["slot.provider"]).select_option("local")
    second.get_by_label(said["slot.operation"]).select_option("frame")
    second.get_by_label(said["field.caption"]).fill("Wedding")
    second.get_by_role("button", name=said["ui.choose"]).click()
    frame = FilePayload(name="gold frame.png", mimeType="image/png", buffer=photo(600, 400, "PNG"))
    page.locator(".picker input[type=file]").set_input_files(frame)
    expect(page.locator(".choice[aria-pressed=true]")).to_have_text("gold frame")
    look(page, f"slot-picker-{language}-{width}-light", width=width, full=False)
    page.get_by_role("button", name=said["picker.use"]).click()
    expect(second.locator(".taken")).to_contain_text("gold frame")
    second.get_by_role("button", name=said["slot.up"]).focus()
    page.keyboard.press("Enter")
    expect(rung(page, 0).get_by_label(said["field.caption"])).to_have_value("Wedding")
    rung(page, 0).get_by_role("button", name=said["slot.down"]).click()

    edited = made_by(language, "gemini/image_edit")
    gemini.script.append("hang")
    page.locator("#try-zone input").set_input_files(str(SAMPLE))
    until(lambda: gemini.flying, within_s=10, what="the call runs")
    page.locator("#trial").get_by_role("button", name=said["slot.try_stop"]).click()
    expect(page.locator("#trial")).to_contain_text(said["slot.try_stopped"])
    until(lambda: not gemini.flying, within_s=10, what="the call is given up")
    gemini.script.extend(["http_500"] * 10)
    page.locator("#try-zone input").set_input_files(str(SAMPLE))
    expect(page.locator("#trial")).to_contain_text(made_by(language, "local/frame"))
    expect(page.locator("#trial .attempts li")).not_to_have_count(1)
    gemini.script.clear()
    first.get_by_label(said["field.prompt"]).fill("As an oil painting")
    page.get_by_role("button", name=said["slot.try_again"]).click()
    expect(page.locator("#trial .facts")).to_contain_text(f"{edited} · gemini-3-pro-image")
    expect(page.locator("#trial .attempts")).to_have_count(0)
    expect(page.locator(".try .message")).to_be_hidden()
    until(
        lambda: page.locator("#trial .compare img").first.evaluate("(one) => one.complete && one.naturalWidth > 0"),
        within_s=10,
        what="the photo",
    )
    page.locator("#trial .compare input").focus()
    page.keyboard.press("ArrowRight")
    look(page, f"slot-tried-{language}-{width}-light", width=width)

    page.locator("label.switch").click()
    saved(page)
    expect(page.locator("[data-live=state]")).to_have_text(said["slots.is_on"])
    route = slot_of(studio, slot_id)["route"]
    assert [f"{one['provider']}/{one['operation']}" for one in route["rungs"]] == ["gemini/image_edit", "local/frame"]  # type: ignore[index]

    page.locator("[data-copy='#ingest-link']").click()
    expect(page.locator(".toast").last).to_contain_text(said["ui.copied"])
    link = page.evaluate("navigator.clipboard.readText()")
    assert link.endswith(f"/ingest/{slot_id}")
    sent = httpx.post(
        link,
        data={"password": INGEST_PASSWORD},
        files={"fileToUpload": ("a.jpg", photo(900, 600), "image/jpeg")},
        timeout=60,
        trust_env=False,
    )
    assert sent.status_code == 200
    page.mouse.move(5, 5)
    expect(page.locator(".recent li").first.locator(".by")).to_have_text(edited)
    expect(page.locator(".recent li")).to_have_count(1)
    page.locator(".recent [data-qr]").first.click()
    expect(page.locator("#qr-dialog svg")).to_be_visible()


def test_the_link_is_copied_where_there_is_no_secure_context(guest: Guest, studio: Installation) -> None:
    page = guest(width=360)
    sign_in(page, studio, path="/slots/slot-001", host=LAN_HOST)
    ready(page)
    assert page.evaluate("window.isSecureContext") is False
    page.locator("[data-copy='#ingest-link']").click()
    expect(page.locator(".toast")).to_contain_text("Copied")
    field = page.locator("#slot-name")
    field.fill("")
    field.focus()
    page.keyboard.press("Control+V")
    expect(field).to_have_value(f"http://{LAN_HOST}:{studio.port}/ingest/slot-001")
    discard(page)


def test_what_is_wrong_is_said_at_its_field(guest: Guest, studio: Installation) -> None:
    page = guest(language="ru", width=360)
    sign_in(page, studio, path="/slots/slot-003")
    ready(page)
    russian = words("ru")
    page.get_by_role("button", name=russian["slot.add_rung"]).click()
    for number, operation in enumerate(("image_edit", "style_transfer")):
        rung(page, number).locator("select").first.select_option("gemini")
        rung(page, number).locator("select").nth(1).select_option(operation)
    rung(page, 0).get_by_label(russian["field.send_edge"]).fill("9")
    save = page.locator(".savebar .button:not(.quiet)")
    save.click()
    wrong = [rung(page, number).locator(".field.wrong .error") for number in (0, 1)]
    expect(wrong[0]).to_have_text([russian["wrong.string_type"], russian["wrong.greater_than_equal"]])
    expect(wrong[1]).to_have_text([russian["wrong.string_type"]])
    expect(rung(page, 0).locator("[aria-invalid]").first).to_be_focused()
    expect(page.locator(".savebar")).to_contain_text(russian["slot.see_fields"])
    page.locator("#period-amount").fill("5")
    save.click()
    expect(page.locator("#options .field.wrong")).to_have_count(3)
    look(page, "slot-wrong-ru-360-light", width=360)
    discard(page, "ru")


@pytest.mark.parametrize(("language", "width"), FLOWS)
def test_two_change_a_slot_and_nothing_is_lost(guest: Guest, studio: Installation, language: str, width: int) -> None:
    said = words(language)
    mine, theirs = guest(language=language, width=width), guest(language=language, width=width)
    slot_id = {"en": "slot-004", "ru": "slot-014"}[language]
    for page in (mine, theirs):
        sign_in(page, studio, path=f"/slots/{slot_id}")
        ready(page)
    theirs.locator("#slot-name").fill("Theirs")
    theirs.get_by_label(said["field.budget_per_day"]).fill("20")
    rung(theirs, 0).get_by_label(said["slot.operation"]).select_option("filter")
    saved(theirs)

    mine.locator("#slot-name").fill("Mine")
    rung(mine, 0).get_by_label(said["slot.operation"]).select_option("frame")
    rung(mine, 0).get_by_label(said["field.caption"]).fill("Typed by me")
    mine.locator(".savebar .button:not(.quiet)").click()
    dialog = mine.locator("dialog.conflict")
    expect(dialog).to_contain_text("Typed by me")
    expect(dialog.locator(".part")).to_have_count(3)
    expect(dialog).to_contain_text(said["slot.conflict_by"].format(name="studio"))
    expect(dialog.locator(".said .same")).not_to_have_count(0)
    look(mine, f"slot-conflict-{language}-{width}-light", width=width, full=False)
    mine.keyboard.press("Escape")
    expect(rung(mine, 0).get_by_label(said["field.caption"])).to_have_value("Typed by me")
    mine.locator(".savebar .button:not(.quiet)").click()
    dialog.locator(".part").first.get_by_label(said["slot.theirs"]).check()
    dialog.get_by_role("button", name=said["slot.save_choice"]).click()
    expect(mine.locator(".savebar")).to_be_hidden()
    expect(mine.locator(":focus")).to_have_count(1)  # not at the page's begin again
    expect(mine.locator("#slot-name")).to_have_value("Theirs")
    now = slot_of(studio, slot_id)
    assert now["name"] == "Theirs"
    assert now["options"]["budget_per_day"] == 20  # type: ignore[index]
    assert "Typed by me" in json.dumps(now["route"])


def test_leaving_with_unsaved_changes_asks(guest: Guest, studio: Installation) -> None:
    page = guest()
    sign_in(page, studio, path="/slots/slot-005")
    ready(page)
    page.locator("#slot-name").fill("Not saved")
    asked: list[str] = []

    def stay(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    page.once("dialog", stay)
    page.locator(".side a[href='/slots']").click()
    expect(page.locator("#slot-name")).to_have_value("Not saved")
    assert asked == ["beforeunload"]
    expect(page.locator("#slot-name")).to_have_value("Not saved")
    page.get_by_role("button", name="Discard").click()
    look(page, "slot-discard-en-1440-light", width=1440, full=False)
    page.keyboard.press("Escape")
    expect(page.locator("#slot-name")).to_have_value("Not saved")  # one tap loses nothing
    discard(page)
    expect(page.locator("#slot-name")).to_have_value("Slot 5")


@pytest.mark.parametrize(("language", "width"), FLOWS)
def test_a_session_that_ends_costs_nobody_what_was_typed(
    guest: Guest, studio: Installation, language: str, width: int
) -> None:
    said, name = words(language), f"tired-{language}"
    page = guest(language=language, width=width)
    sign_in(page, studio, name=name, path="/slots/slot-008")
    ready(page)
    page.locator("#slot-name").fill(f"Typed in {language}")
    end_sessions(studio, name)
    save = page.locator(".savebar .button:not(.quiet)")
    save.evaluate("(button) => button.click()")  # the page itself may have noticed first
    dialog = page.locator("dialog.session")
    expect(dialog).to_contain_text(said["ui.session_ended"])
    look(page, f"slot-session-{language}-{width}-light", width=width, full=False)
    with page.expect_popup() as opened:
        dialog.get_by_role("link", name=said["ui.sign_in"]).click()
    door = opened.value
    expect(door.locator(".message")).to_have_text(said["sign_in.ended"])
    door.locator("#name").fill(name)
    door.locator("#password").fill(PASSWORD)
    door.locator("form button").click()
    expect(dialog).to_have_count(0)
    expect(page.locator(".toast").last).to_contain_text(said["ui.signed_in_again"])
    saved(page)
    assert slot_of(studio, "slot-008")["name"] == f"Typed in {language}"


def test_a_copy_is_named_in_the_readers_language(guest: Guest, studio: Installation) -> None:
    page = guest(language="ru", width=360)
    sign_in(page, studio, path="/slots/slot-006")
    ready(page)
    page.locator("details.more summary").click()
    page.get_by_role("button", name=words("ru")["slot.duplicate"]).click()
    expect(page.locator("h1")).to_have_text("Slot 6 (копия)")


def test_a_copy_is_made_archived_and_restored(guest: Guest, studio: Installation) -> None:
    page = guest()
    sign_in(page, studio, path="/slots/slot-006")
    ready(page)
    page.locator("details.more summary").click()
    page.get_by_role("button", name="Duplicate").click()
    expect(page.locator("h1")).to_have_text("Slot 6 (copy)")
    ready(page)
    page.locator("details.more summary").click()
    page.locator("[data-do=reset]").click()
    page.keyboard.press("Escape")
    expect(page.locator("dialog[open], details.more[open]")).to_have_count(0)
    expect(page.locator("details.more summary")).to_be_focused()
    page.keyboard.press("Enter")
    page.locator("[data-do=reset]").click()
    page.locator("dialog[open] .danger").click()
    expect(page.locator(".toast")).to_contain_text("begin anew")
    page.locator("details.more summary").click()
    page.locator("[data-do=archive]").click()
    expect(page.locator("dialog[open]")).to_contain_text("Archive Slot 6 (copy)?")
    page.locator("dialog[open] .danger").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    look(page, "slots-archived-en-1440-light", width=1440)
    page.get_by_role("button", name="Restore").click()
    expect(page.locator("h1")).to_have_text("Slot 6 (copy)")
    expect(page.locator("[data-live=state]")).to_have_text("off")


def test_a_rerun_says_when_the_photo_is_gone(guest: Guest, studio: Installation) -> None:
    page = guest()
    sign_in(page, studio, path="/slots/slot-001")
    ready(page)
    again = page.locator("[data-rerun]").first
    expect(again).to_be_disabled()
    expect(again).to_have_accessible_description(page.locator("#no-rerun").inner_text())
    page.locator("#no-rerun a").click()
    expect(page.locator("#setting-t_original_retention_h")).to_be_in_viewport()


def test_without_javascript_it_shows_everything(guest: Guest, studio: Installation) -> None:
    page = guest(javascript=False)
    sign_in(page, studio, path="/slots/slot-001")
    expect(page.locator(".rung.read")).to_contain_text("sepia")
    expect(page.locator("#ingest-link")).to_contain_text("/ingest/slot-001")
    expect(page.locator(".recent img").first).to_be_visible()
    page.locator(".link-card summary").first.click()
    expect(page.locator(".link-card svg").first).to_be_visible()


def test_who_may_only_look_finds_no_form(guest: Guest, studio: Installation) -> None:
    page = guest()
    sign_in(page, studio, name="looker", permissions=READS, path="/slots/slot-001")
    expect(page.locator(".rung.read")).to_be_visible()
    expect(page.locator("#slot-name, [data-do], [data-rerun], .try")).to_have_count(0)
    look(page, "slot-read-en-1440-light", width=1440)
