"""Slots over HTTP: made, read, changed over a version, archived, copied, tried."""

from __future__ import annotations

import contextlib
import itertools
from http.client import HTTPConnection
from typing import Any

import httpx
import pytest

from ops.simulators.openai import OpenAI
from tests.api import Api
from tests.e2e.conftest import PAID
from tests.installation import Installation, until
from tests.photos import opened, photo

pytestmark = pytest.mark.xdist_group("api")

_numbers = itertools.count()


def rung(**settings: Any) -> dict[str, Any]:
    return {"rungs": [{"provider": "local", "operation": "filter", "settings": settings}]}


@pytest.fixture
def name() -> str:
    return f"Slot of a test {next(_numbers)}"


@pytest.fixture
def made(boss: httpx.Client, name: str) -> httpx.Response:
    answer = boss.post("/api/slots", json={"name": name, "route": rung(filter="sketch"), "is_active": True})
    assert answer.status_code == 201, answer.text
    return answer


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def form(**more: str) -> dict[str, Any]:
    return {"files": {"fileToUpload": ("a.jpg", photo(64, 48), "image/jpeg")}, "data": more}


def test_a_slot_is_made_found_and_read(boss: httpx.Client, made: httpx.Response, name: str) -> None:
    slot = made.json()
    assert made.headers["location"] == f"/api/slots/{slot['id']}"
    assert made.headers["etag"] == '"1"'
    assert slot["route"]["rungs"][0]["settings"]["strength"] == 1.0
    read = boss.get(made.headers["location"])
    assert read.headers["etag"] == '"1"'
    assert read.json()["slot"] == slot
    assert read.json()["ingest_url"].endswith(f"/ingest/{slot['id']}")
    assert (read.json()["is_archived"], read.json()["recent_results"], read.json()["warnings"]) == (False, [], [])
    filters: dict[str, str | bool] = {
        "search": name.upper(),
        "provider": "local",
        "operation": "filter",
        "is_active": True,
    }
    [found] = boss.get("/api/slots", params={**filters, "operation": "filter"}).json()["items"]
    assert found["slot"] == slot
    assert (found["today"]["succeeded"], found["latest_picture"]) == (0, None)
    assert boss.get("/api/slots", params={**filters, "operation": "original"}).json()["items"] == []


def period(until: str) -> dict[str, Any]:
    return {"name": "Evening", "begins_at": "2026-11-30T18:00:00Z", "ends_at": until, "amount": 5}


def test_a_slot_may_have_an_id_of_its_own_and_never_somebody_elses(boss: httpx.Client, name: str) -> None:
    slot_id = f"booth-{next(_numbers)}"
    given = {"id": slot_id, "name": name, "route": rung()}
    assert boss.post("/api/slots", json=given).json()["id"] == slot_id
    assert code(boss.post("/api/slots", json=given)) == (409, "conflict")
    boss.post(f"/api/slots/{slot_id}/archive", headers={"If-Match": '"1"'})
    assert code(boss.post("/api/slots", json=given)) == (409, "conflict")


def test_slots_come_page_by_page(boss: httpx.Client) -> None:
    found: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = boss.get("/api/slots", params={"limit": 4, **after}).json()
        found += [one["slot"]["id"] for one in page["items"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert found == sorted(set(found))
    assert {f"slot-{number:03}" for number in range(1, 16)} <= set(found)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x"}, "route"),
        ({"name": "x", "route": {"rungs": []}}, "route.rungs"),
        ({"name": "x", "route": rung(filter="none")}, "route.rungs.0.settings.filter"),
        ({"name": "x", "route": rung(more=1)}, "route.rungs.0.settings.more"),
        ({"name": "x", "route": {"rungs": [{"provider": "x", "operation": "y"}]}}, "route.rungs.0.provider"),
        ({"name": "x", "route": {"rungs": [{"provider": "local", "operation": "y"}]}}, "route.rungs.0.operation"),
        ({"name": "x", "route": rung(), "id": "No!"}, "id"),
        ({"name": "x", "route": rung(), "options": {"budget_per_day": -1}}, "options.budget_per_day"),
        (
            {"name": "x", "route": rung(), "options": {"budget_period": period("9999-12-31T23:59:59-05:00")}},
            "options.budget_period.ends_at",
        ),
    ],
)
def test_a_slot_that_cannot_work_is_not_made_and_its_field_is_named(
    boss: httpx.Client, given: dict[str, Any], field: str
) -> None:
    answer = boss.post("/api/slots", json=given)
    assert code(answer) == (422, "invalid_settings")
    assert field in {one["field"] for one in answer.json()["errors"]}


