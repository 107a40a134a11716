"""Settings over HTTP: read, changed, in effect everywhere at once; and the ingest password's change."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import httpx
import pytest

from ops.simulators.openai import OpenAI
from photochanger.settings import SERVERS_OWN, Settings
from tests.api import Api
from tests.e2e.conftest import PAID
from tests.installation import INGEST_PASSWORD, Installation, until
from tests.integration.calls import options, simulated
from tests.photos import photo

pytestmark = pytest.mark.xdist_group("api")

#: Seconds in which a change is everywhere.
SOON_S = 2.0


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


@pytest.fixture
def back(boss: httpx.Client) -> Iterator[None]:
    """Puts the settings back."""
    before = boss.get("/api/settings").json()
    yield
    assert boss.patch("/api/settings", json=before).json() == before


def within(condition: Callable[[], bool], *, what: str) -> None:
    """Whoever looks ``SOON_S`` from now or later finds it true."""
    soon = time.monotonic() + SOON_S
    while True:
        looked_at = time.monotonic()
        if condition():
            return
        assert looked_at < soon, what


def test_the_settings_are_shown_without_the_servers_own(boss: httpx.Client) -> None:
    shown = boss.get("/api/settings").json()
    assert set(shown) == set(Settings.model_fields) - set(SERVERS_OWN)
    assert "argon2" not in str(shown)


@pytest.mark.usefixtures("back")
def test_only_what_is_sent_is_changed(boss: httpx.Client) -> None:
    before = boss.get("/api/settings").json()
    changed = boss.patch("/api/settings", json={"t_job_history_d": 30, "time_zone": "Europe/Moscow"})
    assert changed.status_code == 200
    assert changed.json() == {**before, "t_job_history_d": 30, "time_zone": "Europe/Moscow"}
    assert boss.get("/api/settings").json() == changed.json()
    assert boss.patch("/api/settings", json={}).json() == changed.json()


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"t_sync_response_s": 9}, "t_sync_response_s"),
        ({"t_sync_response_s": 61}, "t_sync_response_s"),
        ({"t_result_retention_h": 721}, "t_result_retention_h"),
        ({"max_pixels": 10**40}, "max_pixels"),
        ({"disk_reserve_bytes": 10**40}, "disk_reserve_bytes"),
        ({"ingest_per_minute": 10**40}, "ingest_per_minute"),
        ({"api_per_minute": 0}, "api_per_minute"),
        ({"api_per_minute_address": 0}, "api_per_minute_address"),
        ({"time_zone": "Europe"}, "time_zone"),
        ({"time_zone": "../etc/passwd"}, "time_zone"),
        ({"time_zone": "localtime"}, "time_zone"),
        ({"time_zone": "right/UTC"}, "time_zone"),
        ({"public_base_url": "ftp://x"}, "public_base_url"),
        ({"public_base_url": 'http://a" onx=1'}, "public_base_url"),
        ({"providers": {"openai": {"base_url": "https://user:pw@x.example"}}}, "providers"),
        ({"no_such": 1}, "no_such"),
        ({"providers": {"no_such": {}}}, "providers"),
        ({"providers": {"openai": {"max_concurrent": -1}}}, "providers"),
        ({"ingest_passwords": []}, "ingest_passwords (the server's own)"),
        ({"media_marker": "x"}, "media_marker (the server's own)"),
        ({"master_key_checks": {}}, "master_key_checks (the server's own)"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_and_named_and_nothing_is_saved(
    boss: httpx.Client, given: dict[str, Any], field: str
) -> None:
    before = boss.get("/api/settings").json()
    answer = boss.patch("/api/settings", json={"t_job_history_d": 77, **given})
    assert code(answer)[0] in (400, 422)
    if answer.status_code == 422:
        assert field in {one["field"] for one in answer.json()["errors"]}
    assert boss.get("/api/settings").json() == before


@pytest.mark.usefixtures("back")
def test_an_international_address_is_saved_as_links_can_hold_it(house: Installation, boss: httpx.Client) -> None:
    assert boss.patch("/api/settings", json={"public_base_url": "https://фото.рф/"}).status_code == 200
    within(
        lambda: (
            "https://xn--n1aalg.xn--p1ai/public/jobs/"
            in house.post(photo(64, 48), headers={"Prefer": "respond-async"}).headers["location"]
        ),
        what="links to the new address",
    )


@pytest.mark.usefixtures("back")
def test_a_change_reaches_the_running_web_and_worker_within_two_seconds_and_no_job_that_runs(
    house: Installation, boss: httpx.Client, openai: OpenAI
) -> None:
    openai.latency_s = 1.5
    running = house.post(photo(64, 48), slot=PAID, headers={"Prefer": "respond-async"}).json()
    until(lambda: openai.flying, within_s=5, what="the call runs")
    assert boss.patch("/api/settings", json={"t_result_retention_h": 24, "max_upload_bytes": 65536}).status_code == 200
    large = photo(1600, 1200, "PNG")
    assert len(large) > 65536
    within(lambda: house.post(large).status_code == 413, what="the web knows")
    job = until(
        lambda: (one := boss.get(f"/api/jobs/{running['job_id']}").json())["finalized_at"] and one,
        within_s=10,
        what="its end",
    )
    openai.latency_s = 0
    sent = house.post(photo(64, 48), slot=PAID)
    new = boss.get(f"/api/jobs/{sent.headers['x-job-id']}").json()
    assert [_kept_h(one) for one in (job, new)] == [72, 24]


def _kept_h(job: dict[str, Any]) -> float:
    """Hours that a picture is kept."""
    ends, begins = (datetime.fromisoformat(job[name]) for name in ("result_expires_at", "finalized_at"))
    return round((ends - begins).total_seconds() / 3600, 2)


@pytest.mark.usefixtures("openai", "back")
def test_a_providers_new_address_is_in_effect_in_the_running_worker_within_two_seconds(
    house: Installation, boss: httpx.Client
) -> None:
    with simulated("openai") as elsewhere:
        assert elsewhere is not None
        given = options("openai", elsewhere.url, models={"gpt-image-1-mini": {"usual_s": 0.3}})
        assert boss.patch("/api/providers/openai", json={"options": given}).status_code == 200

        def arrived() -> bool:
            return house.post(photo(64, 48), slot=PAID).status_code == 200 and elsewhere.calls["edit"] > 0

        within(arrived, what="the worker knows")


def test_the_ingest_password_is_changed_with_a_grace_that_can_be_cut(
    house: Installation, known: Api, boss: httpx.Client
) -> None:
    stored = known.sql("SELECT value::text FROM app_settings WHERE key = 'ingest_passwords'")[0][0]
    url = "/api/settings/ingest-password"
    assert boss.get(url).json() == {"valid": 1, "grace_ends_at": None, "from_environment": True}

    def status(password: str) -> int:
        return house.post(photo(64, 48), password=password).status_code

    try:
        made = boss.post(url, json={"grace_h": 1})
        assert made.status_code == 201
        new = made.json()["password"]
        assert boss.get(url).json()["valid"] == 2
        assert boss.get(url).json()["grace_ends_at"] == made.json()["grace_ends_at"]
        within(lambda: status(new) == 200, what="the new one is taken")
        assert status(INGEST_PASSWORD) == 200
        assert boss.delete(url).status_code == 204
        within(lambda: status(INGEST_PASSWORD) == 401, what="the old one is over")
        assert status(new) == 200
        assert boss.get(url).json()["grace_ends_at"] is None
        at_once = boss.post(url, json={"grace_h": 0}).json()
        assert at_once["grace_ends_at"] is None
        within(lambda: status(new) == 401, what="no grace was given")
        assert status(at_once["password"]) == 200
        for secret in (new, at_once["password"]):
            assert secret not in "".join(house.log)
            assert secret not in boss.get("/api/audit").text
            assert secret not in boss.get("/api/settings").text
    finally:
        known.sql("UPDATE app_settings SET value = %s::jsonb WHERE key = 'ingest_passwords'", stored)
        until(lambda: status(INGEST_PASSWORD) == 200, within_s=5, what="the tests' own password")


def test_a_grace_ends_by_itself(house: Installation, known: Api, boss: httpx.Client) -> None:
    stored = known.sql("SELECT value::text FROM app_settings WHERE key = 'ingest_passwords'")[0][0]
    try:
        boss.post("/api/settings/ingest-password", json={"grace_h": 1 / 3600})
        until(lambda: house.post(photo(64, 48)).status_code == 401, within_s=10, what="the grace is over")
    finally:
        known.sql("UPDATE app_settings SET value = %s::jsonb WHERE key = 'ingest_passwords'", stored)
        until(lambda: house.post(photo(64, 48)).status_code == 200, within_s=5, what="the tests' own password")


@pytest.mark.parametrize("grace_h", [-1, 721, "soon", None])
def test_a_grace_that_cannot_be_is_refused(boss: httpx.Client, grace_h: Any) -> None:
    answer = boss.post("/api/settings/ingest-password", json={"grace_h": grace_h})
    assert code(answer) == (422, "invalid_settings")
    assert boss.get("/api/settings/ingest-password").json()["valid"] == 1
