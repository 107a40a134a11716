"""The list of jobs and one job, in a real browser: filters, live rows, bulk work, detail."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from playwright.sync_api import Page, expect

from ops.simulators import KEY
from ops.simulators.gemini import Gemini
from photochanger.permissions import PERMISSIONS
from tests.conftest import database
from tests.installation import Installation, until
from tests.photos import photo
from tests.ui.conftest import Guest
from tests.ui.signed_in import FLOWS, LOOKS, check_focus, failed_job, look, sign_in
from web.pages import words

pytestmark = pytest.mark.xdist_group("jobs")
EDIT = {"provider": "gemini", "operation": "image_edit", "settings": {"prompt": "x"}}


@pytest.fixture(scope="module")
def studio(server_url: str, tmp_path_factory: pytest.TempPathFactory, gemini: Gemini) -> Iterator[Installation]:
    """An installation that keeps originals, with some jobs of every kind; ``slot-002`` asks a simulated Gemini."""
    env = {"PHOTOCHANGER_GEMINI_API_KEY": KEY, "PHOTOCHANGER_GEMINI_BASE_URL": gemini.url}
    for url in database(server_url):
        with Installation(tmp_path_factory.mktemp("studio"), database_url=url, env=env) as its:
            its.sql("INSERT INTO app_settings (key, value) VALUES ('t_original_retention_h', '24')")
            its.done("slot", "set", "slot-002", "--on", "--route", json.dumps({"rungs": [EDIT]}))
            until(lambda: kept(its), within_s=15, what="originals are kept")
            for number in range(3):
                its.post(photo(1200, 800), name=f"IMG_{number:04}.JPG", guest=f"Table{number}")
            failed_job(its)
            failed_job(its, code="provider_quota", detail="quota used up until midnight")
            yield its


def kept(its: Installation) -> bool:
    its.post(photo(64, 48))  # another each time: the same would join a job from before the setting
    return bool(its.sql("SELECT FROM job WHERE payload_path IS NOT NULL AND is_finalized"))


def waiting_job(its: Installation) -> str:
    """A job that is pending and that no worker was told of."""
    made: UUID = its.sql(
        "INSERT INTO job (id, slot_id, status, created_at, expires_at, snapshot, payload_mime, payload_bytes,"
        " payload_sha256) SELECT gen_random_uuid(), slot_id, 'pending', clock_timestamp(),"
        " clock_timestamp() + interval '10 minutes', snapshot, payload_mime, payload_bytes, payload_sha256"
        " FROM job LIMIT 1 RETURNING id"
    )[0]["id"]
    return str(made)


#: The cells of the list that stand out of their row or begin over another.
_MISPLACED = """
() => [...document.querySelectorAll("table.jobs tbody tr")].flatMap((row) => {
  const [whole, thumb] = [row, row.querySelector(".thumb")].map((one) => one.getBoundingClientRect());
  const cells = [...row.cells].filter((cell) => !cell.matches(".pick, .thumb"));
  return [...(thumb.width > 100 ? [row.cells[0]] : []), ...cells.filter((cell) => {
    const box = cell.getBoundingClientRect();
    return box.left < thumb.right || box.right > whole.right + 1 || cell.scrollWidth > cell.clientWidth + 1;
  })].map((cell) => cell.innerText);
})
"""


def newest(its: Installation, status: str = "succeeded") -> str:
    rows = its.sql("SELECT id FROM job WHERE status::text = %s ORDER BY created_at DESC LIMIT 1", status)
    return str(rows[0]["id"])


def live(page: Page) -> None:
    expect(page.locator("html")).to_have_attribute("data-live", "on")


@pytest.mark.parametrize(("language", "width", "scheme"), LOOKS)
def test_the_list_is_whole(guest: Guest, studio: Installation, language: str, width: int, scheme: str) -> None:
    page = guest(language=language, width=width, scheme=scheme)
    sign_in(page, studio, path="/jobs")
    expect(page.locator("h1")).to_have_text(words(language)["jobs.title"])
    page.locator("tbody input").first.check()
    look(page, f"jobs-{language}-{width}-{scheme}", width=width)
    check_focus(page)


@pytest.mark.parametrize(("language", "width", "scheme"), LOOKS)
def test_a_job_is_whole(guest: Guest, studio: Installation, language: str, width: int, scheme: str) -> None:
    page = guest(language=language, width=width, scheme=scheme)
    sign_in(page, studio, path=f"/jobs/{newest(studio)}")
    expect(page.locator(".compare input")).to_be_visible()
    sent = {"en": "Sent to a provider Built-in · Filter (", "ru": "Отправлено провайдеру Встроенный · Фильтр ("}
    expect(page.locator(".log")).to_contain_text(sent[language])
    page.wait_for_load_state("load")
    look(page, f"job-{language}-{width}-{scheme}", width=width)
    check_focus(page)


@pytest.mark.parametrize(("language", "width", "scheme"), LOOKS)
def test_a_failed_job_says_why(guest: Guest, studio: Installation, language: str, width: int, scheme: str) -> None:
    page = guest(language=language, width=width, scheme=scheme)
    sign_in(page, studio, path=f"/jobs/{newest(studio, 'failed')}")
    expect(page.locator(".failure-of")).to_contain_text("quota used up until midnight")
    expect(page.locator(".failure-of")).to_contain_text(words(language)["failure.provider_quota"])
    said = words(language)
    why = said["job.no_rerun.deleted"].format(setting=said["setting.t_original_retention_h"])
    expect(page.locator("#why-not")).to_have_text(why)
    expect(page.locator("#why-not a")).to_have_attribute("href", re.compile("#setting-t_original_retention_h$"))
    look(page, f"job-failed-{language}-{width}-{scheme}", width=width)


def test_the_filter_stands_in_the_address_and_works_without_javascript(guest: Guest, studio: Installation) -> None:
    page = guest(javascript=False)
    sign_in(page, studio, path="/jobs")
    page.get_by_label("Search").fill("table1")
    page.get_by_role("button", name="Find").click()
    expect(page).to_have_url(re.compile(r"text=table1"))
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_role("link", name="Failed").click()
    expect(page.get_by_role("heading", name="No job fits")).to_be_visible()
    page.get_by_role("link", name="Clear the filter").first.click()
    page.get_by_role("link", name="Failed").click()
    expect(page.locator("tbody tr")).to_have_count(2)


def test_a_job_that_runs_tells_how_long_and_a_slot_goes_by_its_new_name(guest: Guest, studio: Installation) -> None:
    job = waiting_job(studio)
    [slot] = studio.sql("SELECT slot.id, name FROM slot JOIN job ON job.slot_id = slot.id WHERE job.id = %s", job)
    page = guest()
    sign_in(page, studio, path="/jobs")
    row = page.locator(f"tr[data-job='{job}']")
    expect(row.locator("[data-live$=-seconds] time")).to_have_text(re.compile(r"^\d+ s$"))
    studio.sql("UPDATE slot SET name = 'Renamed' WHERE id = %s", slot["id"])
    try:
        page.reload()
        expect(row.locator(".slot-name")).to_have_text("Renamed")
        page.goto(f"{studio.url}/jobs/{job}")
        expect(page.locator(".state")).to_contain_text(f"Renamed(then: {slot['name']})")
    finally:
        studio.sql("UPDATE slot SET name = %s WHERE id = %s", slot["name"], slot["id"])
        studio.sql("DELETE FROM job WHERE id = %s", job)


def test_a_filter_that_cannot_be_says_so(guest: Guest, studio: Installation) -> None:
    page = guest()
    sign_in(page, studio, path="/jobs")
    page.goto(f"{studio.url}/jobs?since=yesterday&slot_id=slot-001&provider=gone")
    expect(page.get_by_role("alert")).to_contain_text("'yesterday' is no date and time")
    expect(page.get_by_label("Slot", exact=True)).to_have_value("slot-001")
    expect(page.get_by_label("Provider", exact=True)).to_have_value("gone")


def test_a_new_photo_is_announced_and_moves_nothing(guest: Guest, studio: Installation) -> None:
    page = guest()
    sign_in(page, studio, path="/jobs")
    live(page)
    first = page.locator("tbody tr").first
    box = first.bounding_box()
    job = first.get_attribute("data-job")
    studio.post(photo())
    expect(page.locator("#news")).to_have_text("1 new: show")
    assert first.bounding_box() == box
    assert first.get_attribute("data-job") == job
    page.locator("#news").click()
    expect(page.locator("tbody tr").first).not_to_have_attribute("data-job", str(job))


def test_a_row_changes_in_place_when_its_job_ends(guest: Guest, studio: Installation) -> None:
    job = waiting_job(studio)
    page = guest()
    sign_in(page, studio, path="/jobs")
    live(page)
    badge = page.locator(f"tr[data-job='{job}'] .badge").first
    expect(badge).to_have_text("Waiting")
    page.locator(f"tr[data-job='{job}'] input").check()
    cancel, again = page.get_by_role("button", name="Cancel jobs"), page.get_by_role("button", name="Do again")
    expect(cancel).to_be_visible()
    expect(page.locator("#why-not")).to_have_text(words("en")["jobs.no_rerun.running"])
    studio.sql(
        "UPDATE job SET status = 'failed', is_finalized = true, finalized_at = clock_timestamp(),"
        " failure_reason = 'provider_refused' WHERE id = %s",
        job,
    )
    expect(badge).to_have_text("Failed")
    expect(cancel).to_be_hidden()
    expect(again).to_be_disabled()
    expect(page.locator("#why-not")).to_have_text(words("en")["jobs.no_rerun.deleted"])


@pytest.mark.parametrize("language", ["en", "ru"])
@pytest.mark.parametrize("permissions", [PERMISSIONS, ("jobs:read",)])
def test_on_a_phone_a_row_is_whole_whoever_looks(
    guest: Guest, studio: Installation, language: str, permissions: tuple[str, ...]
) -> None:
    tried = newest(studio)
    studio.sql("UPDATE job SET is_test = true WHERE id = %s", tried)
    studio.sql("UPDATE attempt SET cost = 12.345 WHERE job_id = %s", tried)
    page = guest(language=language, width=360)
    sign_in(page, studio, name=f"phone-{len(permissions)}", permissions=permissions, path="/jobs")
    expect(page.locator("tbody .thumb").first).to_be_visible()
    look(page, f"jobs-row-{len(permissions)}-{language}-360-light", width=360)
    assert page.evaluate(_MISPLACED) == []


def test_the_chosen_jobs_are_cancelled_after_a_question_that_names_them(guest: Guest, studio: Installation) -> None:
    jobs = [waiting_job(studio), waiting_job(studio)]
    page = guest()
    sign_in(page, studio, path="/jobs?status=pending")
    page.get_by_label("Choose all on this page").check()
    expect(page.locator("#chosen")).to_have_text("2 chosen")
    page.get_by_role("button", name="Cancel jobs").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Cancel 2 jobs?")
    expect(dialog).to_contain_text(jobs[0][:8])
    look(page, "jobs-cancel-en-1440-light", width=1440, full=False)
    page.keyboard.press("Escape")
    assert len(studio.sql("SELECT FROM job WHERE status = 'pending'")) == 2
    page.get_by_role("button", name="Cancel jobs").click()
    dialog.get_by_role("button", name="Cancel jobs").click()
    expect(page.locator("#toasts")).to_contain_text("2 jobs were cancelled")
    assert studio.sql("SELECT FROM job WHERE status = 'pending'") == []


def test_all_that_match_are_cancelled_beyond_the_page(guest: Guest, studio: Installation) -> None:
    for _ in range(52):
        waiting_job(studio)
    page = guest()
    sign_in(page, studio, path="/jobs?status=pending")
    page.get_by_label("Choose all on this page").check()
    page.get_by_role("button", name="All that match").click()
    page.get_by_role("button", name="Cancel jobs").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel jobs").click()
    expect(page.locator("#toasts")).to_contain_text("52 jobs were cancelled", timeout=30_000)


def test_older_jobs_are_a_page_further(guest: Guest, studio: Installation) -> None:
    page = guest()
    sign_in(page, studio, path="/jobs")
    first = page.locator("tbody tr").first.get_attribute("data-job")
    page.get_by_role("link", name="Older").click()
    expect(page.locator("tbody tr").first).not_to_have_attribute("data-job", str(first))
    page.get_by_role("link", name="Newest").click()
    expect(page.locator("tbody tr").first).to_have_attribute("data-job", str(first))


def test_photos_are_done_again(guest: Guest, studio: Installation) -> None:
    page = guest()
    sign_in(page, studio, path="/jobs?status=succeeded")
    for box in page.locator("tbody input").all()[:2]:
        box.check()
    page.get_by_role("button", name="Do again").click()
    page.get_by_role("dialog").get_by_role("button", name="Do again").click()
    expect(page.locator("#toasts")).to_contain_text("2 photos are being done again")


@pytest.mark.parametrize(("language", "width"), FLOWS)
def test_a_failed_job_is_done_again_and_shown_as_it_comes(
    guest: Guest, studio: Installation, gemini: Gemini, language: str, width: int
) -> None:
    said = words(language)
    gemini.script.append("block_SAFETY")
    failed = studio.post(photo(), slot="slot-002")
    assert failed.json()["code"] == "provider_refused"
    job = failed.headers["x-job-id"]
    page = guest(language=language, width=width)
    sign_in(page, studio, path=f"/jobs/{job}")
    live(page)
    expect(page.locator(".failure-of")).to_contain_text(said["failure.provider_refused"])
    page.get_by_role("button", name=said["job.rerun"]).click()
    expect(page.locator(".again")).to_contain_text(said["job.reruns"])  # it is known on this page too
    page.locator(".toast").get_by_role("link", name=said["job.rerun_open"]).click()
    expect(page).not_to_have_url(re.compile(job))
    expect(page.locator(".again a")).to_have_attribute("href", f"/jobs/{job}")
    expect(page.locator(".state .badge")).to_have_text(said["status.succeeded"])
    expect(page.locator(".pictures img").first).to_be_visible()


@pytest.mark.parametrize(("language", "width"), FLOWS)
def test_a_running_job_is_cancelled(
    guest: Guest, studio: Installation, gemini: Gemini, language: str, width: int
) -> None:
    said = words(language)
    gemini.script.append("hang")
    with ThreadPoolExecutor(1) as camera:
        waiting = camera.submit(studio.post, photo(), slot="slot-002")
        until(lambda: gemini.flying, within_s=10, what="the call runs")
        page = guest(language=language, width=width)
        sign_in(page, studio, path=f"/jobs/{newest(studio, 'processing')}")
        live(page)
        took = page.locator(".attempts time[data-time=elapsed]")
        before, bar = took.inner_text(), page.locator("[data-live=times] .span.provider").first
        width_before = float(bar.get_attribute("width") or 0)
        expect(took).not_to_have_text(before)  # the seconds go on, and the bar with them
        until(lambda: float(bar.get_attribute("width") or 0) > width_before, within_s=10, what="the bar grows")
        look(page, f"job-running-{language}-{width}-light", width=width)
        page.get_by_role("button", name=said["job.cancel"]).click()
        page.get_by_role("dialog").get_by_role("button", name=said["job.cancel"]).click()
        expect(page.locator(".state .badge")).to_have_text(said["status.cancelled"])
        expect(page.locator("#cancel")).to_have_count(0)  # though the pointer rests where it was
        expect(page.locator(":focus")).to_have_count(1)
        expect(page.locator(".log")).to_contain_text(said["event.cut_off"])
        expect(page.locator(".log")).not_to_contain_text(said["event.provider_responded"])
        expect(page.locator(".failure-of .message.failed, .attempts .badge.failed")).to_have_count(0)  # nobody failed
        look(page, f"job-cancelled-{language}-{width}-light", width=width)
        assert waiting.result(20).json()["code"] == "cancelled"
    until(lambda: not gemini.flying, within_s=5, what="the call is given up")


def test_the_link_is_copied_and_the_code_shown_on_the_studio_s_network(guest: Guest, studio: Installation) -> None:
    page = guest()
    sign_in(page, studio, path=f"/jobs/{newest(studio)}", host="booth.test")
    page.get_by_role("button", name="Copy the link").click()
    expect(page.locator("#toasts")).to_contain_text("Copied")
    page.get_by_role("button", name="QR").click()
    code = page.locator("dialog .segno").bounding_box()
    assert code is not None
    assert code["width"] >= 220
    assert "booth.test" in str(page.locator("[data-copy]").first.get_attribute("data-copy"))


def test_before_and_after_are_compared_by_keyboard(guest: Guest, studio: Installation) -> None:
    page = guest()
    sign_in(page, studio, path=f"/jobs/{newest(studio)}")
    frame = page.locator(".compare")
    frame.locator("input").focus()
    page.keyboard.press("Home")
    assert frame.evaluate("(frame) => frame.style.getPropertyValue('--at')") == "0%"
    page.keyboard.press("ArrowRight")
    assert frame.evaluate("(frame) => frame.style.getPropertyValue('--at')") == "1%"
    page.evaluate("import('/static/js/refresh.js').then(({ refresh }) => refresh())")  # and stays where it was put
    assert frame.evaluate("(frame) => frame.style.getPropertyValue('--at')") == "1%"


def test_who_may_only_look_is_offered_nothing_else(guest: Guest, studio: Installation) -> None:
    page = guest()
    sign_in(page, studio, name="looker", permissions=["jobs:read"], path="/jobs")
    expect(page.locator("tbody tr").first).to_be_visible()
    expect(page.locator("table input")).to_have_count(0)
    page.goto(f"{studio.url}/jobs/{newest(studio)}")
    expect(page.get_by_role("button", name="Do again")).to_have_count(0)


def test_a_job_that_is_not_there_has_a_page_that_says_so(guest: Guest, studio: Installation) -> None:
    page = guest()
    sign_in(page, studio, path="/jobs")
    answer = page.goto(f"{studio.url}/jobs/nothing")
    assert answer is not None
    assert answer.status == 404
    expect(page.locator("h1")).to_have_text("There is no such job")
    look(page, "refused-en-1440-light", width=1440)


def test_an_address_that_is_nowhere_has_a_page_for_everybody(guest: Guest, studio: Installation) -> None:
    page = guest(language="ru", width=360, scheme="dark")
    page.goto(f"{studio.url}/nowhere")
    expect(page.locator("h1")).to_have_text(words("ru")["failure.not_found"])
    look(page, "refused-ru-360-dark", width=360)
