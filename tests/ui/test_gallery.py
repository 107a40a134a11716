"""The gallery in a real browser: the administrator's, the guests', and the slideshow; from the first photo to 410."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import segno
from playwright.sync_api import Browser, Page, expect

from tests.installation import Installation, result_link, until
from tests.photos import photo
from tests.ui.conftest import LAN_HOST, Guest
from tests.ui.signed_in import FLOWS, LOOKS, SCREENSHOTS, check_focus, look, sign_in
from web.pages import words

pytestmark = pytest.mark.xdist_group("guests")
SAMPLE = Path(__file__).parents[2] / "ops" / "sample" / "photo.jpg"
HTML = {"Accept": "text/html"}


@pytest.fixture(scope="module")
def evening(shared: Installation) -> Iterator[Installation]:
    """Pictures of today and of the day before."""
    made = [shared.post(photo(900, 600)) for _ in range(4)] + [shared.post(SAMPLE.read_bytes(), timeout=70)]
    made += [shared.post(photo(600, 900)) for _ in range(3)]
    for answer in made[:2]:
        shared.sql(
            "UPDATE job SET created_at = created_at - interval '1 day' WHERE id = %s", answer.headers["x-job-id"]
        )
    yield shared
    shared.sql("UPDATE gallery_share SET closed_at = clock_timestamp() WHERE closed_at IS NULL")


@pytest.fixture
def link(guest: Guest, evening: Installation) -> Iterator[str]:
    """The guests' link of a window on everything, opened by clicks."""
    page = guest()
    sign_in(page, evening, path="/gallery")
    opened = open_window(page)
    yield opened
    share = urlsplit(opened).path.rpartition("/")[2]
    evening.sql("UPDATE gallery_share SET closed_at = clock_timestamp() WHERE id = %s AND closed_at IS NULL", share)


def open_window(page: Page, language: str = "en") -> str:
    page.get_by_role("button", name=words(language)["gallery.open"]).click()
    page.get_by_role("button", name=words(language)["gallery.open_now"], exact=True).click()
    expect(page.locator("#link")).to_be_visible()
    return str(page.locator("#link").input_value())


def code_of(link: str) -> str:
    """What is drawn of a link's QR code."""
    drawn = re.search(r' d="([^"]+)"', segno.make(link, error="m").svg_inline(border=4, omitsize=True))
    assert drawn is not None
    return drawn[1]


def loaded(page: Page, selector: str) -> None:
    """The pictures that are on the screen are there, whole."""
    script = """(selector) => {
      const seen = [...document.querySelectorAll(selector)].filter((one) => one.checkVisibility()
        && one.getBoundingClientRect().top < innerHeight);
      return seen.length > 0 && seen.every((one) => one.complete && one.naturalWidth > 0);
    }"""
    until(lambda: page.evaluate(script, selector), within_s=15, what="the pictures")


def jobs_on(page: Page) -> list[str]:
    found: list[str] = page.evaluate("[...document.querySelectorAll('[data-job]')].map((one) => one.dataset.job)")
    return found


# -- the administrator's


@pytest.mark.parametrize(("language", "width", "scheme"), LOOKS)
def test_the_gallery_is_whole(guest: Guest, evening: Installation, language: str, width: int, scheme: str) -> None:
    page = guest(language=language, width=width, scheme=scheme)
    sign_in(page, evening, path="/gallery")
    expect(page.locator("h1")).to_have_text(words(language)["gallery.title"])
    expect(page.locator(".day")).to_have_count(2)
    loaded(page, ".photo img")
    look(page, f"gallery-{language}-{width}-{scheme}", width=width)
    check_focus(page)
    page.evaluate("scrollTo(0, 0)")  # from where the focus was last; else the bar lies over the first
    page.locator(".pick input").nth(0).check(force=True)
    page.locator(".pick input").nth(1).check(force=True)
    look(page, f"gallery-selection-{language}-{width}-{scheme}", width=width, full=False)


