"""Who may sign in, and the passwords: the accounts' own, and the ingest password that cameras send."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError
from psycopg import AsyncConnection
from psycopg.errors import UniqueViolation

from photochanger import audit, settings
from photochanger.db import Database, Row, fetch
from photochanger.failures import Conflict, FieldError, InvalidCredentials, InvalidSettings, NotFound
from photochanger.permissions import PERMISSIONS
from photochanger.settings import PasswordHash

#: argon2id at the library's defaults (RFC 9106's second choice: 64 MiB, 3 passes): about 150 ms on one core here.
_HASHER = PasswordHasher()
#: Hashes at once in a process: each takes 64 MiB and a core.
_HASHING = ThreadPoolExecutor(2, thread_name_prefix="hashing")
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
FIRST_ADMIN = "admin"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
PASSWORD_CHARACTERS = 10
PASSWORD_BYTES = 1024
#: Who may manage accounts; there is always one that may.
KEEPER = "users:write"


def generate_password() -> str:
    """100 bits in four readable groups, without characters that look alike."""
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(5)) for _ in range(4))


async def hash_password(password: str) -> str:
    return await asyncio.get_running_loop().run_in_executor(_HASHING, _HASHER.hash, password)


async def verify(password: str, hashed: str) -> bool:
    """Whether ``password`` is the one that was hashed; off the event loop, two at a time."""
    try:
        return await asyncio.get_running_loop().run_in_executor(_HASHING, _HASHER.verify, hashed, password)
    except (VerifyMismatchError, InvalidHashError):
        return False


async def create_first_admin(db: Database, password: str | None) -> str | None:
    """Creates ``admin``, who may do everything, where no account is; returns the password to print, once: a made one is
    to be changed at the first sign-in. ``None``: there are accounts."""
    if await db.fetch("SELECT FROM account LIMIT 1"):
        return None
    chosen = password or generate_password()
    hashed = await hash_password(chosen)
    made = await db.fetch(
        "INSERT INTO account (name, password_hash, permissions, must_change) "
        "VALUES (%(name)s, %(hash)s, %(permissions)s, %(made)s) ON CONFLICT DO NOTHING RETURNING name",
        {"name": FIRST_ADMIN, "hash": hashed, "permissions": list(PERMISSIONS), "made": password is None},
    )
    return chosen if made else None


_COLUMNS = "name, permissions, is_active, language, must_change, created_at, updated_at"
_GET = f"SELECT {_COLUMNS} FROM account WHERE name = %(name)s"  # noqa: S608
_LISTING = f"SELECT {_COLUMNS} FROM account WHERE name > %(after)s ORDER BY name LIMIT %(limit)s"  # noqa: S608
_LOCK = (
    f"SELECT {_COLUMNS} FROM account WHERE name = %(name)s OR (is_active AND %(keeper)s = ANY(permissions)) "  # noqa: S608
    "ORDER BY name FOR NO KEY UPDATE"
)
_CREATE = (
    "INSERT INTO account (name, password_hash, permissions, language) "  # noqa: S608
    f"VALUES (%(name)s, %(hash)s, %(permissions)s, %(language)s) RETURNING {_COLUMNS}"
)
_UPDATE = (
    "UPDATE account SET permissions = %(permissions)s, is_active = %(is_active)s, language = %(language)s, "  # noqa: S608
    "must_change = %(must_change)s, updated_at = clock_timestamp() "
    f"WHERE name = %(name)s RETURNING {_COLUMNS}"
)
_RENEW = (
    "UPDATE account SET password_hash = %(hash)s, must_change = %(must_change)s, updated_at = clock_timestamp() "
    "WHERE name = %(name)s AND password_hash = coalesce(%(proven)s, password_hash) RETURNING name"
)


async def listing(db: Database, *, after: str = "", limit: int = 200) -> list[Row]:
    """Accounts by name, those behind ``after``; never a password's hash."""
    return await db.fetch(_LISTING, {"after": after, "limit": limit})