def test_of_two_who_save_the_same_version_the_second_is_told_and_nothing_is_lost(
    boss: httpx.Client, made: httpx.Response
) -> None:
    url, version = made.headers["location"], {"If-Match": made.headers["etag"]}
    first = boss.patch(url, json={"name": "The first"}, headers=version)
    assert (first.status_code, first.headers["etag"]) == (200, '"2"')
    second = boss.patch(url, json={"is_active": False}, headers=version)
    assert code(second) == (412, "version_mismatch")
    assert second.headers["etag"] == '"2"'
    kept = boss.get(url).json()["slot"]
    assert (kept["name"], kept["is_active"], kept["version"]) == ("The first", True, 2)
    again = boss.patch(url, json={"is_active": False}, headers={"If-Match": second.headers["etag"]})
    assert (again.json()["name"], again.json()["is_active"], again.json()["version"]) == ("The first", False, 3)


def test_a_change_must_name_the_version_that_was_read(boss: httpx.Client, made: httpx.Response) -> None:
    url = made.headers["location"]
    for method, at in (("PATCH", url), ("POST", f"{url}/archive")):
        assert code(boss.request(method, at, json={})) == (428, "version_required")
        assert code(boss.request(method, at, json={}, headers={"If-Match": "*"})) == (400, "invalid_request")
        assert code(boss.request(method, at, json={}, headers={"If-Match": '"9"'})) == (412, "version_mismatch")
    assert code(boss.patch(url, json={"name": None}, headers={"If-Match": '"1"'})) == (422, "invalid_settings")


def test_an_archived_slot_is_out_of_use_and_comes_back_switched_off(
    house: Installation, boss: httpx.Client, made: httpx.Response, name: str
) -> None:
    slot_id, url = made.json()["id"], made.headers["location"]
    until(lambda: house.post(photo(64, 48), slot=slot_id).status_code == 200, within_s=5, what="it is in use")
    gone = boss.post(f"{url}/archive", headers={"If-Match": '"1"'})
    assert (gone.status_code, gone.headers["etag"], gone.json()["is_active"]) == (200, '"2"', False)
    until(lambda: house.post(photo(64, 48), slot=slot_id).status_code == 404, within_s=5, what="it is out of use")
    assert boss.get("/api/slots", params={"search": name}).json()["items"] == []
    [archived] = boss.get("/api/slots", params={"search": name, "is_archived": True}).json()["items"]
    assert archived["latest_picture"]["slot_id"] == slot_id
    detail = boss.get(url).json()
    assert (detail["is_archived"], len(detail["recent_results"])) == (True, 1)
    for ask in ("archive", "duplicate", "reset-stats"):
        assert code(boss.post(f"{url}/{ask}", headers={"If-Match": '"2"'})) == (404, "slot_not_found")
    assert code(boss.patch(url, json={"name": "x"}, headers={"If-Match": '"2"'})) == (404, "slot_not_found")
    back = boss.post(f"{url}/restore", headers={"If-Match": '"2"'})
    assert (back.status_code, back.json()["is_active"], back.headers["etag"]) == (200, False, '"3"')
    assert code(boss.post(f"{url}/restore", headers={"If-Match": '"3"'})) == (404, "slot_not_found")