@pytest.mark.parametrize(("language", "width", "scheme"), LOOKS)
def test_a_window_is_opened_and_shown_with_its_code(
    guest: Guest, evening: Installation, language: str, width: int, scheme: str
) -> None:
    page = guest(language=language, width=width, scheme=scheme)
    sign_in(page, evening, path="/gallery")
    page.locator("[data-opens=opening]").click()
    expect(page.locator("#own")).to_be_hidden()
    page.locator("[value=own]").check()
    page.locator("#own").fill("45")
    look(page, f"gallery-opening-{language}-{width}-{scheme}", width=width, full=False)
    page.locator("#open-share .actions .button").last.click()
    expect(page.locator(".showing [role=timer]")).to_have_text(re.compile(r"^(45:00|44:5\d)$"))
    expect(page.locator(".showing .message a")).to_have_text(words(language)["link.set_address"])
    expect(page.locator(".when-on")).to_have_text(words(language)["frame.live"])
    look(page, f"gallery-share-{language}-{width}-{scheme}", width=width)
    check_focus(page)
    assert page.locator(".showing .qr path").get_attribute("d") == code_of(page.locator("#link").input_value())
    box = page.locator(".showing .qr svg").bounding_box()
    assert box is not None
    assert box["width"] >= 250
    link = page.locator("#link").input_value()
    page.get_by_role("button", name=words(language)["gallery.extend"]).click()
    expect(page.locator(".showing [role=timer]")).to_have_text(re.compile(r"^1:4[45]:\d\d$"))
    assert page.request.get(link).ok  # as it was given out
    page.goto(f"{evening.url}/gallery")
    expect(page.locator(".share")).not_to_have_count(0)
    look(page, f"gallery-shares-{language}-{width}-{scheme}", width=width, full=False)
    evening.sql("UPDATE gallery_share SET closed_at = clock_timestamp() WHERE closed_at IS NULL")


def test_a_new_picture_is_announced_and_moves_nothing_until_one_asks_for_it(
    guest: Guest, evening: Installation
) -> None:
    page = guest()
    sign_in(page, evening, path="/gallery")
    expect(page.locator("html")).to_have_attribute("data-live", "on")
    before = jobs_on(page)
    made = evening.post(photo()).headers["x-job-id"]
    arrived = page.locator("#arrived")
    expect(arrived).to_have_text("Show 1 new picture")
    assert jobs_on(page) == before
    arrived.click()
    expect(page.locator(".pick").first).to_have_attribute("data-job", made)
    assert jobs_on(page) == [made, *before]
    expect(arrived).to_be_hidden()


def test_a_day_and_a_slot_are_chosen_in_the_address(guest: Guest, evening: Installation) -> None:
    page = guest()
    sign_in(page, evening, path="/gallery")
    page.get_by_role("link", name="Yesterday").click()
    expect(page.locator(".pick")).to_have_count(2)
    assert "day=" in page.url
    page.locator("#slot_id").select_option("slot-002")
    expect(page.locator(".empty h2")).to_have_text("No pictures")
    assert "slot_id=slot-002" in page.url
    look(page, "gallery-empty-en-1440-light", width=1440)
    page.locator("#slot_id").select_option("")
    expect(page.locator(".pick")).to_have_count(2)
    assert page.goto(f"{evening.url}/gallery?day=soon") is not None
    expect(page.locator("h1")).to_have_text(words("en")["failure.invalid_request"])


def test_older_pictures_are_added_behind_and_have_an_address_of_their_own(guest: Guest, evening: Installation) -> None:
    like = evening.post(photo()).headers["x-job-id"]
    evening.sql(
        "INSERT INTO job (id, slot_id, status, is_finalized, created_at, expires_at, finalized_at, snapshot,"
        " payload_mime, payload_bytes, payload_sha256, result_file_path, result_mime, result_bytes, result_sha256,"
        " result_width, result_height, result_expires_at, served_by)"
        " SELECT gen_random_uuid(), slot_id, status, is_finalized,"
        " created_at - n * interval '1 minute' - interval '2 days', expires_at, finalized_at, snapshot, payload_mime,"
        " payload_bytes, payload_sha256, result_file_path, result_mime, result_bytes, result_sha256,"
        " result_width, result_height, result_expires_at, 'local/old'"
        " FROM job, generate_series(1, 70) n WHERE id = %s",
        like,
    )
    try:
        page = guest()
        sign_in(page, evening, path="/gallery")
        expect(page.locator(".pick")).to_have_count(60)
        page.locator(".pick input").first.check(force=True)
        older = str(page.locator("#older").get_attribute("href"))
        page.locator("#older").click()
        until(lambda: len(jobs_on(page)) > 60, within_s=10, what="the older ones")
        assert len(jobs_on(page)) == len(set(jobs_on(page)))
        expect(page.locator(".chosen .count")).to_have_text("1 picture selected")
        page.goto(evening.url + older)
        expect(page.get_by_role("link", name="Newest")).to_be_visible()
        page.locator("[data-select-day]").first.click()
        count = page.locator(".chosen .count")
        expect(count).to_have_text(re.compile(r"^\d+ pictures selected$"))
        assert int(count.inner_text().split()[0]) > page.locator(".day").first.locator(".pick").count()
    finally:
        evening.sql("DELETE FROM job WHERE served_by = 'local/old'")