async def get(db: Database, name: str) -> Row:
    """One account.

    Raises:
        NotFound: there is none of this name.
    """
    rows = await db.fetch(_GET, {"name": name})
    if not rows:
        raise _missing(name)
    return rows[0]


async def create(
    db: Database,
    *,
    actor: str,
    name: str,
    permissions: Iterable[str] = (),
    password: str | None = None,
    language: str | None = None,
) -> tuple[Row, str]:
    """Makes an account, whose password must be changed at the first sign-in; the account and its password.

    Raises:
        InvalidSettings: name, password or a permission is none; nothing was made.
        Conflict: there is an account of this name.
    """
    name = check_name(name)
    granted = check_permissions(permissions)
    chosen = check_password(password) if password is not None else generate_password()
    params = {"name": name, "hash": await hash_password(chosen), "permissions": granted, "language": language}
    try:
        async with db.transaction() as connection:
            [made] = await fetch(connection, _CREATE, params)
            detail = {"permissions": granted}
            await audit.record(connection, actor=actor, action="user.created", target=f"user/{name}", detail=detail)
    except UniqueViolation:
        raise Conflict(f"There is an account {name} already") from None
    return made, chosen


async def update(db: Database, name: str, changes: Mapping[str, Any], *, actor: str) -> Row:
    """Changes what is given of ``permissions``, ``is_active``, ``language`` and ``must_change``. Disabling ends every
    session of the account.

    Raises:
        NotFound: there is no such account.
        InvalidSettings: a permission is none.
        Conflict: nobody active could manage accounts any more.
    """
    if "permissions" in changes:
        changes = {**changes, "permissions": check_permissions(changes["permissions"])}
    async with db.transaction() as connection:
        accounts = {row["name"]: row for row in await _locked(connection, name)}
        if name not in accounts:
            raise _missing(name)
        wanted = {**accounts[name], **changes}
        keepers = [one for one, account in accounts.items() if _is_keeper(account)]
        if keepers == [name] and not _is_keeper(wanted):
            raise Conflict(f"{name} is the last active account that may manage accounts")
        [saved] = await fetch(connection, _UPDATE, wanted)
        if not wanted["is_active"]:
            await end_sessions(connection, name)
        detail = {key: wanted[key] for key in changes}
        await audit.record(connection, actor=actor, action="user.changed", target=f"user/{name}", detail=detail)
    return saved


async def _locked(connection: AsyncConnection[Any], name: str) -> list[Row]:
    """The account, and the active ones that may manage accounts; none of them changes until the transaction's end. Who
    waits here for another change sees what it has left. All are locked at once, by name: whoever locked some first and
    others later could wait for somebody who waits for them."""
    return await fetch(connection, _LOCK, {"name": name, "keeper": KEEPER})


def _is_keeper(account: Row) -> bool:
    return account["is_active"] and KEEPER in account["permissions"]


async def set_password(
    db: Database,
    name: str,
    password: str | None = None,
    *,
    actor: str,
    must_change: bool = True,
    proven: str | None = None,
) -> str:
    """Gives an account a new password and ends its sessions; the password, one that was made where none is given.

    ``proven``: the hash of the present one, where that was asked for.

    Raises:
        NotFound: there is no such account.
        InvalidSettings: the password is too short or too long.
        InvalidCredentials: the present password is not what was proven any more.
    """
    chosen = check_password(password) if password is not None else generate_password()
    hashed = await hash_password(chosen)
    params = {"name": name, "hash": hashed, "must_change": must_change, "proven": proven}
    async with db.transaction() as connection:
        if not await fetch(connection, _RENEW, params):
            raise InvalidCredentials() if proven else _missing(name)
        await end_sessions(connection, name)
        await audit.record(connection, actor=actor, action="user.password_set", target=f"user/{name}")
    return chosen


