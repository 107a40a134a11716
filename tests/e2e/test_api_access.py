"""The admin API's frame: who is let in, who is refused and in what words; what a body and a query may be."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import falcon.inspect
import httpx
import jwt
import pytest

from photochanger import bearer, sessions
from photochanger.config import Config
from photochanger.db import Database
from photochanger.permissions import PERMISSIONS
from photochanger.tokens import MasterKeys, master_keys
from spec import drift
from tests.api import PASSWORD, Api, api
from tests.conftest import database
from web.api import OPEN, Needed, needed_by
from web.app import falcon_app

pytestmark = pytest.mark.xdist_group("api access")

_numbers = itertools.count()
#: What an account may still do that must choose a password of its own.
FENCE = {("GET", "/api/me"), ("POST", "/api/me/password")}


def routes() -> list[tuple[str, str, Needed | None]]:
    """Method, path and mark of everything under ``/api``."""
    with tempfile.TemporaryDirectory() as home:
        app = falcon_app(Config(home=Path(home), database_url="postgresql://nowhere"))
    found = []
    for route in falcon.inspect.inspect_routes(app):
        if route.path == "/api" or route.path.startswith("/api/"):
            at = app._router.find(route.path)
            assert at is not None
            for method in (one for one in route.methods if not one.internal):
                responder = f"on_{method.method.lower()}"
                assert method.function_name == responder, f"{route.path} has a suffix"
                found.append((method.method, route.path, needed_by(getattr(at[0], responder))))
    return found


ROUTES = routes()
#: Those that are not open to anybody, with their permission.
CLOSED = [(method, path, mark.permission) for method, path, mark in ROUTES if mark and mark.permission != OPEN]
GUARDED = [one for one in CLOSED if one[2] is not None]


def address(path: str) -> str:
    """A path with something in its gaps."""
    return path.replace("{", "").replace("}", "")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def served(server_url: str, home: Path) -> Iterator[Api]:
    for url in database(server_url):
        with api(Config(home=home, database_url=url)) as running:
            yield running


@pytest.fixture(scope="module")
def keys(served: Api, home: Path) -> MasterKeys:
    return master_keys(Config(home=home, database_url=served.database_url))


@pytest.fixture
def name(served: Api) -> str:
    """An account's name that no other test has; what others have failed at is forgotten."""
    served.sql("DELETE FROM login_failure")
    return f"someone-{next(_numbers)}"


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


# -- every route ----------------------------------------------------------------------------------------------------


def test_every_route_says_what_it_takes() -> None:
    assert len(ROUTES) >= 13
    assert [(method, path) for method, path, mark in ROUTES if mark is None] == []


def test_only_signing_in_and_out_and_the_contract_are_open_to_anybody() -> None:
    opened = {path for _, path, mark in ROUTES if mark and mark.permission == OPEN}
    assert opened == {"/api/login", "/api/refresh", "/api/logout", "/api/docs", "/api/openapi.json"}


@pytest.mark.parametrize(("method", "path", "permission"), CLOSED, ids=str)
def test_without_a_token_nobody_is_let_in(served: Api, method: str, path: str, permission: str | None) -> None:
    answer = served.client.request(method, address(path))
    assert code(answer) == (401, "invalid_token")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["cache-control"] == "private, no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(("method", "path", "permission"), GUARDED, ids=str)
def test_every_permission_but_the_one_is_not_enough(
    served: Api, name: str, method: str, path: str, permission: str
) -> None:
    with served.signed_in(name, [one for one in PERMISSIONS if one != permission]) as client:
        answer = client.request(method, address(path))
    assert code(answer) == (403, "forbidden")
    assert permission in answer.json()["detail"]


@pytest.mark.parametrize(("method", "path", "permission"), GUARDED, ids=str)
def test_the_one_permission_is_enough(served: Api, name: str, method: str, path: str, permission: str) -> None:
    with served.signed_in(name, [permission]) as client, client.stream(method, address(path)) as answer:
        assert answer.status_code not in (401, 403, 500)


@pytest.mark.parametrize(("method", "path", "permission"), CLOSED, ids=str)
def test_who_must_choose_a_password_may_do_nothing_else(
    served: Api, name: str, method: str, path: str, permission: str | None
) -> None:
    with served.signed_in(name, must_change=True) as client:
        answer = client.request(method, address(path))
    if (method, path) in FENCE:
        assert answer.status_code != 403
    else:
        assert code(answer) == (403, "forbidden")
        assert "password" in answer.json()["detail"]


