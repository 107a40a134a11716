"""Providers' keys at rest: sealed, bound to their row, rotated under load, never to be found."""

from __future__ import annotations

import asyncio
import base64
import os
from pathlib import Path

import pytest

from photochanger import vault
from photochanger.config import Config, ConfigError
from photochanger.db import Database
from photochanger.failures import InternalError
from photochanger.tokens import MasterKeys, add_master_key, master_keys, rotating

pytestmark = pytest.mark.anyio
CANARY = "canary-7f3a9c-secret-key"


async def test_a_stored_key_comes_back_and_is_nowhere_in_the_row(db: Database, config: Config) -> None:
    keys = master_keys(config)
    assert await vault.read(db, keys, "gemini") is None
    await vault.store(db, keys, "gemini", CANARY)
    assert await vault.read(db, keys, "gemini") == CANARY
    (row,) = await db.fetch("SELECT * FROM provider_secret")
    assert CANARY.encode() not in b"".join(value for value in row.values() if isinstance(value, bytes))
    assert CANARY not in str(await vault.listing(db))


async def test_a_new_key_takes_the_old_ones_place(db: Database, config: Config) -> None:
    keys = master_keys(config)
    await vault.store(db, keys, "gemini", "first-key")
    await vault.store(db, keys, "gemini", "second-key")
    assert await vault.read(db, keys, "gemini") == "second-key"
    assert await vault.forget(db, "gemini")
    assert not await vault.forget(db, "gemini")
    assert await vault.read(db, keys, "gemini") is None


async def test_the_same_key_is_never_sealed_the_same_twice(db: Database, config: Config) -> None:
    keys = master_keys(config)
    for provider in ("gemini", "openai"):
        await vault.store(db, keys, provider, CANARY)
    first, second = await db.fetch("SELECT wrapped_key, sealed FROM provider_secret")
    assert first["sealed"] != second["sealed"]
    assert first["wrapped_key"] != second["wrapped_key"]


@pytest.mark.parametrize("columns", ["wrapped_key", "sealed", "wrapped_key, sealed", "id"])
async def test_a_row_that_was_tampered_with_opens_nothing(columns: str, db: Database, config: Config) -> None:
    keys = master_keys(config)
    await vault.store(db, keys, "gemini", "the-key-of-gemini")
    await vault.store(db, keys, "openai", "the-key-of-openai")
    if columns == "id":
        await db.fetch("UPDATE provider_secret SET id = gen_random_uuid()")
    else:
        pairs = ", ".join(f"{column} = other.{column}" for column in columns.split(", "))
        await db.fetch(
            f"UPDATE provider_secret AS mine SET {pairs} FROM provider_secret AS other "
            "WHERE mine.provider = 'gemini' AND other.provider = 'openai'"
        )
    with pytest.raises(InternalError, match="gemini cannot be opened"):
        await vault.read(db, keys, "gemini")


async def test_another_master_key_opens_nothing(db: Database, config: Config) -> None:
    await vault.store(db, master_keys(config), "gemini", CANARY)
    with pytest.raises(InternalError):
        await vault.read(db, MasterKeys({"k1": os.urandom(32)}), "gemini")
    with pytest.raises(InternalError, match="master key k1"):
        await vault.read(db, MasterKeys({"k2": os.urandom(32)}), "gemini")


async def test_a_rotation_seals_every_key_anew_and_running_processes_follow(db: Database, config: Config) -> None:
    running = master_keys(config)
    for provider in ("gemini", "openai"):
        await vault.store(db, running, provider, f"key of {provider}")
    sealed = await db.fetch("SELECT sealed FROM provider_secret ORDER BY provider")
    newest = add_master_key(config)
    assert list(newest.keys) == ["k2", "k1"]
    assert await vault.pending(db, newest)
    assert await vault.rotate(db, newest) == 2
    assert await vault.rotate(db, newest) == 0
    assert not await vault.pending(db, newest)
    assert await db.fetch("SELECT sealed FROM provider_secret ORDER BY provider") == sealed
    assert "k2" not in running.keys
    assert await vault.read(db, running, "openai") == "key of openai"
    without_old = MasterKeys({"k2": newest.keys["k2"]})
    assert await vault.read(db, without_old, "gemini") == "key of gemini"


async def test_a_key_stored_during_a_rotation_wins(db: Database, config: Config) -> None:
    keys = master_keys(config)
    for number in range(10):
        await vault.store(db, keys, "gemini", f"old {number}")
        newest = add_master_key(config)
        await asyncio.gather(vault.rotate(db, newest), vault.store(db, keys, "gemini", f"new {number}"))
        await vault.rotate(db, newest)
        assert await vault.read(db, newest, "gemini") == f"new {number}"
        keys = newest


def test_two_rotations_do_not_run_at_once(config: Config) -> None:
    master_keys(config)
    with rotating(config), pytest.raises(ConfigError, match="another rotation runs"), rotating(config):
        pass
    with rotating(config):
        pass


async def test_keys_added_one_after_the_other_are_found_at_once(db: Database, config: Config) -> None:
    running = master_keys(config)
    for _ in range(5):
        newest = add_master_key(config)
        await vault.store(db, newest, "gemini", f"under {newest.newest}")
        assert await vault.read(db, running, "gemini") == f"under {newest.newest}"


async def test_foreign_master_keys_seal_nothing(db: Database, config: Config, tmp_path: Path) -> None:
    await vault.store(db, master_keys(config), "gemini", CANARY)
    elsewhere = master_keys(Config(home=tmp_path / "elsewhere"))
    assert elsewhere.newest == "k1"
    for attempt in (vault.store(db, elsewhere, "gemini", "another"), vault.rotate(db, elsewhere)):
        with pytest.raises(ConfigError, match="not the ones this database's secrets are sealed with"):
            await attempt
    assert await vault.wrong_master_key(db, elsewhere)
    assert await vault.wrong_master_key(db, master_keys(config)) is None
    assert await vault.read(db, master_keys(config), "gemini") == CANARY
    assert await vault.reset(db, elsewhere) == 1
    assert await vault.wrong_master_key(db, elsewhere) is None


def test_a_new_master_key_goes_before_the_others_in_a_private_file(tmp_path: Path) -> None:
    config = Config(home=tmp_path)
    first = master_keys(config)
    second = add_master_key(config)
    assert second.newest == "k2"
    assert second.keys["k1"] == first.keys["k1"]
    assert (tmp_path / "master.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["master.key"]
    assert first.derived("x", "k2") == second.derived("x", "k2")


def test_keys_of_the_environment_are_rotated_there(tmp_path: Path) -> None:
    given = f"k1:{base64.b64encode(b'x' * 32).decode()}"
    with pytest.raises(ConfigError, match="PHOTOCHANGER_MASTER_KEY is set"):
        add_master_key(Config.model_validate({"home": tmp_path, "master_key": given}))