def test_what_is_selected_comes_in_one_file_byte_for_byte(guest: Guest, evening: Installation) -> None:
    answers = [evening.post(photo()) for _ in range(2)]
    page = guest()
    sign_in(page, evening, path="/gallery")
    for answer in answers:
        page.locator(f"[data-job='{answer.headers['x-job-id']}'] input").check(force=True)
    expect(page.locator(".chosen .count")).to_have_text("2 pictures selected")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download ZIP").click()
    assert download.value.suggested_filename == "pictures.zip"
    with zipfile.ZipFile(Path(download.value.path())) as packed:
        assert packed.testzip() is None
        assert {packed.read(name) for name in packed.namelist()} == {answer.content for answer in answers}
    expect(page.locator(".chosen")).to_be_hidden()


def test_the_lightbox_downloads_copies_and_shows_the_code(guest: Guest, evening: Installation) -> None:
    answer = evening.post(photo())
    page = guest(width=360)
    sign_in(page, evening, path="/gallery", host=LAN_HOST)
    assert page.evaluate("isSecureContext") is False
    expect(page.locator(".message")).to_have_count(0)  # its links lead here from other machines, too
    page.locator(f"#p-{answer.headers['x-job-id']}").click()
    box = page.locator("dialog.lightbox")
    with page.expect_download() as download:
        box.get_by_role("link", name="Download").click()
    assert Path(download.value.path()).read_bytes() == answer.content
    box.get_by_role("button", name="QR code").click()
    drawing = page.evaluate(
        "async (selector) => (await fetch(document.querySelector(selector).src)).text()", ".lightbox .code img"
    )
    loaded(page, ".lightbox .code img")  # the browser takes it for a picture
    shown = result_link(answer).replace("127.0.0.1", LAN_HOST)
    assert f' d="{code_of(shown)}"' in drawing
    loaded(page, ".lightbox .shown")
    box.get_by_role("button", name="Copy link").click()
    toast = page.locator(".toast")
    expect(toast).to_have_text(re.compile("Copied"))
    look(page, "gallery-lightbox-en-360-light", width=360, full=False)
    toast.get_by_role("button").click()  # it lies over the picture, not behind
    expect(toast).to_have_count(0)
    box.get_by_role("button", name="Copy link").click()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    expect(box).to_be_hidden()
    expect(toast).to_be_visible()  # and outlasts it
    assert not page.evaluate("document.querySelector('#toasts').matches('dialog *, [popover]')")  # and shades nothing


def test_without_javascript_pictures_are_seen_filtered_and_packed(guest: Guest, evening: Installation) -> None:
    page = guest(javascript=False)
    sign_in(page, evening, path="/gallery")
    expect(page.get_by_text(words("en")["frame.no_script"])).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "gallery-unscripted-en-1440-light.png")
    page.locator(".pick input").first.check(force=True)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download ZIP").click()
    assert zipfile.is_zipfile(download.value.path())


def test_without_javascript_the_slideshow_shows_the_newest(guest: Guest, evening: Installation, link: str) -> None:
    page = guest(javascript=False)
    sign_in(page, evening)
    for address in (f"{link}&slideshow=1", f"{evening.url}/gallery/slideshow"):
        page.goto(address)
        expect(page.locator("#none")).to_be_hidden()
        loaded(page, "#stage .front")


def test_a_gallery_that_was_left_open_begins_anew_where_more_came_than_a_page(
    guest: Guest, evening: Installation
) -> None:
    page = guest()
    sign_in(page, evening, path="/gallery")
    expect(page.locator("html")).to_have_attribute("data-live", "on")
    page.evaluate("document.querySelectorAll('#pictures .pick').forEach((one, at) => at && one.remove())")
    page.locator("#pictures .pick").evaluate("(one) => (one.dataset.job = 'of-long-ago')")
    evening.post(photo())
    arrived = page.locator("#arrived")
    expect(arrived).to_have_text(re.compile(r"^Show the \d+ newest pictures$"))
    with page.expect_navigation():
        arrived.click()
    expect(page.locator(".pick").first).not_to_have_attribute("data-job", "of-long-ago")


