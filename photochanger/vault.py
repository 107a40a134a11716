"""Provider keys at rest: envelope-encrypted in the database, readable only with a master key that is not there.

Each secret is sealed under a data key of its own (AES-256-GCM), and the data key under a key derived from a master
key. Both are bound to their row (its id and provider are the additional data), so that a row copied over another
opens nothing. Rotating the master keys seals the small data keys anew; the secrets stay as they lie.
"""

from __future__ import annotations

import hashlib
import os
from uuid import UUID, uuid4

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from photochanger import audit, breakers, settings
from photochanger.config import ConfigError
from photochanger.db import Database, Row, fetch
from photochanger.failures import InternalError, Unavailable
from photochanger.tokens import MasterKeys

PURPOSE = "vault"
_NONCE_BYTES = 12
_KEY_BYTES = 32


async def wrong_master_key(db: Database, keys: MasterKeys) -> str | None:
    """Why this process must not seal or open anything: its master keys are not the ones this database belongs to.
    While the database is away there is nothing to compare with."""
    try:
        checks = (await settings.load(db)).master_key_checks
    except Unavailable:
        return None
    if not checks or any(_check(keys, key_id) == check for key_id, check in checks.items()):
        return None
    return (
        "The master keys here are not the ones this database's secrets are sealed with: "
        "give this process the installation's PHOTOCHANGER_HOME or PHOTOCHANGER_MASTER_KEY "
        "(if they are lost for good: photochanger secrets reset)"
    )


async def reset(db: Database, keys: MasterKeys) -> int:
    """Forgets every stored key and whose master keys they were sealed with; how many. For lost master keys."""
    async with db.transaction() as connection:
        rows = await fetch(connection, "DELETE FROM provider_secret RETURNING provider")
        for row in rows:
            target = f"provider/{row['provider']}"
            await audit.record(connection, actor=audit.COMMAND_LINE, action="provider_key.deleted", target=target)
    await settings.save(db, {"master_key_checks": {}})
    await adopt_master_keys(db, keys)
    return len(rows)


async def adopt_master_keys(db: Database, keys: MasterKeys) -> None:
    """Makes the newest master key known as this database's own.

    Raises:
        ConfigError: the database belongs to others.
    """
    if refusal := await wrong_master_key(db, keys):
        raise ConfigError(refusal)
    checks = (await settings.load(db)).master_key_checks
    if keys.newest not in checks:
        await settings.save(db, {"master_key_checks": {**checks, keys.newest: _check(keys, keys.newest)}})


def _check(keys: MasterKeys, key_id: str) -> str | None:
    """What tells a master key from another of the same id, and nothing else about it."""
    derived = keys.derived("check", key_id)
    return hashlib.sha256(derived).hexdigest()[:32] if derived is not None else None


async def store(db: Database, keys: MasterKeys, provider: str, secret: str, *, actor: str = audit.COMMAND_LINE) -> None:
    """Seals ``secret`` as the provider's key, over the one that was there. Every process uses it from its next call on.

    Raises:
        ConfigError: the master keys here are not this database's.
    """
    await adopt_master_keys(db, keys)
    row_id = uuid4()
    data_key = os.urandom(_KEY_BYTES)
    key_id = keys.newest
    async with db.transaction() as connection:
        await fetch(
            connection,
            "INSERT INTO provider_secret (id, provider, key_id, wrapped_key, sealed) "
            "VALUES (%(id)s, %(provider)s, %(key_id)s, %(wrapped_key)s, %(sealed)s) "
            "ON CONFLICT (provider) DO UPDATE SET id = EXCLUDED.id, key_id = EXCLUDED.key_id, "
            "wrapped_key = EXCLUDED.wrapped_key, sealed = EXCLUDED.sealed, updated_at = clock_timestamp()",
            {
                "id": row_id,
                "provider": provider,
                "key_id": key_id,
                "wrapped_key": _seal(_wrapping(keys, key_id), data_key, _bound(row_id, provider)),
                "sealed": _seal(data_key, secret.encode(), _bound(row_id, provider)),
            },
        )
        await audit.record(connection, actor=actor, action="provider_key.set", target=f"provider/{provider}")
    await breakers.reset(db, provider)


async def read(db: Database, keys: MasterKeys, provider: str) -> str | None:
    """The provider's key; ``None`` where none was stored.

    Raises:
        InternalError: the master key that sealed it is not here, or the row was tampered with.
    """
    rows = await db.fetch(
        "SELECT id, provider, key_id, wrapped_key, sealed FROM provider_secret WHERE provider = %(provider)s",
        {"provider": provider},
    )
    if not rows:
        return None
    row = rows[0]
    return _open(_data_key(keys, row), row["sealed"], _bound(row["id"], provider), provider).decode()


async def forget(db: Database, provider: str, *, actor: str = audit.COMMAND_LINE) -> bool:
    """Deletes the provider's stored key; whether there was one."""
    async with db.transaction() as connection:
        gone = await fetch(
            connection, "DELETE FROM provider_secret WHERE provider = %(provider)s RETURNING id", {"provider": provider}
        )
        if gone:
            await audit.record(connection, actor=actor, action="provider_key.deleted", target=f"provider/{provider}")
    return bool(gone)


async def listing(db: Database) -> list[Row]:
    """Which providers have a stored key, under which master key, since when; never the key."""
    return await db.fetch("SELECT provider, key_id, updated_at FROM provider_secret ORDER BY provider")


async def rotate(db: Database, keys: MasterKeys) -> int:
    """Seals every data key under the newest master key; how many were not yet.

    One row at a time, so that it may be stopped and started again anywhere; a key that is stored meanwhile wins.

    Raises:
        ConfigError: the master keys here are not this database's.
    """
    await adopt_master_keys(db, keys)
    count = 0
    rows = await db.fetch(
        "SELECT id, provider, key_id, wrapped_key FROM provider_secret WHERE key_id <> %(newest)s ORDER BY id",
        {"newest": keys.newest},
    )
    for row in rows:
        sealed = _seal(_wrapping(keys, keys.newest), _data_key(keys, row), _bound(row["id"], row["provider"]))
        count += len(
            await db.fetch(
                "UPDATE provider_secret SET key_id = %(newest)s, wrapped_key = %(sealed)s "
                "WHERE id = %(id)s AND wrapped_key = %(old)s RETURNING id",
                {"newest": keys.newest, "sealed": sealed, "id": row["id"], "old": row["wrapped_key"]},
            )
        )
    return count


async def pending(db: Database, keys: MasterKeys) -> bool:
    """Whether some key is still sealed under an older master key: a rotation was cut short."""
    return any(row["key_id"] != keys.newest for row in await listing(db))


def _data_key(keys: MasterKeys, row: Row) -> bytes:
    return _open(
        _wrapping(keys, row["key_id"]), row["wrapped_key"], _bound(row["id"], row["provider"]), row["provider"]
    )


def _wrapping(keys: MasterKeys, key_id: str) -> bytes:
    key = keys.derived(PURPOSE, key_id)
    if key is None:
        raise InternalError(f"The master key {key_id}, which a provider's key was sealed under, is not here")
    return key


def _bound(row_id: UUID, provider: str) -> bytes:
    return f"provider_secret\n{row_id}\n{provider}".encode()


def _seal(key: bytes, plain: bytes, bound: bytes) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, bound)


def _open(key: bytes, sealed: bytes, bound: bytes, provider: str) -> bytes:
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound)
    except (InvalidTag, ValueError):
        words = f"The stored key of {provider} cannot be opened: its row or its master key was changed"
        raise InternalError(words) from None
