"""Who is signed in: sessions as rows, and the signed tokens that name them.

Of the API: an access token for minutes (``bearer``), and a refresh token that is exchanged for the next one. A refresh
token that comes a second time has been stolen or copied, and ends its session. Of the browser: one cookie. The
database decides at every request, so that what is revoked ends at once and permissions are those of now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID, uuid4

from psycopg import AsyncConnection

from photochanger import accounts, audit, bearer, logins, logs
from photochanger.db import Database, Row, fetch
from photochanger.failures import InvalidCredentials, InvalidToken
from photochanger.tokens import Links, MasterKeys

Kind = Literal["api", "browser"]

#: A session that nobody uses for this long is over; so is one of this age.
IDLE = timedelta(hours=12)
LASTS = timedelta(days=7)
#: Use is written down this often.
_NOTED_EVERY = timedelta(minutes=1)
#: How long a session's row outlives it: the addresses an account has signed in from are known by them.
_REMEMBERED = timedelta(days=30)
_BATCH = 1000
_USER_AGENT_CHARACTERS = 200
_TIMES = {"idle": IDLE, "lasts": LASTS, "noted_every": _NOTED_EVERY, "remembered": _REMEMBERED}


@dataclass(frozen=True)
class Caller:
    """Who asks, as the database knows them now."""

    name: str
    permissions: frozenset[str]
    session_id: UUID
    must_change: bool
    language: str | None


@dataclass(frozen=True)
class SignedIn:
    """A session and its tokens. ``token`` is the cookie's: the refresh token of the API, or the browser's own."""

    caller: Caller
    token: str
    expires_at: datetime
    access_token: str


_ALIVE = (
    "s.revoked_at IS NULL AND s.expires_at > clock_timestamp() "
    "AND s.last_used_at > clock_timestamp() - %(idle)s AND a.is_active"
)
_CALLER = "a.name, a.permissions, a.must_change, a.language, s.id, s.generation, s.expires_at"
_OPEN = (
    "WITH a AS (SELECT * FROM account WHERE name = %(name)s AND password_hash = %(hash)s AND is_active FOR SHARE) "  # noqa: S608
    ", s AS (INSERT INTO session (id, account, kind, expires_at, address, user_agent) "
    "SELECT %(id)s, name, %(kind)s, clock_timestamp() + %(lasts)s, %(address)s, %(user_agent)s FROM a RETURNING *) "
    f"SELECT {_CALLER} FROM a, s"
)
_ROTATE = (
    "UPDATE session s SET generation = s.generation + 1, last_used_at = clock_timestamp() FROM account a "  # noqa: S608
    "WHERE s.id = %(id)s AND s.generation = %(generation)s AND s.kind = 'api' AND a.name = s.account "
    f"AND {_ALIVE} RETURNING {_CALLER}"
)
_END_REUSED = (
    "UPDATE session SET revoked_at = clock_timestamp() WHERE id = %(id)s AND generation > %(generation)s "
    "AND revoked_at IS NULL RETURNING account"
)
_CHECK = (
    f"SELECT {_CALLER}, s.last_used_at < clock_timestamp() - %(noted_every)s AS is_stale "  # noqa: S608
    "FROM session s JOIN account a ON a.name = s.account "
    f"WHERE s.id = %(id)s AND s.kind = %(kind)s AND a.name = coalesce(%(name)s, a.name) AND {_ALIVE}"
)
_NOTE_USE = "UPDATE session SET last_used_at = clock_timestamp() WHERE id = %(id)s AND revoked_at IS NULL"
_REVOKE = "UPDATE session SET revoked_at = clock_timestamp() WHERE id = %(id)s AND revoked_at IS NULL RETURNING account"


async def sign_in(
    db: Database,
    keys: MasterKeys,
    *,
    name: str,
    password: str,
    address: str,
    user_agent: str = "",
    kind: Kind = "api",
) -> SignedIn:
    """Opens a session for whoever knows the password.

    Raises:
        InvalidCredentials: name or password are wrong, or the account is disabled.
        LoginThrottled: too many wrong ones.
    """
    proven = await logins.prove(db, name, password, address=address)
    params = {
        **_TIMES,
        "id": uuid4(),
        "name": proven["name"],
        "hash": proven["password_hash"],
        "kind": kind,
        "address": address,
        "user_agent": user_agent[:_USER_AGENT_CHARACTERS],
    }
    async with db.transaction() as connection:
        rows = await fetch(connection, _OPEN, params)
        if not rows:  # disabled, or another password, since it was looked at
            raise InvalidCredentials()
        await _record(connection, "login.succeeded", rows[0]["name"], params["id"], {"kind": kind})
    logs.event("login.succeeded", account=rows[0]["name"], kind=kind)
    return _signed_in(keys, rows[0], kind)


async def refresh(db: Database, keys: MasterKeys, token: str) -> SignedIn:
    """Exchanges a refresh token for the next one and a new access token.

    Raises:
        InvalidToken: it is not genuine, its session is over, or it was exchanged before; the session is over then.
    """
    session_id, generation = _refreshing(keys, token)
    params: dict[str, Any] = {**_TIMES, "id": session_id, "generation": generation}
    reused: list[Row] = []
    async with db.transaction() as connection:
        rows = await fetch(connection, _ROTATE, params)
        if not rows:
            reused = await fetch(connection, _END_REUSED, params)
        for row in reused:
            await _record(connection, "session.reused", row["account"], session_id)
    for row in reused:
        logs.event("session.reused", account=row["account"], address=logs.address.get())
    if not rows:
        raise InvalidToken()
    return _signed_in(keys, rows[0], "api")


async def check(db: Database, keys: MasterKeys, token: str) -> Caller:
    """Whose access token this is.

    Raises:
        InvalidToken: nobody's who is signed in.
    """
    claims = bearer.read(keys, token)
    return await _alive(db, claims.session_id, "api", name=claims.account)


async def check_cookie(db: Database, keys: MasterKeys, cookie: str) -> Caller:
    """Whose browser session this is.

    Raises:
        InvalidToken: nobody's who is signed in.
    """
    return await _alive(db, _browsing(keys, cookie), "browser")


async def _alive(db: Database, session_id: UUID, kind: Kind, *, name: str | None = None) -> Caller:
    rows = await db.fetch(_CHECK, {**_TIMES, "id": session_id, "kind": kind, "name": name})
    if not rows:
        raise InvalidToken()
    if rows[0]["is_stale"]:
        await db.fetch(_NOTE_USE, {"id": session_id})
    return _caller(rows[0])


async def sign_out(db: Database, keys: MasterKeys, *, refresh_token: str = "", cookie: str = "") -> None:
    """Ends the session that one of the cookies names; one that has ended already is no fault.

    Raises:
        InvalidToken: it is not genuine.
    """
    session_id = _refreshing(keys, refresh_token)[0] if refresh_token else _browsing(keys, cookie)
    await revoke(db, session_id)


async def revoke(db: Database, session_id: UUID) -> None:
    """Ends one session, from its next request on."""
    async with db.transaction() as connection:
        for row in await fetch(connection, _REVOKE, {"id": session_id}):
            await _record(connection, "login.ended", row["account"], session_id)


async def revoke_all(db: Database, name: str, *, actor: str) -> int:
    """Ends every session of an account; how many.

    Raises:
        NotFound: there is no such account.
    """
    await accounts.get(db, name)
    async with db.transaction() as connection:
        count = await accounts.end_sessions(connection, name)
        detail = {"sessions": count}
        await audit.record(connection, actor=actor, action="user.signed_out", target=f"user/{name}", detail=detail)
    return count


async def change_password(db: Database, name: str, *, old: str, new: str, address: str) -> None:
    """Gives one's own account another password; every session of it ends.

    Raises:
        InvalidCredentials: ``old`` is not the present one.
        LoginThrottled: too many wrong ones.
        InvalidSettings: ``new`` is too short or too long.
    """
    accounts.check_password(new)
    proven = await logins.prove(db, name, old, address=address)
    await accounts.set_password(db, name, new, actor=name, must_change=False, proven=proven["password_hash"])


async def none_yet(db: Database) -> bool:
    """Whether nobody has signed in to this server lately."""
    return not await db.fetch("SELECT FROM session LIMIT 1")


async def sweep(db: Database) -> int:
    """Deletes sessions that are long over and failures that are forgotten; how many."""
    removed = await logins.sweep(db)
    while True:
        rows = await db.fetch(
            "DELETE FROM session WHERE id IN (SELECT id FROM session "
            "WHERE expires_at < clock_timestamp() - %(remembered)s LIMIT %(batch)s) RETURNING id",
            {**_TIMES, "batch": _BATCH},
        )
        removed += len(rows)
        if len(rows) < _BATCH:
            return removed


async def _record(
    connection: AsyncConnection[Any],
    action: str,
    account: str,
    session_id: UUID,
    detail: Mapping[str, Any] | None = None,
) -> None:
    whole = {"session": str(session_id), **(detail or {})}
    await audit.record(connection, actor=account, action=action, target=f"user/{account}", detail=whole)


def _caller(row: Row) -> Caller:
    return Caller(row["name"], frozenset(row["permissions"]), row["id"], row["must_change"], row["language"])


def _signed_in(keys: MasterKeys, row: Row, kind: Kind) -> SignedIn:
    caller, expires_at = _caller(row), row["expires_at"]
    if kind == "browser":
        cookie = _browser(keys).token(str(caller.session_id), expires_at)
        return SignedIn(caller, f"{caller.session_id}.{cookie}", expires_at, "")
    subject = f"{caller.session_id}.{row['generation']}"
    access = bearer.issue(keys, caller.name, caller.permissions, caller.session_id, now=datetime.now(UTC))
    return SignedIn(caller, f"{subject}.{_refresh(keys).token(subject, expires_at)}", expires_at, access)


def _refreshing(keys: MasterKeys, token: str) -> tuple[UUID, int]:
    """Session and generation of a genuine refresh token."""
    session_id, _, rest = token.partition(".")
    generation, _, signed = rest.partition(".")
    if _refresh(keys).expiry(f"{session_id}.{generation}", signed) is None:
        raise InvalidToken()
    return UUID(session_id), int(generation)


def _browsing(keys: MasterKeys, cookie: str) -> UUID:
    """The session of a genuine cookie."""
    session_id, _, signed = cookie.partition(".")
    if _browser(keys).expiry(session_id, signed) is None:
        raise InvalidToken()
    return UUID(session_id)


def _refresh(keys: MasterKeys) -> Links:
    return Links(keys, "refresh")


def _browser(keys: MasterKeys) -> Links:
    return Links(keys, "browser")
