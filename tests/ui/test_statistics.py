"""The statistics in a real browser: what they show is what the database holds."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from playwright.sync_api import Page, expect

from ops.bench.history import _SEED as SEED
from tests.conftest import database
from tests.installation import Installation, until
from tests.ui.conftest import Guest
from tests.ui.signed_in import LOOKS, check_focus, look, sign_in
from web.pages import words

pytestmark = pytest.mark.xdist_group("statistics")
JOBS = 2400
#: Of the last 30 days, in UTC, without the cancelled.
_COUNTED = """
SELECT count(*) FILTER (WHERE status = 'succeeded') AS made,
       count(*) FILTER (WHERE status IN ('failed', 'timed_out')) AS failed,
       count(*) FILTER (WHERE status = 'timed_out') AS late, count(*) AS jobs,
       (SELECT sum(a.cost)::float8 FROM attempt a JOIN job j ON j.id = a.job_id WHERE j.finalized_at >= {since}) AS cost
FROM job WHERE finalized_at >= {since}
""".format(since="date_trunc('day', clock_timestamp(), 'UTC') - interval '29 days'")


@pytest.fixture(scope="module")
def month(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Sixty days of a studio, evenly."""
    for url in database(server_url):
        with Installation(tmp_path_factory.mktemp("month"), database_url=url) as running:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(SEED.encode(), {"first": 1, "last": JOBS, "jobs": JOBS, "days": 60})
            until(lambda: not running.sql("SELECT FROM job_ended LIMIT 1"), within_s=60, what="all is counted")
            yield running


def figure(page: Page, name: str) -> str:
    """The number under a title of the figures."""
    found = page.locator(".figure", has=page.locator("dt", has_text=words("en")[f"statistics.{name}"])).locator("dd")
    return found.first.inner_text()


@pytest.mark.parametrize(("language", "width", "scheme"), LOOKS)
def test_the_statistics_are_whole(guest: Guest, month: Installation, language: str, width: int, scheme: str) -> None:
    page = guest(language=language, width=width, scheme=scheme)
    sign_in(page, month, path="/statistics%3Fcompare%3D1")
    expect(page.locator("h1")).to_have_text(words(language)["statistics.title"])
    expect(page.locator("svg.chart")).to_have_count(5)
    look(page, f"statistics-{language}-{width}-{scheme}", width=width)
    page.locator(".numbers summary").nth(1).click()
    look(page, f"statistics-numbers-{language}-{width}-{scheme}", width=width, full=False)
    check_focus(page)


def test_the_numbers_are_those_of_the_database(guest: Guest, month: Installation) -> None:
    page = guest(javascript=False)
    sign_in(page, month, path="/statistics")
    held = month.sql(_COUNTED)[0]
    assert held["jobs"] > 1000
    assert figure(page, "made") == f"{held['made']:,}"
    assert figure(page, "failed") == f"{held['failed']:,}"
    assert figure(page, "late") == f"{100 * held['late'] / held['jobs']:.1f}\N{NO-BREAK SPACE}%"
    assert figure(page, "cost") == f"{held['cost']:,.2f}\N{NO-BREAK SPACE}USD"
    page.locator(".numbers summary").first.click()
    made = [int(one) for one in page.locator(".numbers").first.locator("tbody tr td:nth-child(2)").all_inner_texts()]
    assert len(made) == 30
    assert sum(made) == held["made"]
    counted = page.locator("section[aria-labelledby=by-provider] tbody tr td:nth-child(2)").all_inner_texts()
    assert sum(int(one.replace(",", "")) for one in counted) == held["jobs"]


def test_a_slot_and_own_dates_stand_in_the_address(guest: Guest, month: Installation) -> None:
    page = guest(javascript=False)
    sign_in(page, month, path="/statistics")
    page.locator("#slot").select_option("slot-003")
    page.locator("#by").select_option("week")
    page.locator("#since").fill("2026-01-01")
    page.get_by_role("button", name="Show").click()
    assert "slot=slot-003" in page.url
    expect(page.locator("#slot")).to_have_value("slot-003")
    expect(page.locator("#since")).to_have_value("2026-01-01")
    assert (
        int(figure(page, "made"))
        == month.sql("SELECT count(*) AS n FROM job WHERE slot_id = 'slot-003' AND status = 'succeeded'")[0]["n"]
    )
    page.get_by_role("link", name="7 days").click()
    expect(page.locator("#slot")).to_have_value("slot-003")
    expect(page.locator("#by")).to_have_value("day")


def test_the_jobs_behind_a_number_are_those_of_its_time_and_slot(guest: Guest, month: Installation) -> None:
    slot = month.sql("SELECT slot_id FROM job WHERE status = 'failed' ORDER BY created_at DESC LIMIT 1")[0]["slot_id"]
    page = guest(javascript=False)
    sign_in(page, month, path=f"/statistics%3Fslot%3D{slot}%26range%3Dquarter")
    row = page.locator("section[aria-labelledby=by-failure] tbody tr").first
    counted = int(row.locator("td").inner_text())
    row.get_by_role("link").click()
    expect(page.locator("#slot_id")).to_have_value(slot)
    expect(page.locator("#since")).not_to_have_value("")
    expect(page.locator("#until")).not_to_have_value("")
    expect(page.locator("tbody tr")).to_have_count(min(counted, 50))


def test_the_numbers_are_taken_along_as_csv(guest: Guest, month: Installation) -> None:
    page = guest()
    sign_in(page, month, path="/statistics")
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    lines = download.value.path().read_text().splitlines()
    assert lines[0].startswith("began_at,slot,jobs")
    assert len(lines) >= 31


def test_without_photos_it_says_what_to_do(guest: Guest, month: Installation) -> None:
    page = guest(language="ru", width=360)
    sign_in(page, month, path="/statistics%3Fsince%3D2020-01-01%26until%3D2020-01-05")
    expect(page.locator(".empty")).to_contain_text(words("ru")["statistics.none"])
    look(page, "statistics-empty-ru-360-light", width=360)


@pytest.mark.parametrize(
    ("query", "wrong"),
    [("since=soon&until=2026-01-01", "date"), ("since=2026-02-01&until=2026-01-01", "date"),
     ("since=2010-01-01&until=2020-01-01&by=hour", "too_many")],
)  # fmt: skip
def test_dates_that_do_not_fit_are_told(guest: Guest, month: Installation, query: str, wrong: str) -> None:
    page = guest(javascript=False)
    sign_in(page, month, path=f"/statistics%3F{query.replace('&', '%26')}")
    expect(page.get_by_role("alert")).to_have_text(words("en")[f"statistics.wrong.{wrong}"])
