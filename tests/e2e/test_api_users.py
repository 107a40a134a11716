"""Accounts over HTTP: made, changed, signed out; one's own; and what the audit says of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from photochanger.config import Config
from photochanger.permissions import PERMISSIONS
from tests.api import PASSWORD, Api, api
from tests.conftest import database

pytestmark = pytest.mark.xdist_group("api users")

_numbers = itertools.count()


@pytest.fixture(scope="module")
def served(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    for url in database(server_url):
        with api(Config(home=tmp_path_factory.mktemp("home"), database_url=url)) as running:
            yield running


@pytest.fixture(scope="module")
def keeper(served: Api) -> Iterator[httpx.Client]:
    with served.signed_in("keeper") as client:
        yield client


@pytest.fixture
def name(served: Api) -> str:
    """An account's name that no other test has; what others have failed at is forgotten."""
    served.sql("DELETE FROM login_failure")
    return f"someone-{next(_numbers)}"


def entries(keeper: httpx.Client, **filters: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = keeper.get("/api/audit", params=filters).json()["items"]
    return found


def token(answer: httpx.Response) -> dict[str, str]:
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


def test_an_account_is_made_signs_in_chooses_a_password_and_may_then_do_its_work(
    served: Api, keeper: httpx.Client, name: str
) -> None:
    made = keeper.post("/api/users", json={"name": name, "permissions": ["audit:read"]})
    assert made.status_code == 201
    first = served.login(name, made.json()["password"])
    assert served.client.get("/api/me", headers=token(first)).json()["must_change"] is True
    assert served.client.get("/api/audit", headers=token(first)).status_code == 403
    chosen = {"old": made.json()["password"], "new": "one of my own"}
    assert served.client.post("/api/me/password", json=chosen, headers=token(first)).status_code == 204
    assert served.client.get("/api/me", headers=token(first)).status_code == 401
    again = served.login(name, "one of my own")
    assert served.client.get("/api/audit", headers=token(again)).status_code == 200
    assert served.client.get("/api/users", headers=token(again)).status_code == 403


def test_a_password_that_was_given_is_not_shown(served: Api, keeper: httpx.Client, name: str) -> None:
    made = keeper.post("/api/users", json={"name": name.upper(), "password": PASSWORD}).json()
    assert made["password"] is None
    assert made["account"]["name"] == name
    assert served.login(name).status_code == 200
    assert keeper.post(f"/api/users/{name}/password", json={"password": "another password"}).json() == {
        "password": None
    }
    assert served.login(name).status_code == 401


def test_a_new_password_or_disabling_ends_every_session(served: Api, keeper: httpx.Client, name: str) -> None:
    served.account(name)
    before = token(served.login(name))
    made = keeper.post(f"/api/users/{name}/password", json={}).json()["password"]
    assert served.client.get("/api/me", headers=before).status_code == 401
    before = token(served.login(name, made))
    assert keeper.patch(f"/api/users/{name}", json={"is_active": False}).json()["is_active"] is False
    assert served.client.get("/api/me", headers=before).status_code == 401
    assert served.login(name, made).status_code == 401
    keeper.patch(f"/api/users/{name}", json={"is_active": True})
    assert served.client.get("/api/me", headers=before).status_code == 401
    assert served.login(name, made).status_code == 200


def test_somebody_is_signed_out_everywhere(served: Api, keeper: httpx.Client, name: str) -> None:
    served.account(name)
    sessions = [token(served.login(name)) for _ in range(2)]
    assert keeper.post(f"/api/users/{name}/sign-out").status_code == 204
    assert [served.client.get("/api/me", headers=one).status_code for one in sessions] == [401, 401]
    assert entries(keeper, action="user.signed_out", target=f"user/{name}")[0]["detail"] == {"sessions": 2}


def test_what_is_not_sent_stays(keeper: httpx.Client, name: str) -> None:
    keeper.post("/api/users", json={"name": name, "permissions": ["jobs:read"], "language": "ru"})
    saved = keeper.patch(f"/api/users/{name}", json={"language": None}).json()
    assert (saved["permissions"], saved["language"], saved["is_active"]) == (["jobs:read"], None, True)
    assert keeper.get(f"/api/users/{name}").json() == saved
    assert keeper.patch(f"/api/users/{name}", json={"is_active": None}).status_code == 422


def test_the_last_keeper_of_accounts_cannot_give_that_up(config: Config) -> None:
    with api(config) as running, running.signed_in("only") as only:
        changes: list[dict[str, object]] = [{"is_active": False}, {"permissions": []}]
        for change in changes:
            answer = only.patch("/api/users/only", json=change)
            assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
        assert only.get("/api/me").json()["permissions"] == list(PERMISSIONS)


def test_accounts_come_page_by_page(served: Api, keeper: httpx.Client) -> None:
    for number in range(5):
        served.account(f"paged-{number}")
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        page = keeper.get("/api/users", params={"limit": 2, **({"after": after} if after else {})}).json()
        found += [one["name"] for one in page["items"]]
        after = page["next"]
    assert found == sorted(set(found))
    assert {f"paged-{number}" for number in range(5)} | {"keeper"} <= set(found)


def test_everything_that_was_done_is_in_the_audit_and_no_secret_is(
    served: Api, keeper: httpx.Client, name: str
) -> None:
    made = keeper.post("/api/users", json={"name": name, "permissions": ["slots:read"]}).json()["password"]
    served.login(name, "wrong password")
    signed_in = token(served.login(name, made))
    done = {"old": made, "new": "one of my own"}
    served.client.post("/api/me/password", json=done, headers=signed_in)
    signed_in = token(served.login(name, "one of my own"))
    served.client.patch("/api/me", json={"language": "ru"}, headers=signed_in)
    served.client.post("/api/logout", headers={**signed_in, "X-Request-Id": "the-last-request"})
    found = entries(keeper, target=f"user/{name}")
    assert [(one["actor"], one["action"]) for one in found] == [
        (name, "login.ended"),
        (name, "user.changed"),
        (name, "login.succeeded"),
        (name, "user.password_set"),
        (name, "login.succeeded"),
        (None, "login.failed"),
        ("keeper", "user.created"),
    ]
    assert found[0]["request_id"] == "the-last-request"
    assert {one["address"] for one in found} == {"127.0.0.1"}
    for secret in (made, "one of my own", "wrong password", signed_in["Authorization"][7:]):
        assert secret not in str(found)


def test_the_audit_comes_page_by_page(served: Api, keeper: httpx.Client) -> None:
    served.sql("INSERT INTO audit (action, target) SELECT 'slot.saved', 'slot/' || n FROM generate_series(1, 5) AS n")
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        page = keeper.get(
            "/api/audit", params={"limit": 2, "action": "slot.", **({"after": after} if after else {})}
        ).json()
        found += [one["target"] for one in page["items"]]
        after = page["next"]
    assert found == [f"slot/{number}" for number in (5, 4, 3, 2, 1)]


@pytest.mark.parametrize("asked", ["action=Slot", "since=2026-01-01T00:00:00", "after=WyJ4Il0", "until=soon"])
def test_an_audit_that_cannot_be_asked_for_is_refused(keeper: httpx.Client, asked: str) -> None:
    answer = keeper.get(f"/api/audit?{asked}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert [one["field"] for one in answer.json()["errors"]] == [asked.partition("=")[0]]
