"""Statistics over HTTP: of all slots and of one, as JSON and CSV."""

from __future__ import annotations

import csv
import io

import httpx
import pytest

from tests.installation import Installation, until
from tests.photos import photo

pytestmark = pytest.mark.xdist_group("api")


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


@pytest.fixture(scope="module")
def slot(house: Installation, boss: httpx.Client) -> str:
    """A slot with two pictures and a failure."""
    route = {"rungs": [{"provider": "local", "operation": "filter"}]}
    made: str = boss.post("/api/slots", json={"name": "Counted", "route": route, "is_active": True}).json()["id"]
    until(lambda: house.post(photo(64, 48), slot=made).status_code == 200, within_s=5, what="the slot is on")
    house.post(photo(64, 48), slot=made)
    whole = photo()
    assert house.post(whole[: len(whole) // 2], slot=made).json()["code"] == "invalid_image"
    return made


def test_a_slots_jobs_are_counted_timed_and_named(boss: httpx.Client, slot: str) -> None:
    found = boss.get(f"/api/stats/{slot}").json()
    assert (found["slot_id"], found["by"], found["time_zone"]) == (slot, "day", "UTC")
    assert len(found["points"]) in (31, 32)
    assert found["whole"]["outcomes"] == {"succeeded": 2, "invalid_image": 1}
    assert (found["whole"]["jobs"], found["whole"]["sync_timeout_share"], found["whole"]["cost"]) == (3, 0, 0)
    assert 0 < found["whole"]["total"]["p50_s"] <= found["whole"]["total"]["p95_s"]
    assert found["points"][-1]["jobs"] + found["points"][-2]["jobs"] == 3
    assert [(one["provider"], one["jobs"], one["succeeded"]) for one in found["providers"]] == [("local", 3, 2)]
    assert [(one["code"], one["jobs"]) for one in found["failures"]] == [("invalid_image", 1)]


@pytest.mark.parametrize("by", ["hour", "day", "week", "month"])
def test_all_slots_together_in_every_step(boss: httpx.Client, slot: str, by: str) -> None:
    found = boss.get("/api/stats/global", params={"by": by, "time_zone": "Europe/Moscow"}).json()
    assert (found["slot_id"], found["by"], found["time_zone"]) == (None, by, "Europe/Moscow")
    assert found["whole"]["jobs"] == sum(one["jobs"] for one in found["points"]) >= 3
    assert found["points"][-1]["began_at"].endswith("+03:00")


def test_a_table_program_gets_a_row_for_every_point(boss: httpx.Client, slot: str) -> None:
    answer = boss.get(f"/api/stats/{slot}", params={"by": "hour", "format": "csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == f'attachment; filename="statistics-{slot}-hour.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) in (25, 26)
    assert sum(int(row["jobs"]) for row in rows) == 3
    assert {row["slot"] for row in rows} == {slot}
    everything = boss.get("/api/stats/global?format=csv")
    assert 'filename="statistics-all-day.csv"' in everything.headers["content-disposition"]


def test_statistics_of_nobody_are_not_found(boss: httpx.Client) -> None:
    assert code(boss.get("/api/stats/no-such-slot")) == (404, "slot_not_found")


@pytest.mark.parametrize(
    "asked",
    [
        "by=year",
        "time_zone=Mars",
        "time_zone=localtime",
        "time_zone=right%2fUTC",
        "time_zone=..%2f..%2fetc%2fpasswd",
        "since=2026-01-01T00:00:00",
        "since=2026-02-01T00:00:00Z&until=2026-01-01T00:00:00Z",
        "by=hour&since=2020-01-01T00:00:00Z",
        "since=0001-01-01T00:00:00Z&until=0001-01-02T00:00:00Z",
        "until=0001-01-01T00:00:00Z",
        "since=9999-12-30T00:00:00Z&until=9999-12-31T23:59:59Z",
        "format=xml",
        "more=1",
    ],
)
def test_what_cannot_be_counted_is_refused(boss: httpx.Client, slot: str, asked: str) -> None:
    assert code(boss.get(f"/api/stats/{slot}?{asked}")) == (400, "invalid_request")
