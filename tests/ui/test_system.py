"""The system page in a real browser: as things stand, and what has failed is tried again."""

from __future__ import annotations

import time
from uuid import uuid4

import pytest
from playwright.sync_api import APIResponse, Route, expect

from photochanger import schedules
from photochanger.broker.messages import QUEUE
from tests.installation import Installation, until
from tests.ui.conftest import Guest
from tests.ui.signed_in import LOOKS, check_focus, look, sign_in
from web.pages import words

pytestmark = pytest.mark.xdist_group("studio")
EN = words("en")


def dead(studio: Installation, task: str = "queue") -> str:
    """A sweep that has failed for good."""
    made = str(uuid4())
    studio.sql(
        "INSERT INTO dramatiq.queue (message_id, queue_name, state, message, mtime) "
        "SELECT %s::uuid, %s, 'rejected', jsonb_build_object('queue_name', %s::text, 'actor_name', 'sweep', "
        "'args', '[]'::jsonb, 'kwargs', jsonb_build_object('task', %s::text), 'options', "
        "jsonb_build_object('traceback', E'Traceback (most recent call last):\\nRuntimeError: the sweep failed'), "
        "'message_id', %s::text, "
        "'message_timestamp', %s::bigint), clock_timestamp()",
        made,
        QUEUE,
        QUEUE,
        task,
        made,
        int(time.time() * 1000),
    )
    return made


@pytest.mark.parametrize(("language", "width", "scheme"), LOOKS)
def test_the_system_is_whole(guest: Guest, studio: Installation, language: str, width: int, scheme: str) -> None:
    letter = dead(studio)
    studio.sql(
        "INSERT INTO limit_use (key, holder, amount, expires_at) VALUES ('calls/gemini/day', 'all', 12, "
        "clock_timestamp() + interval '5 h'), ('budget/slot-001/day', 'all', 8.4, clock_timestamp() + interval '1 h') "
        "ON CONFLICT DO NOTHING"
    )
    page = guest(language=language, width=width, scheme=scheme)
    sign_in(page, studio, path="/system")
    expect(page.locator("h1")).to_have_text(words(language)["system.title"])
    expect(page.locator("[data-task]")).to_have_count(len(schedules.EVERY_S))
    counted = words(language)["system.counts_until"].partition("{")[0].strip()
    expect(page.locator(".used")).to_contain_text(counted)  # a day's comes back as a whole
    look(page, f"system-{language}-{width}-{scheme}", width=width)
    check_focus(page)
    studio.sql("DELETE FROM dramatiq.queue WHERE message_id = %s::uuid", letter)


def test_a_dead_letter_is_tried_again(guest: Guest, studio: Installation) -> None:
    before = studio.sql("SELECT last_run_at FROM scheduled_run WHERE name = 'history'")[0]["last_run_at"]
    letter = dead(studio, "history")
    page = guest()
    sign_in(page, studio, path="/system")
    card = page.locator(f"[data-letter='{letter}']")
    expect(card).to_contain_text(EN["task.history"])
    before_it: list[tuple[Route, APIResponse]] = []
    page.route("**/system", lambda route: before_it.append((route, route.fetch())), times=1)
    until(lambda: page.evaluate("1") and before_it, within_s=10, what="the page reads itself anew")
    card.get_by_role("button", name=EN["system.requeue"]).click()
    expect(page.locator(".toast")).to_contain_text(EN["system.js.requeued"])
    [(route, answer)] = before_it
    route.fulfill(response=answer)
    expect(card).to_have_count(0)
    until(
        lambda: studio.sql("SELECT last_run_at FROM scheduled_run WHERE name = 'history'")[0]["last_run_at"] > before,
        within_s=20,
        what="the sweep has run",
    )


def test_a_dead_letter_is_deleted_when_one_is_sure(guest: Guest, studio: Installation) -> None:
    letter = dead(studio)
    page = guest(width=360)
    sign_in(page, studio, path="/system")
    card = page.locator(f"[data-letter='{letter}']")
    card.get_by_role("button", name=EN["system.drop"]).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name=EN["ui.leave"]).click()
    expect(card).to_be_visible()
    card.get_by_role("button", name=EN["system.drop"]).click()
    dialog.get_by_role("button", name=EN["system.js.drop_go"], exact=True).click()
    expect(card).to_have_count(0)
    assert studio.sql("SELECT FROM dramatiq.queue WHERE message_id = %s::uuid", letter) == []


def test_files_are_cleaned_up_and_backed_up_and_one_sees_it_done(guest: Guest, studio: Installation) -> None:
    page = guest()
    sign_in(page, studio, path="/system")
    expect(page.locator("[data-live=backups]")).to_contain_text(EN["backups.none"])
    page.locator("#back-up").click()
    expect(page.locator("#backing-up p")).to_have_text(EN["backups.js.done"], timeout=90_000)
    expect(page.locator("[data-live=backups] tbody tr")).to_have_count(1)
    expect(page.locator("#back-up")).to_be_focused()
    page.locator("#purge").click()
    page.get_by_role("dialog").get_by_role("button", name=EN["system.js.purge_go"], exact=True).click()
    expect(page.locator("#purging p")).to_contain_text("Done. Files deleted", timeout=30_000)
    expect(page.locator("#purging progress")).to_have_attribute("max", "4")
    look(page, "system-purged-en-1440-light", width=1440, full=False)


def test_it_keeps_itself_as_things_are(guest: Guest, studio: Installation) -> None:
    page = guest()
    sign_in(page, studio, path="/system")
    expect(page.locator("[data-live=dead-letters]")).to_contain_text(EN["system.no_letters"])
    page.mouse.move(2, 2)
    letter = dead(studio)
    expect(page.locator(f"[data-letter='{letter}']")).to_be_visible(timeout=10_000)
    studio.sql("DELETE FROM dramatiq.queue WHERE message_id = %s::uuid", letter)


def test_without_javascript_it_says_how_things_are(guest: Guest, studio: Installation) -> None:
    page = guest(javascript=False)
    sign_in(page, studio, path="/system", name="looker", permissions=("settings:read",))
    expect(page.locator(".health")).to_contain_text(EN["health.runs"])
    assert page.locator("main button").count() == 0