def test_a_double_click_opens_one_gallery(guest: Guest, evening: Installation) -> None:
    page = guest()
    sign_in(page, evening, path="/gallery")
    [before] = evening.sql("SELECT count(*) AS n FROM gallery_share")
    page.locator("[data-opens=opening]").click()
    page.locator("#open-share .actions .button").last.dblclick()
    expect(page).to_have_url(re.compile("/gallery/shares/"))
    [after] = evening.sql("SELECT count(*) AS n FROM gallery_share")
    assert after["n"] == before["n"] + 1
    evening.sql(
        "UPDATE gallery_share SET closed_at = clock_timestamp() WHERE closed_at IS NULL AND id::text = %s",
        page.url.rpartition("/")[2],
    )


def test_who_may_only_look_opens_nothing(guest: Guest, evening: Installation) -> None:
    page = guest()
    sign_in(page, evening, name="looker", permissions=["jobs:read"], path="/gallery")
    expect(page.locator(".pick").first).to_be_visible()
    expect(page.get_by_role("button", name="Open to guests")).to_have_count(0)


def test_the_administrator_s_own_slideshow_shows_a_new_photo(guest: Guest, evening: Installation) -> None:
    page = guest()
    sign_in(page, evening, path="/gallery")
    page.get_by_role("link", name="Slideshow").click()
    expect(page.locator("#stage")).to_have_attribute("data-shown", re.compile("."))
    made = evening.post(photo(1200, 800)).headers["x-job-id"]
    expect(page.locator("#stage")).to_have_attribute("data-shown", made)
    expect(page.locator(".qr")).to_have_count(0)
    page.get_by_role("link", name="Open to guests").click()
    page.get_by_label("4 hours").check()
    page.get_by_role("button", name="Open", exact=True).click()
    opened = str(page.locator("#link").input_value())
    page.goto(f"{evening.url}/gallery/slideshow")
    expect(page.locator("#stage")).to_have_attribute("data-shown", re.compile("."))
    assert page.locator(".qr path").get_attribute("d") == code_of(opened)
    look(page, "slideshow-own-en-1440-light", width=1440, full=False)
    evening.sql("UPDATE gallery_share SET closed_at = clock_timestamp() WHERE closed_at IS NULL")
    page.get_by_role("link", name="All pictures").click()
    expect(page.locator("h1")).to_have_text("Gallery")


# -- the guests'


@pytest.mark.parametrize(("language", "width", "scheme"), LOOKS)
def test_the_guests_page_is_whole(guest: Guest, link: str, language: str, width: int, scheme: str) -> None:
    page = guest(language=language, width=width, scheme=scheme)
    page.goto(link)
    loaded(page, ".photo img")
    left = page.locator(".left").bounding_box()
    assert left is not None
    assert left["height"] < 30
    look(page, f"guests-{language}-{width}-{scheme}", width=width)
    check_focus(page)
    page.locator("details.menu summary").click()
    assert page.locator(".menu .qr path").get_attribute("d") == code_of(link)
    look(page, f"guests-code-{language}-{width}-{scheme}", width=width, full=False)
    page.keyboard.press("Tab")
    page.locator("h1").click()
    page.locator("#pictures a").first.click()
    loaded(page, ".lightbox img")
    look(page, f"guests-lightbox-{language}-{width}-{scheme}", width=width, full=False)