def test_a_copy_is_switched_off_and_has_the_next_number(boss: httpx.Client, made: httpx.Response) -> None:
    copy = boss.post(f"{made.headers['location']}/duplicate")
    assert copy.status_code == 201
    assert copy.headers["location"] == f"/api/slots/{copy.json()['id']}"
    same = {"route": made.json()["route"], "options": made.json()["options"], "is_active": False, "version": 1}
    assert {name: copy.json()[name] for name in same} == same
    assert copy.json()["name"] == f"{made.json()['name']} (copy)"


def test_a_slots_day_and_newest_pictures_come_with_it_until_its_statistics_begin_anew(
    house: Installation, boss: httpx.Client, made: httpx.Response
) -> None:
    slot_id, url = made.json()["id"], made.headers["location"]
    until(lambda: house.post(photo(64, 48), slot=slot_id).status_code == 200, within_s=5, what="it is in use")
    sent = house.post(photo(64, 48), slot=slot_id)
    until(lambda: boss.get(url).json()["today"]["succeeded"] >= 2, within_s=5, what="both are counted")
    detail = boss.get(url, params={"recent": 1}).json()
    assert [one["job_id"] for one in detail["recent_results"]] == [sent.headers["x-job-id"]]
    assert detail["latest_picture"] == detail["recent_results"][0]
    assert opened(httpx.get(detail["latest_picture"]["url"], trust_env=False).content).size == (64, 48)
    small = httpx.get(detail["latest_picture"]["thumbnail_url"], trust_env=False)
    assert small.headers["content-type"] == "image/webp"
    assert boss.get(url, params={"recent": 0}).json()["recent_results"] == []
    assert code(boss.get(url, params={"recent": 201})) == (400, "invalid_request")
    assert boss.post(f"{url}/reset-stats").status_code == 204
    assert boss.get(url).json()["today"]["succeeded"] == 0


@pytest.mark.parametrize("slot_id", ["no-such-slot", "%00", "a" * 500])
def test_a_slot_that_is_not_there_is_not_found(boss: httpx.Client, slot_id: str) -> None:
    wanted = (404, "not_found" if slot_id == "%00" else "slot_not_found")
    url = f"/api/slots/{slot_id}"
    version = {"If-Match": '"1"'}
    assert code(boss.get(url)) == wanted
    assert code(boss.patch(url, json={}, headers=version)) == wanted
    for ask in ("archive", "restore", "duplicate", "reset-stats"):
        assert code(boss.post(f"{url}/{ask}", headers=version)) == wanted
    assert code(boss.post(f"{url}/test-run", **form())) == wanted


# -- trying ---------------------------------------------------------------------------------------------------------


def test_a_slot_is_tried_while_it_is_off_with_what_is_not_saved_and_counts_nowhere(
    house: Installation, boss: httpx.Client, name: str
) -> None:
    slot = boss.post("/api/slots", json={"name": name, "route": rung(filter="sepia")}).json()
    url = f"/api/slots/{slot['id']}"
    before = boss.get("/api/stats/global?by=hour").json()["whole"]["jobs"]
    overrides = '{"route": {"rungs": [{"provider": "local", "operation": "original"}]}}'
    tried = boss.post(f"{url}/test-run", **form(overrides=overrides))
    assert tried.status_code == 200, tried.text
    found = tried.json()
    assert (found["status"], found["served_by"], found["failure"]) == ("succeeded", "local/original", None)
    assert (found["cost"], found["seconds"] > 0, len(found["attempts"])) == (0, True, 1)
    assert opened(httpx.get(found["result"]["url"], trust_env=False).content).size == (64, 48)
    assert boss.post(f"{url}/test-run", **form()).json()["served_by"] == "local/filter"
    assert boss.get(url).json()["slot"] == slot
    waiting = "SELECT FROM job_ended JOIN job ON job.id = job_id WHERE slot_id = %s"
    until(lambda: not house.sql(waiting, slot["id"]), within_s=15, what="both are counted")
    detail = boss.get(url).json()
    assert (detail["today"]["succeeded"], detail["latest_picture"], detail["recent_results"]) == (0, None, [])
    assert boss.get(f"/api/stats/{slot['id']}").json()["whole"]["jobs"] == 0
    assert boss.get("/api/stats/global?by=hour").json()["whole"]["jobs"] == before
    assert boss.get("/api/results", params={"slot_id": slot["id"]}).json()["items"] == []
    listed = boss.get("/api/jobs", params={"slot_id": slot["id"]}).json()["items"]
    assert [one["is_test"] for one in listed] == [True, True]


