"""Windows for guests: opened, looked through, closed; and who is not let in."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx
import pytest

from tests.api import Api
from tests.installation import Installation, until
from tests.photos import photo

pytestmark = pytest.mark.xdist_group("api")


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def guest(url: str, **headers: str) -> httpx.Response:
    return httpx.get(url, headers=headers, trust_env=False, timeout=30)


@pytest.fixture(scope="module")
def slot(house: Installation, boss: httpx.Client) -> str:
    """A slot with three pictures."""
    route = {"rungs": [{"provider": "local", "operation": "filter"}]}
    made: str = boss.post("/api/slots", json={"name": "Party", "route": route, "is_active": True}).json()["id"]
    until(lambda: house.post(photo(64, 48), slot=made).status_code == 200, within_s=5, what="the slot is on")
    for _ in range(2):
        house.post(photo(64, 48), slot=made)
    return made


@pytest.fixture
def share(boss: httpx.Client, slot: str) -> dict[str, Any]:
    answer = boss.post("/api/gallery-shares", json={"slot_id": slot})
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/api/gallery-shares/{answer.json()['id']}"
    made: dict[str, Any] = answer.json()
    return made


@pytest.fixture
def back(boss: httpx.Client) -> Iterator[None]:
    before = boss.get("/api/settings").json()
    yield
    boss.patch("/api/settings", json=before)


def test_guests_see_the_slots_pictures_by_the_link(house: Installation, share: dict[str, Any], slot: str) -> None:
    gallery = guest(share["url"]).json()
    assert (gallery["slot_name"], gallery["expires_at"], len(gallery["items"])) == ("Party", share["expires_at"], 3)
    first = gallery["items"][0]
    whole = guest(house.url + first["url"])
    assert (whole.status_code, whole.headers["content-type"]) == (200, "image/jpeg")
    assert whole.headers["cache-control"] == "private, no-cache"
    small = guest(house.url + first["thumbnail_url"])
    assert small.headers["content-type"] == "image/webp"
    assert guest(house.url + first["url"], **{"If-None-Match": whole.headers["etag"]}).status_code == 304
    part = guest(house.url + first["url"], Range="bytes=0-9")
    assert (part.status_code, part.content) == (206, whole.content[:10])
    page = guest(f"{share['url']}&limit=2").json()
    following = guest(f"{share['url']}&limit=2&after={page['next']}").json()
    assert [*page["items"], *following["items"]] == gallery["items"]


def test_a_window_on_all_slots_shows_all_but_test_runs(house: Installation, boss: httpx.Client, slot: str) -> None:
    tried = boss.post(f"/api/slots/{slot}/test-run", files={"file": photo(64, 48)}).json()
    one = house.post(photo(64, 48)).headers["x-job-id"]
    everything = boss.post("/api/gallery-shares", json={"minutes": 1}).json()
    assert (everything["slot_id"], everything["slot_name"]) == (None, None)
    shown = [picture["job_id"] for picture in guest(f"{everything['url']}&limit=200").json()["items"]]
    assert shown[0] == one
    assert tried["job_id"] not in shown
    path = f"/public/galleries/{everything['id']}/pictures/{tried['job_id']}?{urlsplit(everything['url']).query}"
    assert code(guest(house.url + path)) == (404, "result_not_found")


def test_closing_ends_the_list_and_the_pictures_at_once(
    house: Installation, boss: httpx.Client, share: dict[str, Any]
) -> None:
    picture = house.url + guest(share["url"]).json()["items"][0]["url"]
    assert guest(picture).status_code == 200
    closed = boss.delete(f"/api/gallery-shares/{share['id']}")
    assert (closed.status_code, closed.json()["is_open"]) == (200, False)
    for url in (share["url"], picture, f"{picture}&size=320"):
        assert code(guest(url)) == (410, "result_expired")
    again = boss.delete(f"/api/gallery-shares/{share['id']}")
    assert again.json() == closed.json()


def test_a_window_is_made_longer_and_its_link_stays_good(known: Api, boss: httpx.Client, share: dict[str, Any]) -> None:
    address = f"/api/gallery-shares/{share['id']}"
    later = datetime.fromisoformat(share["expires_at"]) + timedelta(hours=1)
    longer = boss.patch(address, json={"expires_at": later.isoformat()})
    assert longer.status_code == 200, longer.text
    assert datetime.fromisoformat(longer.json()["expires_at"]) == later
    assert guest(share["url"]).json()["expires_at"] == longer.json()["expires_at"]
    [entry] = boss.get("/api/audit", params={"action": "gallery.extended", "limit": 1}).json()["items"]
    assert (entry["target"], entry["detail"]["minutes"]) == (f"gallery/{share['id']}", 60)
    for hours in (-2, 25):
        refused = boss.patch(address, json={"expires_at": (later + timedelta(hours=hours)).isoformat()})
        assert code(refused) == (422, "invalid_settings")
        assert refused.json()["errors"][0]["field"] == "expires_at"
    boss.delete(address)
    assert code(boss.patch(address, json={"expires_at": later.isoformat()})) == (409, "conflict")


def test_a_window_ends_by_itself(known: Api, share: dict[str, Any]) -> None:
    known.sql("UPDATE gallery_share SET expires_at = clock_timestamp() WHERE id = %s", share["id"])
    assert code(guest(share["url"])) == (410, "result_expired")
    known.sql("DELETE FROM gallery_share WHERE id = %s", share["id"])
    assert code(guest(share["url"])) == (410, "result_expired")


def test_a_guessed_or_foreign_link_opens_nothing(
    house: Installation, boss: httpx.Client, share: dict[str, Any], slot: str
) -> None:
    other = boss.post("/api/gallery-shares", json={"slot_id": "slot-001"}).json()
    foreign = parse_qs(urlsplit(other["url"]).query)["token"][0]
    mine = parse_qs(urlsplit(share["url"]).query)["token"][0]
    picture = house.post(photo(64, 48)).headers["x-job-id"]
    at = f"{house.url}/public/galleries"
    for path in (share["id"], f"{share['id']}/pictures/{picture}"):
        for token in ("", "x", foreign, f"{mine}x"):
            assert code(guest(f"{at}/{path}?token={token}")) == (404, "not_found")
    for share_id in ("x", "%00", str(uuid4()), share["id"].upper()):
        assert guest(f"{at}/{share_id}?token={mine}").status_code == 404
    assert code(guest(f"{at}/{share['id']}/pictures/{picture}?token={mine}")) == (404, "result_not_found")
    assert code(guest(f"{at}/{share['id']}/pictures/{uuid4()}?token={mine}")) == (404, "result_not_found")
    assert code(guest(f"{at}/{share['id']}/pictures/x?token={mine}")) == (404, "job_not_found")
    assert code(guest(f"{share['url']}&limit=0")) == (400, "invalid_request")


def test_a_picture_that_has_expired_is_gone(house: Installation, known: Api, share: dict[str, Any]) -> None:
    oldest = guest(share["url"]).json()["items"][-1]
    known.sql("UPDATE job SET result_expires_at = clock_timestamp() WHERE id = %s", oldest["job_id"])
    assert code(guest(house.url + oldest["url"])) == (410, "result_expired")
    assert oldest["job_id"] not in guest(share["url"]).text


@pytest.mark.usefixtures("back")
def test_guests_may_not_ask_without_end(house: Installation, boss: httpx.Client, share: dict[str, Any]) -> None:
    boss.patch("/api/settings", json={"gallery_per_minute_address": 5})
    refused = until(
        lambda: (answer := guest(share["url"])).status_code == 429 and answer, within_s=10, what="the limit is known"
    )
    assert refused
    assert code(refused) == (429, "rate_limited")
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["ratelimit-policy"] == '"address";q=5;w=60'
    assert house.post(photo(64, 48)).status_code == 200


def test_windows_are_listed_and_looked_at(boss: httpx.Client, share: dict[str, Any]) -> None:
    assert boss.get(f"/api/gallery-shares/{share['id']}").json() == share
    listed = boss.get("/api/gallery-shares", params={"limit": 200}).json()["items"]
    assert share in listed
    boss.delete(f"/api/gallery-shares/{share['id']}")
    still = boss.get("/api/gallery-shares", params={"limit": 200, "only_open": True}).json()["items"]
    assert share["id"] not in {one["id"] for one in still}
    page = boss.get("/api/gallery-shares", params={"limit": 1}).json()
    following = boss.get("/api/gallery-shares", params={"limit": 1, "after": page["next"]}).json()
    assert page["items"][0]["expires_at"] >= following["items"][0]["expires_at"]


@pytest.mark.parametrize("share_id", ["x", "%00", "00000000-0000-4000-8000-000000000000"])
def test_a_window_that_is_not_there_is_not_found(boss: httpx.Client, share_id: str) -> None:
    url = f"/api/gallery-shares/{share_id}"
    assert {code(boss.get(url)), code(boss.delete(url))} == {(404, "not_found")}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"slot_id": "no-such-slot"}, (404, "slot_not_found")),
        ({"minutes": 0}, (422, "invalid_settings")),
        ({"minutes": 1441}, (422, "invalid_settings")),
        ({"more": 1}, (422, "invalid_settings")),
    ],
)
def test_a_window_that_cannot_be_is_not_opened(
    boss: httpx.Client, given: dict[str, Any], wanted: tuple[int, str]
) -> None:
    assert code(boss.post("/api/gallery-shares", json=given)) == wanted


def test_pictures_come_together_in_one_file_byte_for_byte(house: Installation, boss: httpx.Client, slot: str) -> None:
    pictures = boss.get("/api/results", params={"slot_id": slot}).json()["items"]
    gone = str(uuid4())
    answer = boss.get("/api/results/zip", params={"job_id": [*(one["job_id"] for one in pictures), gone]})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        packed = sorted(archive.read(name) for name in archive.namelist())
    assert packed == sorted(
        guest(one["url"].replace(one["url"].split("/public")[0], house.url)).content for one in pictures
    )
    assert code(boss.get("/api/results/zip", params={"job_id": gone})) == (404, "result_not_found")
    assert code(boss.get("/api/results/zip")) == (400, "invalid_request")
