"""What every store of pictures does, on a disk and in an S3-compatible store."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from pathlib import Path

import pytest

from photochanger import config, readiness, retention
from photochanger.config import ConfigError
from photochanger.db import Database
from photochanger.retention import LET_GO_S
from photochanger.storage import RESULTS, TEMPORARY, StorageAway
from photochanger.storage.local import LocalStorage
from photochanger.storage.opening import open_storage
from photochanger.storage.s3 import COPY_GIVEN_S, COPY_KEPT_S, S3Storage
from tests.stores import Bucket

pytestmark = pytest.mark.anyio

KEY = f"{RESULTS}/one.jpg"
PICTURE = os.urandom(700_000)


@pytest.fixture
def remote(tmp_path: Path, stored: Bucket) -> S3Storage:
    made = S3Storage(tmp_path / "here", stored.env["PHOTOCHANGER_STORE_URL"])
    made.prepare()
    return made


@pytest.fixture(params=["disk", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LocalStorage:
    if request.param == "s3":
        made: LocalStorage = request.getfixturevalue("remote")
        return made
    local = LocalStorage(tmp_path / "media")
    local.prepare()
    return local


def put(store: LocalStorage, key: str = KEY, data: bytes = PICTURE) -> None:
    temporary = store.temporary()
    temporary.write_bytes(data)
    store.adopt(temporary, key, durable=True)
    assert not temporary.exists()


async def test_what_was_stored_is_read(store: LocalStorage) -> None:
    put(store)
    assert store.holds(KEY)
    assert b"".join(store.read(KEY)) == PICTURE
    assert (await store.here(KEY)).read_bytes() == PICTURE
    again = store.temporary()
    again.write_bytes(b"another")
    await store.put(again, KEY, durable=False)
    assert b"".join(store.read(KEY)) == b"another"


async def test_what_is_not_there_is_said_so(store: LocalStorage) -> None:
    assert not store.holds(KEY)
    with pytest.raises(FileNotFoundError):
        list(store.read(KEY))
    with pytest.raises(FileNotFoundError):
        (await store.here(KEY)).read_bytes()
    store.delete(KEY)


async def test_keys_are_never_paths(store: LocalStorage) -> None:
    for key in ("../secret", "results/../../secret", "results/", "/etc/passwd", "results/a/b", "other/a"):
        with pytest.raises(ValueError, match="not a storage key"):
            await store.here(key)
        with pytest.raises(ValueError, match="not a storage key"):
            list(store.read(key))
        with pytest.raises(ValueError, match="not a storage key"):
            store.holds(key)
        with pytest.raises(ValueError, match="not a storage key"):
            store.delete(key)


async def test_what_is_deleted_is_gone(store: LocalStorage) -> None:
    put(store)
    put(store, f"{RESULTS}/two.jpg")
    assert store.delete(KEY, f"{RESULTS}/two.jpg") == 2
    assert not store.holds(KEY)
    with pytest.raises(FileNotFoundError):
        (await store.here(KEY)).read_bytes()
    assert store.keys(RESULTS) == []


async def test_keys_are_listed_with_their_age(store: LocalStorage) -> None:
    put(store)
    store.temporary().write_bytes(b"begun")
    [(key, age_s)] = store.keys(RESULTS)
    assert key == KEY
    assert -2 < age_s < 30  # an S3 store tells whole seconds
    assert len(store.keys(TEMPORARY)) == 1


def test_the_marker_stays_what_it_was(store: LocalStorage) -> None:
    assert len(store.marker()) == 32
    assert store.prepare() == store.marker()


# -- S3 alone ----------------------------------------------------------------------------------------------------


async def test_another_machine_reads_what_this_one_stored(remote: S3Storage, stored: Bucket, tmp_path: Path) -> None:
    other = S3Storage(tmp_path / "there", stored.env["PHOTOCHANGER_STORE_URL"])
    assert other.prepare() == remote.marker()
    put(remote)
    assert b"".join(other.read(KEY)) == PICTURE
    assert not other.path(KEY).exists()  # what is only read leaves no copy
    assert (await other.here(KEY)).read_bytes() == PICTURE
    remote.delete(KEY)
    assert not other.holds(KEY)


async def test_copies_are_given_out_for_a_while_and_deleted_later(remote: S3Storage, stored: Bucket) -> None:
    put(remote)
    copy = remote.path(KEY)
    copy.write_bytes(b"the copy")
    assert (await remote.here(KEY)).read_bytes() == b"the copy"
    old = time.time() - COPY_GIVEN_S - 1
    os.utime(copy, (old, old))
    assert (await remote.here(KEY)).read_bytes() == PICTURE
    remote.sweep()
    assert copy.exists()
    old = time.time() - COPY_KEPT_S - 5
    os.utime(copy, (old, old))
    remote.sweep()
    assert not copy.exists()
    assert (await remote.here(KEY)).read_bytes() == PICTURE


async def test_a_store_that_is_away_is_said_to_be(remote: S3Storage, stored: Bucket, db: Database) -> None:
    put(remote)
    stored.stop()
    temporary = remote.temporary()
    temporary.write_bytes(b"a photo")
    for asked in (
        lambda: remote.adopt(temporary, f"{RESULTS}/three.jpg", durable=True),
        lambda: list(remote.read(KEY)),
        lambda: remote.holds(KEY),
        lambda: remote.delete(KEY),
        lambda: remote.keys(RESULTS),
    ):
        with pytest.raises(StorageAway, match=r"The store of pictures cannot be used: .*") as failed:
            asked()
        for secret in ("secret", stored.name, "127.0.0.1"):
            assert secret not in str(failed.value)
    assert temporary.exists()  # nothing was lost
    away = S3Storage(remote.root.parent, stored.env["PHOTOCHANGER_STORE_URL"])
    assert "cannot be used" in str(await readiness.storage(db, away))
    stored.start()
    away.look()
    remote.adopt(temporary, f"{RESULTS}/three.jpg", durable=True)
    assert await readiness.storage(db, away) is None


async def test_the_pictures_of_a_store_on_this_disk_are_left_alone(tmp_path: Path, stored: Bucket) -> None:
    disk = LocalStorage(tmp_path / "here")
    disk.prepare()
    put(disk)
    os.utime(disk.path(KEY), (0, 0))
    remote = S3Storage(tmp_path / "here", stored.env["PHOTOCHANGER_STORE_URL"])
    remote.prepare()
    remote.sweep()
    assert disk.holds(KEY)


async def test_while_a_store_hangs_it_is_known_to_and_nobody_waits_for_a_deletion(
    remote: S3Storage, stored: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(remote)
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # the system accepts, and nobody ever answers
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        hanging = S3Storage(remote.root.parent, stored.env["PHOTOCHANGER_STORE_URL"])
        began = time.monotonic()
        assert await retention.let_go(hanging, [KEY], kind=RESULTS) == 0
        assert time.monotonic() - began < LET_GO_S + 2
        while hanging.away() is None:
            assert time.monotonic() - began < 10
            await asyncio.sleep(0.05)
    assert remote.holds(KEY)


def test_a_bucket_that_is_not_there_is_said_so(stored: Bucket, tmp_path: Path) -> None:
    with pytest.raises(StorageAway, match="The store of pictures has no such bucket"):
        S3Storage(tmp_path, "s3://another-bucket/studio").prepare()


@pytest.mark.parametrize(
    "value", ["photos", "http://photos/x", "s3://", "s3://key:secret@photos", "s3://photos?region=x"]
)
def test_a_wrong_address_of_a_store_is_said_so(value: str) -> None:
    with pytest.raises(ConfigError, match=r"PHOTOCHANGER_STORE_URL: It must be s3://bucket or s3://bucket/prefix"):
        config.load({"PHOTOCHANGER_STORE_URL": value})


def test_the_environment_says_which_store_it_is(tmp_path: Path, stored: Bucket) -> None:
    disk = open_storage(config.load({"PHOTOCHANGER_HOME": str(tmp_path)}))
    assert type(disk) is LocalStorage
    given = {"PHOTOCHANGER_HOME": str(tmp_path), "PHOTOCHANGER_STORE_URL": stored.env["PHOTOCHANGER_STORE_URL"]}
    assert isinstance(open_storage(config.load(given)), S3Storage)
