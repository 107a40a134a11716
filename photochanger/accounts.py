"""Passwords: administrators' accounts, and the ingest password that cameras send."""

from __future__ import annotations

import asyncio
import secrets
from datetime import timedelta

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

from photochanger import settings
from photochanger.db import Database
from photochanger.settings import PasswordHash

#: argon2id at the library's defaults (RFC 9106's second choice: 64 MiB, 3 passes): about 150 ms on one core here.
_HASHER = PasswordHasher()
#: Hashes at once in a process: each takes 64 MiB and a core.
_AT_ONCE = asyncio.Semaphore(2)
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
FIRST_ADMIN = "admin"


def generate_password() -> str:
    """100 bits in four readable groups, without characters that look alike."""
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(5)) for _ in range(4))


async def hash_password(password: str) -> str:
    async with _AT_ONCE:
        return await asyncio.to_thread(_HASHER.hash, password)


async def verify(password: str, hashed: str) -> bool:
    """Whether ``password`` is the one that was hashed; off the event loop, two at a time."""
    async with _AT_ONCE:
        try:
            return await asyncio.to_thread(_HASHER.verify, hashed, password)
        except (VerifyMismatchError, InvalidHashError):
            return False


async def create_first_admin(db: Database, password: str | None) -> str | None:
    """Creates ``admin`` where no account is; returns the password to print, once. ``None``: there are accounts."""
    if await db.fetch("SELECT FROM account LIMIT 1"):
        return None
    chosen = password or generate_password()
    hashed = await hash_password(chosen)
    made = await db.fetch(
        "INSERT INTO account (name, password_hash) VALUES (%(name)s, %(hash)s) ON CONFLICT DO NOTHING RETURNING name",
        {"name": FIRST_ADMIN, "hash": hashed},
    )
    return chosen if made else None


async def set_admin_password(db: Database, name: str, password: str | None = None) -> str | None:
    """Gives an account a new password, to be changed at the next sign-in; ``None``: no such account."""
    chosen = password or generate_password()
    hashed = await hash_password(chosen)
    rows = await db.fetch(
        "UPDATE account SET password_hash = %(hash)s, must_change = true WHERE name = %(name)s RETURNING name",
        {"name": name, "hash": hashed},
    )
    return chosen if rows else None


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


async def rotate_ingest_password(db: Database, *, grace: timedelta) -> str:
    """Makes a new ingest password; the old ones stay valid for ``grace``. Returns the new one, to be shown once."""
    made = generate_password()
    hashed = await hash_password(made)
    now = (await db.fetch("SELECT clock_timestamp() AS now"))[0]["now"]
    old = (await settings.load(db)).ingest_passwords if grace else []
    until = now + grace
    kept = [
        PasswordHash(hash=one.hash, valid_until=min(one.valid_until, until) if one.valid_until else until)
        for one in old
    ]
    await settings.save(
        db,
        {"ingest_passwords": [one.model_dump(mode="json") for one in (PasswordHash(hash=hashed), *kept)]},
    )
    return made