def test_a_method_that_is_not_there_is_named_before_anybody_is_asked_who_they_are(served: Api) -> None:
    answer = served.client.delete("/api/me")
    assert code(answer) == (405, "invalid_request")
    assert set(answer.headers["allow"].split(", ")) == {"GET", "PATCH", "OPTIONS"}
    assert code(served.client.get("/api/nothing")) == (404, "not_found")


# -- tokens that are refused ----------------------------------------------------------------------------------------


def test_every_refused_token_gets_the_same_answer(served: Api, keys: MasterKeys, name: str) -> None:
    served.account(name)
    good = served.login(name).json()["access_token"]
    claims = jwt.decode(good, options={"verify_signature": False})
    key = keys.derived(bearer.PURPOSE, keys.newest)
    assert key is not None
    now = datetime.now(UTC)

    def forged(**changes: object) -> str:
        return jwt.encode({**claims, **changes}, key, algorithm="HS256", headers={"kid": keys.newest})

    head, payload, signature = good.split(".")
    tokens = [
        "nonsense",
        f"{head}.{payload}.",
        f"{head}.{payload}.{signature[::-1]}",
        jwt.encode(claims, "", algorithm="none", headers={"kid": keys.newest}),
        forged(exp=now - timedelta(minutes=1)),
        forged(nbf=now + timedelta(minutes=1)),
        forged(aud="another"),
        forged(iss="another"),
        forged(typ="refresh"),
        forged(sid=str(uuid4())),
        forged(sub="another"),
    ]
    served.account(f"{name}-off")
    off = served.login(f"{name}-off").json()["access_token"]
    served.sql("UPDATE account SET is_active = false WHERE name = %s", f"{name}-off")
    assert served.client.get("/api/me", headers={"Authorization": f"Bearer {good}"}).status_code == 200
    served.sql("UPDATE session SET revoked_at = clock_timestamp() WHERE account = %s", name)
    headers = [{"Authorization": f"Bearer {token}"} for token in [*tokens, off, good]]
    answers = [served.client.get("/api/me", headers=one) for one in [*headers, {}, {"Authorization": "Basic YTpi"}]]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1
    assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}


def test_permissions_are_those_of_now_whatever_the_token_says(served: Api, name: str) -> None:
    with served.signed_in(name, ["users:write"]) as client:
        assert client.get("/api/users").status_code == 200
        served.sql("UPDATE account SET permissions = '{}' WHERE name = %s", name)
        assert code(client.get("/api/users")) == (403, "forbidden")


def test_a_wrong_password_and_an_unknown_account_get_the_same_answer(served: Api, name: str) -> None:
    served.account(name)
    served.account(f"{name}-off", is_active=False)
    wrong = [served.login(name, "wrong password"), served.login("no-such-account"), served.login(f"{name}-off")]
    wrong.append(served.login("No Such Name!"))
    assert {code(answer) for answer in wrong} == {(401, "invalid_credentials")}
    assert len({answer.content for answer in wrong}) == 1


def test_a_sixth_guess_waits(served: Api, name: str) -> None:
    served.account(name)
    for _ in range(5):
        assert code(served.login(name, "wrong password")) == (401, "invalid_credentials")
    throttled = served.login(name)
    assert code(throttled) == (429, "login_throttled")
    assert 590 < int(throttled.headers["retry-after"]) <= 600


def refreshing(served: Api, token: str, *, path: str = "/api/refresh", **headers: str) -> httpx.Response:
    """As a page of this server sends it, where no header says otherwise."""
    sent = headers or {"Origin": served.url}
    return served.client.post(path, headers={"Cookie": f"photochanger_refresh={token}", **sent})


# -- cookies --------------------------------------------------------------------------------------------------------


def test_the_refresh_cookie_is_for_the_api_of_this_site_only(served: Api, name: str) -> None:
    served.account(name)
    answer = served.login(name)
    assert answer.json()["expires_in_sec"] == 900
    [cookie] = answer.headers.get_list("set-cookie")
    parts = {part.strip().split("=")[0].lower(): part for part in cookie.split(";")}
    assert {"photochanger_refresh", "httponly", "path", "samesite", "expires"} == set(parts)
    assert parts["path"].strip() == "Path=/api"
    assert parts["samesite"].strip() == "SameSite=Strict"


def test_a_refresh_token_gives_the_next_one_and_coming_again_ends_the_session(served: Api, name: str) -> None:
    served.account(name)
    first = served.login(name).cookies["photochanger_refresh"]
    second = refreshing(served, first)
    token = {"Authorization": f"Bearer {second.json()['access_token']}"}
    assert second.cookies["photochanger_refresh"] != first
    assert served.client.get("/api/me", headers=token).status_code == 200
    again = refreshing(served, first)
    assert code(again) == (401, "invalid_token")
    assert code(served.client.get("/api/me", headers=token)) == (401, "invalid_token")
    assert refreshing(served, second.cookies["photochanger_refresh"]).status_code == 401
    assert served.sql("SELECT action FROM audit WHERE action = 'session.reused' AND actor = %s", name)


