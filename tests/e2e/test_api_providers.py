"""Providers over HTTP: what they can do, their options, their keys, and whether they are well."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from ops.simulators import KEY
from ops.simulators.openai import OpenAI
from photochanger import providers
from tests.api import Api
from tests.e2e.conftest import PAID
from tests.installation import Installation, free_port, until
from tests.photos import photo

pytestmark = pytest.mark.xdist_group("api")

CANARY = "sk-canary-0123456789-abcdefgh"


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_every_provider_says_what_it_can_do(boss: httpx.Client) -> None:
    listed = {one["name"]: one for one in boss.get("/api/providers").json()["items"]}
    assert listed.keys() == providers.registry().keys()
    local = listed["local"]
    assert (local["needs_key"], local["is_configured"], local["is_healthy"], local["key_source"]) == (
        False,
        True,
        True,
        None,
    )
    assert {one["name"] for one in local["operations"]} == {"filter", "frame", "original"}
    assert all({"en", "ru"} <= one["title"].keys() for one in local["operations"])
    assert (listed["gemini"]["is_configured"], listed["gemini"]["is_healthy"]) == (False, False)
    [edit] = [one for one in listed["gemini"]["operations"] if one["name"] == "image_edit"]
    assert edit["settings_schema"]["required"] == ["prompt"]
    assert listed["gemini"]["models"]
    assert boss.get("/api/providers/gemini").json() == listed["gemini"]


def test_a_provider_that_is_not_there_is_not_found(boss: httpx.Client) -> None:
    url = "/api/providers/nobody"
    answers = [
        boss.get(url),
        boss.patch(url, json={"options": {}}),
        boss.put(f"{url}/key", json={"key": CANARY}),
        boss.delete(f"{url}/key"),
        boss.post(f"{url}/test", json={}),
        boss.post(f"{url}/reset"),
    ]
    assert {code(answer) for answer in answers} == {(404, "not_found")}


def test_what_takes_no_key_says_so(boss: httpx.Client) -> None:
    url = "/api/providers/local"
    answers = [
        boss.put(f"{url}/key", json={"key": CANARY}),
        boss.delete(f"{url}/key"),
        boss.post(f"{url}/test", json={}),
    ]
    assert {code(answer) for answer in answers} == {(409, "conflict")}


def test_options_are_checked_saved_and_the_others_stay(boss: httpx.Client) -> None:
    before = boss.get("/api/settings").json()["providers"]
    wrong = boss.patch("/api/providers/gemini", json={"options": {"max_concurrent": 0}})
    assert code(wrong) == (422, "invalid_settings")
    assert code(boss.patch("/api/providers/gemini", json={"options": {"more": 1}})) == (422, "invalid_settings")
    assert code(boss.patch("/api/providers/gemini", json={})) == (422, "invalid_settings")
    saved = boss.patch("/api/providers/gemini", json={"options": {"max_concurrent": 3}}).json()
    assert saved["options"]["max_concurrent"] == 3
    assert boss.get("/api/settings").json()["providers"] == {**before, "gemini": {"max_concurrent": 3}}
    boss.patch("/api/providers/gemini", json={"options": {}})


def test_a_key_is_stored_used_and_never_shown_again(house: Installation, known: Api, boss: httpx.Client) -> None:
    url = "/api/providers/turbotext"
    assert boss.put(f"{url}/key", json={"key": CANARY}).status_code == 204
    shown = boss.get(url)
    assert (shown.json()["is_configured"], shown.json()["key_source"]) == (True, "stored")
    assert shown.json()["key_stored_at"] is not None
    for text in (shown.text, boss.get("/api/providers").text, boss.get("/api/audit").text, "".join(house.log)):
        assert CANARY not in text
    assert CANARY.encode() not in bytes(
        known.sql("SELECT sealed FROM provider_secret WHERE provider = 'turbotext'")[0][0]
    )
    assert boss.delete(f"{url}/key").status_code == 204
    assert boss.get(url).json()["key_source"] is None
    assert code(boss.delete(f"{url}/key")) == (404, "not_found")


@pytest.mark.parametrize(
    "given", [{}, {"key": None}, {"key": "short"}, {"key": "x" * 4097}, {"key": "with a\nnewline"}]
)
def test_a_key_that_is_none_is_refused_and_not_repeated(boss: httpx.Client, given: dict[str, Any]) -> None:
    answer = boss.put("/api/providers/turbotext/key", json=given)
    assert code(answer) == (422, "invalid_settings")
    assert [one["field"] for one in answer.json()["errors"]] == ["key"]
    assert "newline" not in answer.text


def test_a_key_is_tried_against_the_provider(house: Installation, boss: httpx.Client, openai: OpenAI) -> None:
    url = "/api/providers/openai/test"
    right = boss.post(url, json={}).json()
    assert (right["is_accepted"], right["failure"]) == (True, None)
    assert boss.post(url, json={"key": KEY}).json()["is_accepted"] is True
    wrong = boss.post(url, json={"key": CANARY}).json()
    assert (wrong["is_accepted"], wrong["failure"]["code"]) == (False, "provider_auth")
    assert CANARY not in str(wrong)
    assert openai.calls["models"] >= 2
    assert boss.get("/api/providers/openai").json()["breaker"] is None
    assert CANARY not in "".join(house.log)
    none = boss.post("/api/providers/gemini/test", json={}).json()
    assert (none["is_accepted"], none["failure"]["code"]) == (False, "provider_auth")


def test_a_key_is_tried_against_an_address_where_nobody_answers(boss: httpx.Client, openai: OpenAI) -> None:
    given = boss.get("/api/settings").json()["providers"]["openai"]
    try:
        dead = {**given, "base_url": f"http://127.0.0.1:{free_port()}/v1"}
        assert boss.patch("/api/providers/openai", json={"options": dead}).status_code == 200
        found = boss.post("/api/providers/openai/test", json={}).json()
        assert (found["is_accepted"], found["failure"]["code"]) == (False, "provider_error")
        assert found["failure"]["retryable"] is True
        assert found["seconds"] < 15
    finally:
        boss.patch("/api/providers/openai", json={"options": given})


def test_a_provider_that_is_not_asked_is_shown_and_asked_again_after_a_reset(
    house: Installation, boss: httpx.Client, openai: OpenAI
) -> None:
    openai.mode = "auth"
    assert code(house.post(photo(64, 48), slot=PAID)) == (502, "provider_auth")
    shown = boss.get("/api/providers/openai").json()
    assert (shown["is_configured"], shown["is_healthy"], shown["breaker"]["is_open"]) == (True, False, True)
    assert shown["breaker"]["code"] == "provider_auth"
    assert KEY not in str(shown)
    openai.mode = "success"
    assert boss.post("/api/providers/openai/reset").status_code == 204
    assert boss.get("/api/providers/openai").json()["breaker"] is None
    until(lambda: house.post(photo(64, 48), slot=PAID).status_code == 200, within_s=5, what="it is asked again")
