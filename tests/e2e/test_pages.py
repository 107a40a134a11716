"""The administrators' pages over plain HTTP: their links lead somewhere; what is refused is a page for people and a
problem for programs."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest

from photochanger.config import Config
from tests.api import Api
from tests.e2e.conftest import PAID
from tests.installation import Installation
from tests.photos import photo
from web.app import create_app
from web.pages import words
from web.pages.frame import PLACES

pytestmark = pytest.mark.xdist_group("api")
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8", "Accept-Language": "ru"}


def links_of(client: httpx.Client, path: str) -> set[str]:
    """The addresses on this server that a page leads to."""
    page = client.get(path, headers=BROWSER)
    assert page.status_code == 200, path
    found = {unescape(one) for one in re.findall(r'<a\b[^>]*\bhref="([^"#][^"]*)"', page.text)}
    return {one.split("#")[0] for one in (urljoin(path, link) for link in found) if one.startswith("/")}


def test_every_link_of_every_page_leads_to_a_page(house: Installation, boss: httpx.Client) -> None:
    job = house.post(photo(64, 48)).headers["x-job-id"]
    house.post(b"", slot=PAID)
    boss.post("/api/template-media/register", data={"name": "A frame"}, files={"file": photo(64, 48)})
    share = boss.post("/api/gallery-shares", json={"minutes": 5}).json()["id"]
    old = boss.post("/api/slots/slot-001/duplicate").json()["id"]
    boss.post(f"/api/slots/{old}/archive", headers={"If-Match": '"1"'})
    pages = [place.path for place in PLACES if place.name != "docs"]
    pages += [f"/slots/{one}" for one in ("slot-001", old)] + [f"/jobs/{job}", f"/gallery/shares/{share}"]
    pages += [
        "/slots?state=archived",
        "/statistics?slot=slot-001",
        "/gallery?slot_id=slot-001",
        "/settings?part=address",
    ]
    broken = {}
    seen = set(pages)
    for page in pages:
        for link in sorted(links_of(boss, page) - seen):
            seen.add(link)
            status = boss.get(link, headers=BROWSER).status_code
            if status != 200:
                broken[link] = (status, page)
    assert broken == {}
    assert len(seen) > 60


@pytest.mark.parametrize(
    ("path", "status", "advice", "title"),
    [
        ("/nowhere", 404, "missing", "failure.not_found"),
        ("/static/nothing.js", 404, "missing", "failure.not_found"),
        ("/public/nothing", 404, "missing", "failure.not_found"),
        ("/slots/no-such-slot", 404, "missing", "failure.slot_not_found"),
        ("/gallery?nothing=1", 400, "request", "failure.invalid_request"),
        ("/sign-out", 405, "request", "failure.invalid_request"),
    ],
)
def test_what_is_refused_is_a_page_for_a_browser_and_a_problem_for_a_program(
    boss: httpx.Client, path: str, status: int, advice: str, title: str
) -> None:
    page = boss.get(path, headers=BROWSER)
    assert (page.status_code, page.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert "Accept" in page.headers["vary"]
    russian = words("ru")
    assert f"<h1>{russian[title]}</h1>" in page.text
    assert russian[f"refused.{advice}"] in page.text
    assert russian["nav.jobs"] in page.text
    problem = boss.get(path, headers={"Accept": "application/json"})
    assert (problem.status_code, problem.headers["content-type"]) == (status, "application/problem+json")


def test_who_is_not_signed_in_has_the_page_without_the_frame(known: Api) -> None:
    page = known.client.get("/nowhere", headers={**BROWSER, "Accept-Language": "en"})
    assert page.status_code == 404
    assert words("en")["failure.not_found"] in page.text
    assert words("en")["nav.jobs"] not in page.text


def test_what_an_account_may_not_see_is_a_page_that_says_so(known: Api) -> None:
    with known.signed_in("sees-little", []) as client:
        page = client.get("/jobs", headers=BROWSER)
    assert page.status_code == 403
    assert words("ru")["refused.forbidden"] in page.text


@pytest.mark.parametrize("path", ["/api/nothing", "/ingest/no-such-slot", "/public/jobs/x", "/public/media/x"])
def test_what_is_for_programs_answers_a_browser_with_a_problem_too(boss: httpx.Client, path: str) -> None:
    answer = boss.get(path, headers=BROWSER)
    assert answer.status_code in (404, 405)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "accept", ["application/json, text/html;q=0", "text/html;q=0.0, */*", "*/*", "", "text/html;q=x"]
)
def test_who_does_not_want_a_page_gets_none(known: Api, accept: str) -> None:
    answer = known.client.get("/nowhere", headers={"Accept": accept})
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.anyio
async def test_a_database_that_is_away_has_a_page_that_tries_again(tmp_path: Path) -> None:
    app: Any = create_app(Config(home=tmp_path, database_url="postgresql://nobody@127.0.0.1:1/nothing"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://booth") as client:
        page = await client.get("/sign-in", headers=BROWSER)
        problem = await client.get("/sign-in")
    assert (page.status_code, problem.status_code) == (503, 503)
    assert words("ru")["refused.unavailable"] in page.text
    assert 'http-equiv="refresh"' in page.text
    assert problem.json()["code"] == "unavailable"


@pytest.mark.parametrize("path", ["/slots/%00", "/slots?provider=%00", "/statistics?slot=a%00b", "/audit?actor=%00"])
def test_a_nul_in_an_address_is_refused(boss: httpx.Client, path: str) -> None:
    page = boss.get(path, headers=BROWSER)
    assert page.status_code == 400
    assert words("ru")["refused.request"] in page.text


@pytest.mark.parametrize("host", ["[", "[x]", "a]b", "a:b", ""])
@pytest.mark.parametrize("path", ["/", "/public/results/x", "/ingest/slot-001"])
def test_a_host_that_is_none_is_refused(boss: httpx.Client, host: str, path: str) -> None:
    for headers in (BROWSER, {}):
        answer = boss.get(path, headers={**headers, "Host": host})
        assert answer.status_code == 400, answer.text
        assert answer.headers["x-request-id"]


def test_a_question_about_the_server_itself_is_answered(boss: httpx.Client) -> None:
    answer = boss.request("OPTIONS", "/", extensions={"target": b"*"})
    assert answer.status_code == 404
    assert answer.json()["code"] == "not_found"


def test_what_is_wrong_or_unwise_about_a_route_is_said_in_the_readers_language(
    house: Installation, boss: httpx.Client
) -> None:
    old = {"prompt": "x", "model": "gemini-2.5-flash-image"}
    route = {"rungs": [{"provider": "gemini", "operation": "image_edit", "settings": old}]}
    slot = boss.post("/api/slots", json={"name": "Unwise", "route": route}).json()["id"]
    page = boss.get(f"/slots/{slot}", headers=BROWSER)
    assert "Google скоро отключит модель gemini-2.5-flash-image" in page.text
    house.sql("UPDATE slot SET route = route #- '{rungs,0,settings,prompt}' WHERE id = %s", slot)
    page = boss.get(f"/slots/{slot}", headers=BROWSER)
    assert "Шаг 1, Запрос: Заполните это поле." in page.text


def test_a_fault_of_our_own_has_a_page_with_its_number(house: Installation, boss: httpx.Client) -> None:
    house.sql("ALTER TABLE audit RENAME TO audit_away")
    try:
        page = boss.get("/audit", headers=BROWSER)
    finally:
        house.sql("ALTER TABLE audit_away RENAME TO audit")
    assert page.status_code == 500
    assert words("ru")["refused.broken"] in page.text
    assert page.headers["x-request-id"] in page.text


@pytest.mark.parametrize(
    ("kind", "sent", "status"),
    [
        ("application/json", '{"name": "\\ud800", "password": "x"}', 415),
        ("application/json", "[" * 200_000, 415),
        ("application/x-www-form-urlencodedx", "name=a", 415),
        ("multipart/form-data; boundary=x", "--x--", 415),
        ("application/x-www-form-urlencoded", "name=%00&password=x", 400),
        ("application/x-www-form-urlencoded", "name=ф&password=x", 400),
        ("application/x-www-form-urlencoded", f"name={'a' * 1025}", 400),
        ("application/x-www-form-urlencoded", "name=%ED%A0%80&password=x", 401),
        ("Application/X-WWW-Form-URLEncoded; charset=UTF-8", "name=a&name=b&password=x", 401),
    ],
)
def test_what_is_no_plain_form_does_not_sign_in(house: Installation, kind: str, sent: str, status: int) -> None:
    origin = {"Origin": house.url}
    answer = httpx.post(
        f"{house.url}/sign-in", content=sent, headers={**BROWSER, **origin, "Content-Type": kind}, trust_env=False
    )
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/html")