@pytest.mark.parametrize(("language", "width"), FLOWS)
def test_a_new_photo_comes_by_itself_and_closing_ends_it_all_at_once(
    guest: Guest, evening: Installation, language: str, width: int
) -> None:
    booth = guest(language=language, width=width)
    sign_in(booth, evening, path="/gallery")
    link = open_window(booth, language)
    [(other, its_width)] = [one for one in FLOWS if one != (language, width)]
    mine, theirs = words(language), words(other)
    phone = guest(language=other, width=its_width)
    phone.goto(link)
    expect(phone.locator("#pictures li")).not_to_have_count(0)
    answer = evening.post(photo())
    made = answer.headers["x-job-id"]
    expect(phone.locator("#pictures li").first).to_have_attribute("data-job", made)
    phone.locator("#pictures a").first.click()
    with phone.expect_download() as download:
        phone.get_by_role("link", name=theirs["ui.download"]).click()
    assert Path(download.value.path()).read_bytes() == answer.content
    picture = evening.url + str(phone.locator("#pictures a").first.get_attribute("href"))
    assert httpx.get(picture, trust_env=False).status_code == 200

    expect(phone.locator(".administrator")).to_have_count(0)
    booth.get_by_role("link", name=mine["gallery.as_guest"]).click()
    booth.locator(".administrator a").click()
    booth.get_by_role("button", name=mine["gallery.close"]).click()
    booth.locator("dialog").get_by_role("button", name=mine["gallery.close"]).click()
    expect(booth.locator(".share-state h2")).to_have_text(mine["gallery.closed_title"])
    assert httpx.get(picture, trust_env=False).status_code == 410
    expect(phone.locator("h1")).to_have_text(theirs["closed.title"])
    expect(phone.locator(".other strong")).to_have_text(mine["closed.title"])
    look(phone, f"guests-closed-{other}-{its_width}-light", width=its_width)
    look(booth, "gallery-share-closed-en-1440-light", width=1440)


def test_back_closes_the_lightbox_and_then_leaves_the_page(guest: Guest, evening: Installation, link: str) -> None:
    page = guest(width=360)
    sign_in(page, evening, path="/jobs")
    for address, back in ((link, evening.url + "/jobs"), (f"{evening.url}/gallery", link)):
        page.goto(address)
        box = page.locator("dialog.lightbox")
        picture = page.locator("a[data-caption]")
        picture.first.click()
        expect(box).to_be_visible()
        page.go_back()
        expect(box).to_be_hidden()
        expect(picture.first).to_be_focused()
        for close in ("Escape", "×"):
            picture.first.click()
            expect(box).to_be_visible()
            page.keyboard.press("ArrowRight")
            box.get_by_text("×").click() if close == "×" else page.keyboard.press(close)
            expect(box).to_be_hidden()
            expect(picture.nth(1)).to_be_focused()
            until(lambda: page.evaluate("history.state === null"), within_s=10, what="its history is left")
        assert page.url == address
        page.go_back()
        expect(page).to_have_url(back)
        page.go_forward()
    picture.first.click()
    box.get_by_role("link", name="Details").click()
    expect(page.locator("#job")).to_be_visible()
    page.go_back()
    expect(page.locator("h1")).to_have_text("Gallery")
    expect(box).to_be_hidden()
    page.go_back()
    expect(page).to_have_url(link)


def test_a_picture_under_the_finger_stays_where_it_is(guest: Guest, evening: Installation, link: str) -> None:
    page = guest()
    page.goto(link)
    first = str(page.locator("#pictures li").first.get_attribute("data-job"))
    page.locator("#pictures a").first.hover()
    with page.expect_response(lambda one: made_in(one.url, one)):
        evening.post(photo())
    assert page.locator("#pictures li").first.get_attribute("data-job") == first
    page.mouse.move(5, 5)
    expect(page.locator("#pictures li").first).not_to_have_attribute("data-job", first)


def made_in(url: str, response: Any) -> bool:
    return "limit=" in url and response.ok


def test_the_slideshow_shows_a_new_photo_and_its_code_and_ends_with_the_gallery(
    guest: Guest, evening: Installation, link: str
) -> None:
    page = guest()
    page.goto(f"{link}&slideshow=1")
    stage = page.locator("#stage")
    expect(stage).to_have_attribute("data-shown", re.compile("."))
    made = evening.post(photo(1200, 800)).headers["x-job-id"]
    expect(stage).to_have_attribute("data-shown", made)
    assert page.locator(".qr path").get_attribute("d") == code_of(link)
    assert page.locator("#stage img").count() == 2
    opacity = "(image) => getComputedStyle(image).opacity"
    until(lambda: page.locator("#stage .front").evaluate(opacity) == "1", within_s=10, what="the picture")
    look(page, "slideshow-en-1440-light", width=1440, full=False)
    share = urlsplit(link).path.rpartition("/")[2]
    evening.sql("UPDATE gallery_share SET closed_at = clock_timestamp() WHERE id = %s", share)
    expect(page.locator("h1")).to_have_text("This gallery is closed")