async def end_sessions(connection: AsyncConnection[Any], name: str) -> int:
    """Ends every session of an account, in the caller's transaction; how many."""
    rows = await fetch(
        connection,
        "UPDATE session SET revoked_at = clock_timestamp() "
        "WHERE account = %(name)s AND revoked_at IS NULL RETURNING id",
        {"name": name},
    )
    return len(rows)


def check_name(name: str) -> str:
    """``name`` in lower case.

    Raises:
        InvalidSettings: it cannot be an account's.
    """
    lower = name.strip().lower()
    if not NAME.fullmatch(lower):
        raise _wrong("name", "It must be 1 to 63 letters a-z, digits, dots, dashes or underscores, the first no sign")
    return lower


def check_password(password: str) -> str:
    """``password``.

    Raises:
        InvalidSettings: it is too short, too long, or cannot be typed.
    """
    if len(password) < PASSWORD_CHARACTERS:
        raise _wrong("password", f"It must have at least {PASSWORD_CHARACTERS} characters")
    if len(password.encode("utf-8", "replace")) > PASSWORD_BYTES:
        raise _wrong("password", f"It must have at most {PASSWORD_BYTES} bytes")
    if "\0" in password:
        raise _wrong("password", "It must not hold a NUL")
    return password


def check_permissions(permissions: Iterable[str]) -> list[str]:
    """Each of them once, in their usual order.

    Raises:
        InvalidSettings: one of them is none.
    """
    wanted = set(permissions)
    if unknown := sorted(wanted.difference(PERMISSIONS)):
        raise _wrong("permissions", f"{unknown[0]!r} is not a permission; there are: {', '.join(PERMISSIONS)}")
    return [one for one in PERMISSIONS if one in wanted]


def _wrong(field: str, words: str) -> InvalidSettings:
    return InvalidSettings(f"{field}: {words}", errors=[FieldError(field, "invalid", words)])


def _missing(name: str) -> NotFound:
    return NotFound(f"There is no account {name}")


async def ensure_ingest_password(db: Database, given: str | None) -> str | None:
    """At start: an environment value wins; else a password is made where there is none.

    Returns a password that was made and must be shown, once.
    """
    current = (await settings.load(db)).ingest_passwords
    if given is not None:
        if not current or not await verify(given, current[0].hash):
            await settings.save(db, {"ingest_passwords": [{"hash": await hash_password(given)}]})
        return None
    if current:
        return None
    return await rotate_ingest_password(db, grace=timedelta(0))


async def rotate_ingest_password(db: Database, *, grace: timedelta, actor: str = audit.COMMAND_LINE) -> str:
    """Makes a new ingest password; the old ones stay valid for ``grace``. Returns the new one, to be shown once."""
    made = generate_password()
    hashed = await hash_password(made)
    async with db.transaction() as connection:
        old = (await settings.locked(connection)).ingest_passwords if grace else []
        until = (await fetch(connection, "SELECT clock_timestamp() AS now"))[0]["now"] + grace
        kept = [
            PasswordHash(hash=one.hash, valid_until=min(one.valid_until, until) if one.valid_until else until)
            for one in old
        ]
        await _keep(connection, [PasswordHash(hash=hashed), *kept])
        detail = {"grace_s": grace.total_seconds()}
        await audit.record(
            connection, actor=actor, action="ingest_password.rotated", target="ingest-password", detail=detail
        )
    return made


async def end_grace(db: Database, *, actor: str) -> int:
    """Ends the validity of ingest passwords that were replaced; how many."""
    async with db.transaction() as connection:
        valid = (await settings.locked(connection)).ingest_passwords
        await _keep(connection, valid[:1])
        await audit.record(connection, actor=actor, action="ingest_password.grace_ended", target="ingest-password")
    return len(valid) - 1 if valid else 0


async def _keep(connection: AsyncConnection[Any], passwords: list[PasswordHash]) -> None:
    await settings.write(connection, {"ingest_passwords": [one.model_dump(mode="json") for one in passwords]})