def ORIGIN(served: Api) -> dict[str, str]:
    return {"Origin": served.url}


@pytest.mark.parametrize("path", ["/api/refresh", "/api/logout"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "null"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": "http://[", "Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
def test_another_sites_page_cannot_use_the_refresh_cookie(
    served: Api, name: str, path: str, headers: dict[str, str]
) -> None:
    served.account(name)
    token = served.login(name).cookies["photochanger_refresh"]
    assert code(refreshing(served, token, path=path, **{"X-Any": "1", **headers})) == (403, "forbidden")
    assert refreshing(served, token).status_code == 200


def test_signing_out_ends_the_session_by_token_or_cookie(served: Api, name: str) -> None:
    served.account(name)
    by_token, by_cookie = served.login(name), served.login(name)
    token = {"Authorization": f"Bearer {by_token.json()['access_token']}"}
    assert served.client.post("/api/logout", headers=token).status_code == 204
    assert code(served.client.get("/api/me", headers=token)) == (401, "invalid_token")
    refresh = by_cookie.cookies["photochanger_refresh"]
    out = refreshing(served, refresh, path="/api/logout", **{"Sec-Fetch-Site": "same-origin"})
    assert out.status_code == 204
    gone = {one.split(";")[0] for one in out.headers.get_list("set-cookie")}
    assert gone == {'photochanger_refresh=""', 'photochanger_session=""'}
    assert refreshing(served, refresh).status_code == 401
    assert code(served.client.post("/api/logout")) == (401, "invalid_token")


def browsing(served: Api, keys: MasterKeys, name: str) -> str:
    """The cookie of a browser that has signed in."""

    async def sign_in() -> str:
        db = Database(served.database_url, connections=1, application_name="test")
        signed_in = await sessions.sign_in(
            db, keys, name=name, password=PASSWORD, address="192.0.2.1", user_agent="A browser", kind="browser"
        )
        await db.close()
        return signed_in.token

    return f"photochanger_session={asyncio.run(sign_in())}"


def test_a_browser_is_known_by_its_cookie_and_changes_something_from_our_pages_only(
    served: Api, keys: MasterKeys, name: str
) -> None:
    served.account(name)
    cookie = {"Cookie": browsing(served, keys, name)}
    assert served.client.get("/api/me", headers=cookie).json()["name"] == name

    def change(**headers: str) -> int:
        sent = {**cookie, **{key.replace("_", "-"): value for key, value in headers.items()}}
        return served.client.patch("/api/me", json={"language": "ru"}, headers=sent).status_code

    assert change() == 403
    assert change(Origin="https://evil.example", Sec_Fetch_Site="cross-site") == 403
    assert change(Origin="null") == 403
    assert change(Origin=served.url) == 200
    assert change(Sec_Fetch_Site="same-origin") == 200
    assert change(Sec_Fetch_Site="same-origin", Authorization="Bearer nonsense") == 401
    out = served.client.post("/api/logout", headers={**cookie, "Sec-Fetch-Site": "same-origin"})
    assert out.status_code == 204
    assert code(served.client.get("/api/me", headers=cookie)) == (401, "invalid_token")


def test_the_contract_names_the_permission_that_every_operation_takes() -> None:
    described = {
        (method, path): operation.get("x-permission")
        for method, path, operation in drift.operations(drift.load())
        if path.startswith("/api/")
    }
    wanted = {(method, path): mark.permission for method, path, mark in ROUTES if mark}
    assert described == {key: None if permission == OPEN else permission for key, permission in wanted.items()}


# -- bodies and queries ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keeper(served: Api) -> Iterator[httpx.Client]:
    with served.signed_in("keeper") as client:
        yield client


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("content", "kind", "expected"),
    [
        (b'{"name": "x"}', "text/plain", (415, "unsupported_media_type")),
        (b"", "application/json", (400, "invalid_request")),
        (b"{", "application/json", (400, "invalid_request")),
        (b'{"name": NaN}', "application/json", (400, "invalid_request")),
        (b'{"name": "\xff"}', "application/json", (400, "invalid_request")),
        (b'{"name": "\\ud800"}', "application/json", (400, "invalid_request")),
        (b'{"name": "a\\u0000b"}', "application/json", (400, "invalid_request")),
        (b'{"a\\u0000b": 1}', "application/json", (400, "invalid_request")),
        (b"[" * 10_000 + b"]" * 10_000, "application/json", (400, "invalid_request")),
        (b"[" * 100 + b"]" * 100, "application/json", (400, "invalid_request")),
        (b'{"name": 1e999}', "application/json", (400, "invalid_request")),
        (b'{"name": ' + b"9" * 5000 + b"}", "application/json", (400, "invalid_request")),
        (b'{"name": 123456789012345678901234567890}', "application/json", (400, "invalid_request")),
        (b"{" + b'"name": "a",' * 20_000 + b'"x": 1}', "application/json", (422, "invalid_settings")),
        (b"[]", "application/json; charset=utf-8", (422, "invalid_settings")),
        (b'{"name": "Nobody!"}', "application/json", (422, "invalid_settings")),
        (b'"' + b"x" * (1024 * 1024) + b'"', "application/json", (413, "payload_too_large")),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_body_that_is_no_good_is_refused(
    keeper: httpx.Client, content: bytes, kind: str, expected: tuple[int, str]
) -> None:
    assert code(keeper.post("/api/users", content=content, headers={"Content-Type": kind})) == expected


TAKING_JSON = sorted(
    (method, path)
    for method, path, operation in drift.operations(drift.load())
    if "application/json" in operation.get("requestBody", {}).get("content", {}) and path.startswith("/api/")
)
HOSTILE = [
    b'{"x": "' + b"a" * 10 * 1024 * 1024 + b'"}',
    b"[" * 10_000 + b"]" * 10_000,
    b'{"name": "\\u0000", "key": "\\u0000", "options": {"x": "\\u0000"}}',
    b'{"name": "\\ud800", "key": "\\ud800"}',
    b'{"grace_h": NaN, "minutes": NaN}',
    b'{"grace_h": 1e999, "minutes": 1e999, "t_job_history_d": 1e999}',
    b'{"minutes": ' + b"9" * 400 + b', "disk_reserve_bytes": ' + b"9" * 400 + b"}",
    b'{"minutes": 18446744073709551616, "disk_reserve_bytes": 18446744073709551616}',
    b"\xff\xfe",
    b"null",
]


@pytest.mark.parametrize(("method", "path"), TAKING_JSON, ids=str)
def test_no_operation_takes_a_hostile_body(keeper: httpx.Client, method: str, path: str) -> None:
    for content in HOSTILE:
        headers = {**JSON, "If-Match": '"1"'}
        answer = keeper.request(method, address(path), content=content, headers=headers)
        assert 400 <= answer.status_code < 500, content[:60]
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_body_without_a_length_is_counted_as_it_comes(keeper: httpx.Client) -> None:
    endless = (b"x" * 65_536 for _ in range(40))
    assert code(keeper.post("/api/users", content=endless, headers=JSON)) == (413, "payload_too_large")


def test_every_wrong_field_of_a_body_is_named(keeper: httpx.Client) -> None:
    answer = keeper.post("/api/users", json={"permissions": ["all"], "password": "short", "more": 1})
    assert code(answer) == (422, "invalid_settings")
    assert {one["field"] for one in answer.json()["errors"]} == {"name", "permissions.0", "password", "more"}


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=1&limit=2", "limit"),
        ("after=x", "after"),
        ("after=WzFd", "after"),
        ("after=%00", "after"),
        ("unknown=1", "unknown"),
        ("after=", "after"),
    ],
)
def test_a_query_that_is_no_good_is_refused_and_named(keeper: httpx.Client, asked: str, field: str) -> None:
    answer = keeper.get(f"/api/users?{asked}")
    assert code(answer) == (400, "invalid_request")
    assert [one["field"] for one in answer.json()["errors"]] == [field]


@pytest.mark.parametrize("path", ["/api/users/%00", "/api/users/..%2f", "/api/users/" + "x" * 3000])
def test_a_path_that_is_nothings_is_not_found(keeper: httpx.Client, path: str) -> None:
    assert code(keeper.get(path)) == (404, "not_found")


# -- requests a minute ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("setting", "whose"), [("api_per_minute", "server"), ("api_per_minute_address", "address")])
def test_requests_a_minute_are_limited_where_that_is_set(config: Config, setting: str, whose: str) -> None:
    with api(config) as running:
        running.sql("INSERT INTO app_settings (key, value) VALUES (%s, '2')", setting)
        answers = [running.client.get("/api/me") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [401, 401, 429]
    assert answers[0].headers["ratelimit-policy"] == f'"{whose}";q=2;w=60'
    assert answers[0].headers["ratelimit"].startswith(f'"{whose}";r=1;t=')
    assert int(answers[2].headers["retry-after"]) >= 1
