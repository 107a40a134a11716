"""The frame of the admin API by itself: marks, queries, cursors, versions, answers, cookies."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

import falcon.asgi
import falcon.testing
import pytest
from pydantic import BaseModel, Field

from photochanger.failures import Failure, InvalidRequest, VersionRequired
from photochanger.sessions import Caller, SignedIn
from web import problems
from web.api import Page, answer, cursor, etag, if_match, needed_by, needs, position, query
from web.api.authority import Authority
from web.api.sign_in import give_session
from web.services import Services

SESSION = UUID("7b0c3d1e-58f4-4a86-9e3b-0f3f3c1f8a11")
AT = datetime(2026, 11, 24, 20, 0, 0, tzinfo=UTC)


class Wanted(Page):
    """A query with a list and a name of its own."""

    status: list[str] = Field([])
    since: datetime | None = Field(None, alias="from")


class Unmarked:
    """A resource whose author forgot the mark."""

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.text = "open by accident"

    on_options = on_get

    async def on_get_more(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.text = "open by accident"

    async def on_post_more(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.text = "open by accident"


def asked(query_string: str = "", **headers: str) -> falcon.asgi.Request:
    made: Any = falcon.testing.create_asgi_req(
        query_string=query_string, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    return cast(falcon.asgi.Request, made)


def served() -> falcon.testing.TestClient:
    app: Any = falcon.asgi.App(middleware=[Authority(cast(Services, None))])
    app.add_error_handler(Failure, problems.on_failure)
    app.add_route("/api/forgotten", Unmarked())
    app.add_route("/api/suffixed", Unmarked(), suffix="more")
    return falcon.testing.TestClient(app)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/forgotten", 403),
        ("OPTIONS", "/api/forgotten", 403),
        ("GET", "/api/suffixed", 403),
        ("POST", "/api/suffixed", 405),
    ],
)
def test_what_nobody_has_marked_is_open_to_nobody(method: str, path: str, status: int) -> None:
    result = served().simulate_request(method, path)
    assert result.status_code == status
    assert "accident" not in result.text


def test_a_mark_says_what_it_takes() -> None:
    @needs("slots:write")
    def marked() -> None: ...

    needed = needed_by(marked)
    assert needed is not None
    assert (needed.permission, needed.while_must_change) == ("slots:write", False)
    assert needed_by(asked) is None


def test_a_name_may_come_several_times_where_its_field_is_a_list() -> None:
    assert query(asked("status=failed&status=succeeded"), Wanted).status == ["failed", "succeeded"]
    assert query(asked("status=failed"), Wanted).status == ["failed"]
    assert query(asked("from=2026-11-24T20:00:00Z&limit=7"), Wanted).since == AT


@pytest.mark.parametrize(
    "given", ["since=2026-11-24T20:00:00Z", "limit=x", "status=%00", "status=a&status=%00", "limit=1&limit=2", "l%00=1"]
)
def test_what_is_no_parameter_is_refused(given: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        query(asked(given), Wanted)
    assert len(refused.value.errors) >= 1


def test_a_cursor_gives_back_what_was_put_in() -> None:
    made = cursor("slot-001", 7, AT, SESSION)
    assert position(made, str, int, datetime, UUID) == ["slot-001", 7, AT, SESSION]
    assert position(None, str) is None


@pytest.mark.parametrize(
    ("after", "kinds"),
    [
        ("", (int,)),
        ("!", (int,)),
        ("я", (int,)),
        (cursor("x"), (int,)),
        (cursor(-1), (int,)),
        (cursor(2**63), (int,)),
        (cursor(1, 2), (int,)),
        (cursor(1), (str,)),
        (cursor("a\0"), (str,)),
        (cursor("yesterday"), (datetime,)),
        (cursor("x"), (UUID,)),
        ("e30", (int,)),
        ("W3RydWVd", (int,)),
    ],
)
def test_a_damaged_cursor_is_refused(after: str, kinds: tuple[type, ...]) -> None:
    with pytest.raises(InvalidRequest):
        position(after, *kinds)


def test_a_version_goes_out_and_comes_back() -> None:
    assert if_match(asked(If_Match=etag(7))) == 7
    with pytest.raises(VersionRequired):
        if_match(asked())


@pytest.mark.parametrize("given", ["7", 'W/"7"', "*", '"7", "8"', '""', '"-1"', '"12345678901"', '"7" x'])
def test_what_is_no_version_of_ours_is_refused(given: str) -> None:
    with pytest.raises(InvalidRequest):
        if_match(asked(If_Match=given))


def test_an_answer_may_hold_models_money_and_instants() -> None:
    class Priced(BaseModel):
        """Something with a price."""

        at: datetime

    resp: Any = falcon.asgi.Response()
    answer(resp, {"cost": Decimal("0.04"), "one": Priced(at=AT), "at": AT, "id": SESSION, "may": frozenset("ba")}, 201)
    assert resp.status_code == 201
    assert json.loads(resp.data) == {
        "cost": 0.04,
        "one": {"at": "2026-11-24T20:00:00Z"},
        "at": "2026-11-24T20:00:00Z",
        "id": str(SESSION),
        "may": ["a", "b"],
    }


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_browsers_cookie_is_for_this_site_and_no_script(scheme: str) -> None:
    resp: Any = falcon.asgi.Response()
    req = cast(falcon.asgi.Request, cast(Any, falcon.testing.create_asgi_req)(scheme=scheme))
    give_session(req, resp, SignedIn(Caller("anna", frozenset(), SESSION, False, None), "a-token", AT, ""))
    cookie = resp._cookies["photochanger_session"]
    assert (cookie.value, cookie["path"], cookie["samesite"], cookie["httponly"]) == ("a-token", "/", "Lax", True)
    assert bool(cookie["secure"]) == (scheme == "https")
