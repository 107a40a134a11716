"""Gives a fresh database and home what they lack: slots, keys, media root, first passwords."""

from __future__ import annotations

from dataclasses import dataclass

from photochanger import accounts, settings, slots, tokens, vault
from photochanger.config import Config, ConfigError
from photochanger.db import Database
from photochanger.storage.local import LocalStorage
from photochanger.storage.opening import open_storage


@dataclass(frozen=True)
class Shown:
    """What the first start made and shows once; ``None`` where it was there already."""

    admin_password: str | None
    ingest_password: str | None


async def its_storage(config: Config, db: Database) -> LocalStorage:
    """The store that the environment names.

    Raises:
        ConfigError: it is not the one this database's pictures lie in.
    """
    storage = open_storage(config)
    if refusal := await settings.wrong_media_root(db, storage):
        raise ConfigError(refusal)
    return storage


async def prepare(config: Config) -> Shown:
    """Slots, keys, media root, passwords: whatever a fresh database and home lack."""
    assert config.database_url is not None
    db = Database(config.database_url, connections=2, application_name="photochanger up")
    try:
        await vault.adopt_master_keys(db, tokens.master_keys(config))
        await slots.create_first(db)
        try:
            storage = await its_storage(config, db)
            if (await settings.load(db)).media_marker is None:
                await settings.save(db, {"media_marker": storage.prepare()})
        except OSError as error:
            raise ConfigError(f"PHOTOCHANGER_MEDIA_ROOT: {config.media} cannot be used: {error.strerror}") from None
        async with db.transaction() as connection:
            await settings.set_lanes(connection)
        given = config.ingest_password.get_secret_value() if config.ingest_password else None
        admin = config.admin_password.get_secret_value() if config.admin_password else None
        made_admin = await accounts.create_first_admin(db, admin)
        return Shown(made_admin, await accounts.ensure_ingest_password(db, given))
    finally:
        await db.close()