def test_a_test_run_tells_the_providers_failure(boss: httpx.Client, openai: OpenAI) -> None:
    openai.mode = "moderation"
    found = boss.post(f"/api/slots/{PAID}/test-run", **form()).json()
    assert (found["status"], found["result"]) == ("failed", None)
    assert (found["failure"]["code"], found["failure"]["job_id"]) == ("provider_refused", found["job_id"])
    assert [one["cause"] for one in found["attempts"]] == ["provider_refused"]


def test_who_hangs_up_on_a_test_run_has_cancelled_it(house: Installation, boss: httpx.Client, openai: OpenAI) -> None:
    openai.mode, before = "hang", len(openai.hang_ups)
    asked = boss.build_request("POST", f"/api/slots/{PAID}/test-run", **form())
    with contextlib.closing(HTTPConnection("127.0.0.1", house.port)) as connection:
        connection.request("POST", asked.url.path, asked.read(), dict(asked.headers))
        until(lambda: openai.flying, within_s=10, what="the call runs")
    until(lambda: len(openai.hang_ups) > before, within_s=5, what="the call is given up")
    [job] = boss.get("/api/jobs", params={"slot_id": PAID, "limit": 1}).json()["items"]
    assert (job["is_test"], job["status"]) == (True, "cancelled")


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        ('{"route": {"rungs": []}}', "route.rungs"),
        ('{"route": {"rungs": [{"provider": "x", "operation": "y"}]}}', "route.rungs.0.provider"),
        ('{"name": "x"}', "name"),
    ],
)
def test_overrides_that_could_not_be_saved_are_refused(boss: httpx.Client, overrides: str, field: str) -> None:
    answer = boss.post("/api/slots/slot-001/test-run", **form(overrides=overrides))
    assert code(answer) == (422, "invalid_settings")
    assert field in {one["field"] for one in answer.json()["errors"]}


@pytest.mark.parametrize("inside", ["{", '"\\ud800"', '"\\u0000"', "NaN", "[" * 10_000 + "]" * 10_000, "1e999"])
def test_overrides_that_are_no_sound_json_are_refused(boss: httpx.Client, inside: str) -> None:
    overrides = '{"route": {"rungs": [{"provider": "local", "operation": "frame", "settings": {"caption": %s}}]}}'
    answer = boss.post("/api/slots/slot-001/test-run", **form(overrides=overrides % inside))
    assert code(answer) == (400, "invalid_request")


def test_a_test_run_without_a_sound_photo_is_refused(known: Api, boss: httpx.Client) -> None:
    url = "/api/slots/slot-001/test-run"
    jobs = known.sql("SELECT count(*) FROM job")
    assert code(boss.post(url, json={})) == (415, "unsupported_media_type")
    assert code(boss.post(url, files={"x": b"y"})) == (400, "invalid_request")
    assert code(boss.post(url, files={"photo": b""})) == (400, "invalid_image")
    assert code(boss.post(url, files={"photo": b"no picture"})) == (415, "unsupported_media_type")
    assert code(boss.post(url, files={"photo": photo()}, data={"overrides": "x" * 70_000})) == (
        413,
        "payload_too_large",
    )
    assert known.sql("SELECT count(*) FROM job") == jobs
