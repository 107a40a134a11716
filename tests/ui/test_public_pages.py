"""The pages a guest sees, in a real browser: the picture, its waiting page, the page of an expired or missing one."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import psycopg
import pytest
import segno
from playwright.sync_api import Page, expect

from photochanger.config import Config
from photochanger.tokens import Links, master_keys
from tests.conftest import at
from tests.installation import Installation, result_link, until
from tests.photos import opened, photo
from tests.ui.accessible import faults
from tests.ui.conftest import LAN_HOST, Guest
from tests.ui.signed_in import FLOWS, LOOKS, SCREENSHOTS
from web.pages import words

pytestmark = pytest.mark.xdist_group("guests")

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "ops" / "sample" / "photo.jpg"

TITLES = {
    "result": "result.title",
    "waiting": "waiting.title",
    "expired": "expired.title",
    "missing": "missing.title",
}


@pytest.fixture(scope="module")
def links(shared: Installation) -> dict[str, str]:
    """The address of one page of each kind."""
    ready = result_link(shared.post(SAMPLE.read_bytes(), timeout=70))
    expired = result_link(shared.post(photo()))
    expire_in(shared, expired, seconds=-1)
    return {
        "result": ready,
        "waiting": link_of(shared, unfinished_job(shared, like=ready)),
        "expired": expired,
        "missing": f"{shared.url}/public/results/00000000-0000-4000-8000-000000000000?token=k1.0.x",
    }


def job_of(link: str) -> str:
    return urlsplit(link).path.rpartition("/")[2]


def link_of(its: Installation, job_id: UUID) -> str:
    """The signed link of a job that was not sent by a camera."""
    tokens = Links(master_keys(Config(home=its.home)), "result")
    end = datetime.now(UTC) + timedelta(hours=72)
    return f"{its.url}/public/results/{job_id}?token={tokens.token(str(job_id), end)}"


def unfinished_job(its: Installation, *, like: str) -> UUID:
    """A job that is pending and that no worker was told of."""
    made: UUID = its.sql(
        "INSERT INTO job (id, slot_id, status, created_at, expires_at, snapshot, payload_mime, payload_bytes,"
        " payload_sha256) SELECT gen_random_uuid(), slot_id, 'pending', clock_timestamp(),"
        " clock_timestamp() + interval '10 minutes', snapshot, payload_mime, payload_bytes, payload_sha256"
        " FROM job WHERE id = %s RETURNING id",
        job_of(like),
    )[0]["id"]
    return made


def finish(its: Installation, job: str, *, like: str) -> None:
    """The job has the result of another."""
    its.sql(
        "UPDATE job SET status = 'succeeded', is_finalized = true, finalized_at = clock_timestamp(),"
        " result_expires_at = clock_timestamp() + interval '72 hours', result_file_path = d.result_file_path,"
        " result_mime = d.result_mime, result_bytes = d.result_bytes, result_sha256 = d.result_sha256,"
        " result_width = d.result_width, result_height = d.result_height, served_by = d.served_by"
        " FROM job d WHERE d.id = %s AND job.id = %s",
        job_of(like),
        job,
    )


def expire_in(its: Installation, link: str, *, seconds: float) -> None:
    its.sql(
        "UPDATE job SET result_expires_at = clock_timestamp() + %s * interval '1 second' WHERE id = %s",
        seconds,
        job_of(link),
    )


def shown(page: Page) -> Callable[[], bool]:
    """Whether the picture is on the screen, whole."""
    return lambda: bool(
        page.evaluate(
            "() => { const i = document.querySelector('.picture img'); return !!i && i.complete && i.naturalWidth > 0 }"
        )
    )


@pytest.mark.parametrize(("language", "width", "scheme"), LOOKS)
@pytest.mark.parametrize("kind", list(TITLES))
def test_every_page_is_whole_in_both_languages_widths_and_schemes(
    guest: Guest, links: dict[str, str], kind: str, language: str, width: int, scheme: str
) -> None:
    page = guest(width=width, language=language, scheme=scheme)
    answer = page.goto(links[kind])
    assert answer is not None
    assert answer.status == {"expired": 410, "missing": 404}.get(kind, 200)
    if kind == "result":
        until(shown(page), within_s=15, what="the picture")
        code = page.locator(".qr svg").bounding_box()
        assert code is not None
        assert code["height"] <= (130 if width == 360 else 200)
        expect(page.locator(".beside .message")).to_contain_text(words(language)["link.set_address"])
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{kind}-{language}-{width}-{scheme}.png", full_page=True)
    expect(page.locator("h1")).to_have_text(words(language)[TITLES[kind]])
    assert page.locator("html").get_attribute("lang") == language
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert faults(page) == []


def test_the_picture_fits_on_the_screen_beside_its_words(guest: Guest, links: dict[str, str]) -> None:
    page = guest(width=1440)
    page.goto(links["result"])
    until(shown(page), within_s=15, what="the picture")
    box = page.locator(".picture img").bounding_box()
    assert box is not None
    assert box["width"] > 1000
    assert box["width"] / box["height"] == pytest.approx(1536 / 1024, rel=0.01)
    assert page.evaluate("document.documentElement.scrollHeight") == 900


def test_a_tall_picture_fits_too(guest: Guest, shared: Installation) -> None:
    page = guest(width=1440)
    page.goto(result_link(shared.post(photo(1200, 1800))))
    until(shown(page), within_s=15, what="the picture")
    box = page.locator(".picture img").bounding_box()
    assert box is not None
    assert box["height"] == pytest.approx(900 - 60, abs=1)
    assert box["width"] / box["height"] == pytest.approx(2 / 3, rel=0.01)


def test_nothing_moves_while_the_page_loads(guest: Guest, links: dict[str, str]) -> None:
    page = guest(width=360)
    page.add_init_script(
        "window.shifts = []; new PerformanceObserver((list) => shifts.push(...list.getEntries().map((e) => e.value)))"
        ".observe({ type: 'layout-shift', buffered: true })"
    )
    page.goto(links["result"])
    until(shown(page), within_s=15, what="the picture")
    expect(page.get_by_role("timer")).not_to_be_empty()
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.evaluate("shifts") == []


def test_the_button_downloads_the_very_bytes_the_camera_got(guest: Guest, shared: Installation) -> None:
    answer = shared.post(photo())
    page = guest(width=360)
    page.goto(result_link(answer))
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert Path(download.value.path()).read_bytes() == answer.content
    assert re.fullmatch(r"photo-\d{4}-\d\d-\d\d-\d{6}\.jpg", download.value.suggested_filename)


def test_the_qr_code_holds_the_page_s_own_link(guest: Guest, links: dict[str, str]) -> None:
    page = guest()
    page.goto(links["result"])
    expected = io.BytesIO()
    segno.make(links["result"], error="m").save(expected, kind="svg", border=4, omitsize=True)
    drawn = re.search(r' d="([^"]+)"', expected.getvalue().decode())
    assert drawn is not None
    assert page.locator(".qr path").get_attribute("d") == drawn[1]


def test_the_countdown_ticks_every_second(guest: Guest, shared: Installation) -> None:
    link = result_link(shared.post(photo()))
    expire_in(shared, link, seconds=100)
    page = guest()
    page.goto(link)
    timer = page.get_by_role("timer")
    expect(timer).to_have_text(re.compile(r"^1\sminute \d+\sseconds?$"))
    first = timer.inner_text()
    expect(timer).not_to_have_text(first, timeout=3000)
    expire_in(shared, link, seconds=72 * 3600)  # or it ends under a later test that has it on its overview


def test_the_countdown_goes_by_the_server_s_clock_not_the_phone_s(guest: Guest, links: dict[str, str]) -> None:
    page = guest()
    page.clock.set_system_time(datetime.now(UTC) + timedelta(hours=36))
    page.goto(links["result"])
    expect(page.get_by_role("timer")).to_have_text(re.compile(r"^2\sdays 23\shours$"))


def test_the_end_is_told_in_the_reader_s_own_zone_and_language(
    guest: Guest, shared: Installation, links: dict[str, str]
) -> None:
    link = result_link(shared.post(photo()))
    shared.sql("UPDATE job SET result_expires_at = '2031-03-08 20:30:00+00' WHERE id = %s", job_of(link))
    page = guest(language="ru")
    page.goto(link)
    expect(page.locator("#until")).to_have_text("9 марта в 01:30")
    expect(page.locator("#until")).to_have_attribute("title", re.compile(r"2031.*01:30:00"))


def test_a_page_left_open_becomes_the_expired_one_at_the_end(guest: Guest, shared: Installation) -> None:
    link = result_link(shared.post(photo()))
    expire_in(shared, link, seconds=3)
    page = guest()
    page.goto(link)
    expect(page.locator("h1")).to_have_text("Your picture")
    expect(page.locator("h1")).to_have_text("This picture has expired")


@pytest.mark.parametrize(("language", "width"), FLOWS)
def test_the_waiting_page_becomes_the_result_by_itself_and_is_downloaded(
    guest: Guest, shared: Installation, links: dict[str, str], language: str, width: int
) -> None:
    said = words(language)
    link = link_of(shared, unfinished_job(shared, like=links["result"]))
    page = guest(language=language, width=width)
    documents: list[str] = []
    page.on("request", lambda request: documents.append(request.url) if request.is_navigation_request() else None)
    page.goto(link)
    with page.expect_response(lambda response: response.request.method == "HEAD" and response.status == 200):
        expect(page.locator("h1")).to_have_text(said["waiting.title"])
    finish(shared, job_of(link), like=links["result"])
    expect(page.locator("h1")).to_have_text(said["result.title"])
    until(shown(page), within_s=15, what="the picture")
    assert len(documents) == 2, "the page was loaded again only when the picture was ready"
    with page.expect_download() as download:
        page.get_by_role("link", name=said["result.download"]).click()
    assert Path(download.value.path()).read_bytes() == httpx.get(links["result"], trust_env=False).content


def test_the_waiting_page_of_a_photo_that_failed_says_so(
    guest: Guest, shared: Installation, links: dict[str, str]
) -> None:
    link = link_of(shared, unfinished_job(shared, like=links["result"]))
    page = guest(width=360)
    page.goto(link)
    expect(page.locator("h1")).to_have_text("Your picture is still being made")
    shared.sql(
        "UPDATE job SET status = 'failed', is_finalized = true, finalized_at = clock_timestamp(),"
        " failure_reason = 'provider_refused' WHERE id = %s",
        job_of(link),
    )
    expect(page.locator("h1")).to_have_text("There is no picture here")


def test_without_javascript_the_page_tells_the_date_and_gives_the_picture(
    guest: Guest, shared: Installation, links: dict[str, str]
) -> None:
    page = guest(width=360, javascript=False)
    page.goto(links["result"])
    end = shared.sql("SELECT result_expires_at FROM job WHERE id = %s", job_of(links["result"]))[0]["result_expires_at"]
    expect(page.locator("#until")).to_have_text(end.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC"))
    expect(page.get_by_text("Time left")).to_be_hidden()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert opened(Path(download.value.path()).read_bytes()).size == (1536, 1024)


def test_without_javascript_too_the_waiting_page_becomes_the_result(
    guest: Guest, shared: Installation, links: dict[str, str]
) -> None:
    link = link_of(shared, unfinished_job(shared, like=links["result"]))
    page = guest(width=360, javascript=False)
    page.goto(link)
    expect(page.locator("h1")).to_have_text("Your picture is still being made")
    finish(shared, job_of(link), like=links["result"])
    expect(page.locator("h1")).to_have_text("Your picture")


def test_the_page_works_on_a_plain_http_address_of_the_studio_s_network(
    guest: Guest, shared: Installation, links: dict[str, str]
) -> None:
    page = guest(width=360)
    page.goto(links["result"].replace("127.0.0.1", LAN_HOST))
    assert page.evaluate("isSecureContext") is False
    until(shown(page), within_s=15, what="the picture")
    expect(page.get_by_role("timer")).to_have_text(re.compile(r"\d"))
    with page.expect_download():
        page.get_by_role("link", name="Download").click()


def test_the_download_is_reached_and_started_by_keyboard(guest: Guest, links: dict[str, str]) -> None:
    page = guest()
    page.goto(links["result"])
    page.keyboard.press("Tab")
    button = page.get_by_role("link", name="Download")
    expect(button).to_be_focused()
    assert button.evaluate("(element) => getComputedStyle(element).outlineStyle") == "solid"
    with page.expect_download():
        page.keyboard.press("Enter")


def test_under_another_public_address_the_page_shows_its_picture_and_the_qr_code_that_address(
    guest: Guest, installation: Installation
) -> None:
    here = result_link(installation.post(photo()))
    public = "https://photos.example.com"
    installation.sql("INSERT INTO app_settings (key, value) VALUES ('public_base_url', to_jsonb(%s::text))", public)

    def drawn() -> bool:
        page.goto(here)
        link = here.replace(installation.url, public)
        expected = segno.make(link, error="m").svg_inline(border=4, omitsize=True)
        return str(page.locator(".qr path").get_attribute("d")) in expected

    page = guest()
    until(drawn, within_s=10, what="the public address in the QR code")
    until(shown(page), within_s=15, what="the picture")


def test_while_the_database_is_away_the_page_says_so_and_comes_back(
    guest: Guest, installation: Installation, server_url: str, database_url: str
) -> None:
    link = result_link(installation.post(photo()))
    name = urlsplit(database_url).path[1:]
    page = guest(language="ru")
    with psycopg.connect(at(server_url, "postgres"), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        try:
            until(
                lambda: httpx.get(link, headers={"Accept": "text/html"}, trust_env=False).status_code == 503,
                within_s=10,
                what="503",
            )
            page.goto(link)
            expect(page.locator("h1")).to_have_text("Одну минуту")
        finally:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
    expect(page.locator("h1")).to_have_text("Ваш снимок", timeout=30_000)