@pytest.mark.parametrize(("language", "width", "scheme"), LOOKS)
def test_the_slideshow_is_whole(guest: Guest, link: str, language: str, width: int, scheme: str) -> None:
    page = guest(language=language, width=width, scheme=scheme, reduced_motion="reduce")
    page.goto(f"{link}&slideshow=1")
    expect(page.locator("#stage")).to_have_attribute("data-shown", re.compile("."))
    assert page.locator("#stage .front").evaluate("(image) => getComputedStyle(image).transitionDuration") == "0s"
    look(page, f"slideshow-{language}-{width}-{scheme}", width=width, full=False)
    check_focus(page)


def test_the_slideshow_comes_back_after_the_network_was_lost(
    browser: Browser, evening: Installation, link: str
) -> None:
    context = browser.new_context()
    try:
        page = context.new_page()
        page.goto(f"{link}&slideshow=1")
        expect(page.locator("#stage")).to_have_attribute("data-shown", re.compile("."))
        context.set_offline(True)
        expect(page.locator("#trouble")).to_be_visible(timeout=30_000)
        made = evening.post(photo()).headers["x-job-id"]
        context.set_offline(False)
        expect(page.locator("#stage")).to_have_attribute("data-shown", made, timeout=20_000)
        expect(page.locator("#trouble")).to_be_hidden()
    finally:
        context.close()


def test_a_gallery_left_open_closes_by_itself_at_its_end(guest: Guest, evening: Installation, link: str) -> None:
    share = urlsplit(link).path.rpartition("/")[2]
    evening.sql("UPDATE gallery_share SET expires_at = clock_timestamp() + interval '4 s' WHERE id = %s", share)
    page = guest(width=360)
    page.goto(link)
    expect(page.locator(".left")).to_have_text(re.compile(r"closes in 00:0\d"))
    expect(page.locator("h1")).to_have_text("This gallery is closed")


def test_programs_get_json_and_browsers_a_page_with_the_pages_headers(evening: Installation, link: str) -> None:
    page = httpx.get(link, headers=HTML, trust_env=False)
    json = httpx.get(link, trust_env=False)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert json.headers["content-type"] == "application/json"
    assert page.headers["vary"] == json.headers["vary"] == "Accept, Accept-Language"
    assert page.headers["cache-control"] == "private, no-store"
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert page.headers["referrer-policy"] == "no-referrer"
    wrong = httpx.get(link.replace("token=", "token=x"), headers=HTML, trust_env=False)
    assert (wrong.status_code, wrong.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert parse_qs(urlsplit(link).query)["token"][0] in page.text


def test_without_javascript_a_guest_sees_the_pictures(guest: Guest, link: str) -> None:
    page = guest(width=360, javascript=False)
    page.goto(link)
    expect(page.locator("#pictures img").first).to_be_visible()


def test_codes_and_links_follow_the_public_address(installation: Installation, guest: Guest) -> None:
    public = "https://photos.example.com"
    installation.sql("INSERT INTO app_settings (key, value) VALUES ('public_base_url', to_jsonb(%s::text))", public)
    installation.post(photo())
    page = guest()
    sign_in(page, installation, path="/gallery")
    opened = until(
        lambda: (found := open_again(page, installation)).startswith(public) and found,
        within_s=10,
        what="the public address",
    )
    assert page.locator(".showing .qr path").get_attribute("d") == code_of(str(opened))
    page.get_by_role("link", name="See it as a guest").click()
    loaded(page, ".photo img")
    page.locator("details.menu summary").click()
    assert page.locator(".menu .qr path").get_attribute("d") == code_of(str(opened))


def open_again(page: Page, its: Installation) -> str:
    page.goto(f"{its.url}/gallery")
    return open_window(page)


def test_a_crowd_is_asked_to_wait(installation: Installation, guest: Guest) -> None:
    installation.post(photo())
    page = guest()
    sign_in(page, installation, path="/gallery")
    link = open_window(page)
    installation.sql("INSERT INTO app_settings (key, value) VALUES ('gallery_per_minute_address', '1')")
    refused = until(
        lambda: (answer := httpx.get(link, headers=HTML, trust_env=False)).status_code == 429 and answer,
        within_s=10,
        what="the limit",
    )
    assert isinstance(refused, httpx.Response)
    assert int(refused.headers["retry-after"]) >= 1
    assert "Very many are looking" in refused.text
