"""Backups: what is in them and what is not, how they come back, and what becomes of one that cannot be made."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import anyio
import psycopg
import pytest

from photochanger import (
    accounts,
    agreement,
    backups,
    dumps,
    jobs,
    media,
    restoring,
    retention,
    schema,
    settings,
    tarball,
    templates,
    tokens,
    vault,
)
from photochanger.backups import Made
from photochanger.cli.backups import check
from photochanger.config import Config, ConfigError
from photochanger.db import Database
from photochanger.failures import Conflict, InternalError, InvalidRequest, StorageFull
from photochanger.image_pool import ImagePool
from photochanger.storage import PAYLOADS, RESULTS, TEMPLATES
from photochanger.storage.local import LocalStorage
from tests.conftest import database
from tests.installation import until
from tests.integration.jobs_made import claimed, submitted, succeeded
from tests.integration.test_retention import age, make_old
from tests.photos import photo

pytestmark = pytest.mark.anyio

PROVIDER_KEY = "sk-canary-of-a-provider"
ADMIN_PASSWORD = "canary of an administrator"
INGEST_PASSWORD = "canary-of-the-cameras"


async def made(db: Database, storage: LocalStorage, folder: Path, *, with_results: bool = True) -> Made:
    return await backups.make(
        db, storage, folder / "made.tar", home=folder, with_results=with_results, held=lambda: True
    )


async def template(db: Database, storage: LocalStorage, pool: ImagePool, folder: Path) -> str:
    source = folder / "template.png"
    source.write_bytes(photo(64, 48, "PNG"))
    return str(await templates.add(db, storage, pool, source, name="A frame"))


@pytest.fixture
def fresh(server_url: str) -> Iterator[str]:
    """The URL of another database, empty."""
    yield from database(server_url, "template1")


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    db = Database(url, connections=2, application_name="photochanger cli")
    yield db
    await db.close()


def elsewhere(folder: Path) -> LocalStorage:
    """The pictures' place of another installation."""
    storage = LocalStorage(folder / "other" / "media")
    storage.root.mkdir(parents=True)
    return storage


async def differences(db: Database, storage: LocalStorage) -> list[tuple[str, str]]:
    return [(one.key, one.what) for kind in await agreement.look(db, storage) for one in kind.differences]


async def count(db: Database, table: str) -> int:
    return int((await db.fetch(f"SELECT count(*) AS n FROM {table}"))[0]["n"])


# -- there and back ---------------------------------------------------------------------------------------------------


async def test_what_was_there_comes_back_and_nothing_of_it_acts(
    db: Database, storage: LocalStorage, pool: ImagePool, tmp_path: Path, fresh: str
) -> None:
    done = await succeeded(db, storage, original_s=3600)
    waiting, working = await submitted(db, storage), await submitted(db, storage, original_s=3600)
    await claimed(db, working)
    known = await template(db, storage, pool, tmp_path)
    await db.fetch("INSERT INTO account (name, password_hash) VALUES ('anna', 'hash')")
    await db.fetch(
        "INSERT INTO session (id, account, kind, expires_at, address, user_agent) "
        "VALUES (gen_random_uuid(), 'anna', 'api', now() + interval '1 day', '::1', '')"
    )
    await db.fetch("WITH one AS (INSERT INTO dramatiq.worker (host, pid, threads) VALUES ('here', 1, 1) RETURNING id) "
                   "INSERT INTO limit_use SELECT 'calls/x/at-once', 'y', 1, now(), id FROM one")  # fmt: skip
    copy = await made(db, storage, tmp_path)
    assert (copy.path.stat().st_mode & 0o777, copy.manifest.left_out) == (0o600, [])
    other = elsewhere(tmp_path)
    async with opened(fresh) as restored:
        manifest = await restoring.restore(restored, other, copy.path, replace=False)
        assert manifest.counts == {"jobs": 3, "slots": 15, "accounts": 1, "templates": 1, "pictures": 2}
        assert await differences(restored, other) == []
        assert await settings.wrong_media_root(restored, other) is None
        for table in ("dramatiq.queue", "dramatiq.worker", "session", "limit_use", "lease"):
            assert await count(restored, table) == 0
        found = {str(row["id"]): row for row in await restored.fetch("SELECT * FROM job")}
        result = other.path(found[str(done)]["result_file_path"])
        assert result.read_bytes() == storage.path(f"{RESULTS}/{done}.jpg").read_bytes()
        assert [key for key, _ in other.keys(TEMPLATES)] == [f"{TEMPLATES}/{known}.png"]
        await restored.fetch("UPDATE job SET expires_at = now() WHERE NOT is_finalized")
        assert await retention.expire_overdue(restored, other) == 2
        for one in (waiting, working):
            row = await jobs.find(restored, one)
            assert row is not None
            assert row["status"] == "timed_out"
        assert await differences(restored, other) == []
        [entry] = await restored.fetch("SELECT action, target FROM audit ORDER BY id DESC LIMIT 1")
        assert entry == {"action": "backup.restored", "target": "backup/made.tar"}


async def test_no_secret_is_in_it(
    db: Database, storage: LocalStorage, pool: ImagePool, config: Config, tmp_path: Path, server_url: str
) -> None:
    keys = tokens.master_keys(config)
    await vault.store(db, keys, "openai", PROVIDER_KEY)
    await accounts.create_first_admin(db, ADMIN_PASSWORD)
    await accounts.ensure_ingest_password(db, INGEST_PASSWORD)
    await media.register(db, storage, pool, _picture(storage), "image/jpeg", max_pixels=10**6, ttl_s=60, actor="anna")
    [published] = await db.fetch("SELECT id FROM media_object")
    copy = await made(db, storage, tmp_path)
    dump = tmp_path / "database.dump"
    with copy.path.open("rb") as file:
        for name, _, chunks in tarball.entries(file):
            if name == tarball.DUMP:
                dump.write_bytes(b"".join(chunks))
    program = dumps.folder(await schema.server_version(db)) / "pg_restore"
    told = (await anyio.run_process([program, "--file=-", dump])).stdout
    assert b"openai" in told
    assert b"argon2id" in told
    [(_, line)] = [line.split(":") for line in (config.home / "master.key").read_text().split()]
    for secret in (PROVIDER_KEY, ADMIN_PASSWORD, INGEST_PASSWORD, published["id"], line):
        assert secret.encode() not in told
        assert secret.encode() not in copy.path.read_bytes()


def _picture(storage: LocalStorage) -> Path:
    path = storage.temporary()
    path.write_bytes(photo(64, 48))
    return path


async def test_what_is_not_in_the_file_is_let_go_of(
    db: Database, storage: LocalStorage, pool: ImagePool, tmp_path: Path, fresh: str
) -> None:
    kept, gone = await succeeded(db, storage), await succeeded(db, storage)
    await template(db, storage, pool, tmp_path)
    [(lost, _)] = storage.keys(TEMPLATES)
    storage.delete(f"{RESULTS}/{gone}.jpg")
    storage.delete(lost)
    copy = await made(db, storage, tmp_path)
    assert set(copy.manifest.left_out) == {f"{RESULTS}/{gone}.jpg", lost}
    other = elsewhere(tmp_path)
    async with opened(fresh) as restored:
        await restoring.restore(restored, other, copy.path, replace=False)
        rows = await restored.fetch(
            "SELECT id, result_file_path IS NULL AS let_go, result_expires_at <= now() AS over FROM job"
        )
        assert {row["id"]: (row["let_go"], row["over"]) for row in rows} == {kept: (False, False), gone: (True, True)}
        assert await differences(restored, other) == []


async def test_results_may_be_left_out_and_those_past_their_time_are(
    db: Database, storage: LocalStorage, pool: ImagePool, tmp_path: Path
) -> None:
    await succeeded(db, storage)
    await age(db, await succeeded(db, storage), 73 * 3600)
    await template(db, storage, pool, tmp_path)
    assert (await made(db, storage, tmp_path, with_results=False)).manifest.counts["pictures"] == 1
    assert (await made(db, storage, tmp_path)).manifest.counts["pictures"] == 2


async def test_an_older_backup_is_migrated(empty_database: str, tmp_path: Path, fresh: str) -> None:
    schema.migrate(empty_database, "0005")
    storage = elsewhere(tmp_path)
    storage.prepare()
    async with opened(empty_database) as old, opened(fresh) as restored:
        copy = await made(old, storage, tmp_path)
        assert copy.manifest.migration == "0005"
        await restoring.restore(restored, storage, copy.path, replace=False)
        assert await schema.current(restored) == schema.head()


async def test_replacing_leaves_nothing_of_what_was_there(
    db: Database, storage: LocalStorage, pool: ImagePool, tmp_path: Path
) -> None:
    await succeeded(db, storage)
    copy = await made(db, storage, tmp_path)
    later = await succeeded(db, storage)
    await template(db, storage, pool, tmp_path)
    for kind in (RESULTS, TEMPLATES):
        for key, _ in storage.keys(kind):
            os.utime(storage.path(key), (0, 0))
    await db.fetch("CREATE TABLE of_a_later_version (job uuid REFERENCES job)")
    async with opened(db.url) as same:
        await restoring.restore(same, storage, copy.path, replace=True)
    assert await jobs.find(db, later) is None
    assert (len(storage.keys(RESULTS)), storage.keys(TEMPLATES)) == (1, [])
    assert await db.fetch("SELECT to_regclass('of_a_later_version') AS name") == [{"name": None}]
    assert await differences(db, storage) == []


# -- refused ----------------------------------------------------------------------------------------------------------


def rewritten(path: Path, **changes: object) -> Path:
    """A backup with another manifest, or half of its dump, and right checksums."""
    target = path.with_name("rewritten.tar")
    with path.open("rb") as source, target.open("wb") as file:
        manifest = tarball.verified(source)
        writer = tarball.Writer(file, lambda: None)
        for name, size, chunks in tarball.entries(source):
            data = b"".join(chunks)
            if name != tarball.MANIFEST:
                half = name == tarball.DUMP and changes.get("half")
                writer.add(name, [data[: size // 2] if half else data])
        writer.finish(manifest.model_copy(update={**changes, "files": writer.files}))
    return target


async def test_what_does_not_fit_is_refused_and_changes_nothing(
    db: Database, storage: LocalStorage, tmp_path: Path, fresh: str
) -> None:
    await succeeded(db, storage)
    copy = (await made(db, storage, tmp_path)).path
    other = elsewhere(tmp_path)
    async with opened(fresh) as target:
        with pytest.raises(InvalidRequest, match="newer than this version knows"):
            await restoring.restore(target, other, rewritten(copy, migration="9999"), replace=False)
        with pytest.raises(InvalidRequest, match="PostgreSQL 99"):
            await restoring.restore(target, other, rewritten(copy, postgresql=99), replace=False)
        async with opened(db.url) as full:
            with pytest.raises(Conflict, match="not empty: with --replace"):
                await restoring.restore(full, other, copy, replace=False)
        with (
            psycopg.connect(fresh, application_name="photochanger worker"),
            pytest.raises(Conflict, match="photochanger worker"),
        ):
            await restoring.restore(target, other, copy, replace=False)
        assert await target.fetch("SELECT FROM pg_tables WHERE schemaname = 'public'") == []
    assert list(other.root.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"migration": "zzz"}, "newer than this version knows"),
        ({"postgresql": 99}, "postgresql-client-99"),
        ({"postgresql": 0}, "not one that this version knows"),
        ({"counts": {"jobs": -1}}, "not one that this version knows"),
    ],
)
async def test_a_look_at_a_backup_finds_what_no_restore_here_would_take(
    db: Database, storage: LocalStorage, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    copy = (await made(db, storage, tmp_path)).path
    assert check(copy) == 0
    with pytest.raises((InvalidRequest, ConfigError), match=words):
        check(rewritten(copy, **changes))


async def test_a_restore_that_fails_half_way_leaves_everything_as_it_was(
    db: Database, storage: LocalStorage, tmp_path: Path
) -> None:
    before = await succeeded(db, storage)
    copy = rewritten((await made(db, storage, tmp_path)).path, half=True)
    storage.delete(f"{RESULTS}/{before}.jpg")
    later = await succeeded(db, storage)
    async with opened(db.url) as same:
        with pytest.raises(InternalError, match="is as it was"):
            await restoring.restore(same, storage, copy, replace=True)
    assert await jobs.find(db, later) is not None
    assert [key for key, _ in storage.keys(RESULTS)] == [f"{RESULTS}/{later}.jpg"]
    assert storage.keys("tmp") == []


async def test_a_restore_that_one_wants_to_stop_too_late_is_finished(
    db: Database, storage: LocalStorage, tmp_path: Path, fresh: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await succeeded(db, storage)
    path, other = (await made(db, storage, tmp_path)).path, elsewhere(tmp_path)
    load, begun, go_on = restoring._load, threading.Event(), threading.Event()

    def held(*how: Any) -> None:
        begun.set()
        assert go_on.wait(30)
        load(*how)

    monkeypatch.setattr(restoring, "_load", held)
    async with opened(fresh) as target:
        restored = asyncio.create_task(restoring.restore(target, other, path, replace=False))
        assert await asyncio.to_thread(begun.wait, 30)
        restored.cancel()
        go_on.set()
        await restored
        assert await differences(target, other) == []


# -- whether files and rows agree -------------------------------------------------------------------------------------


async def test_every_difference_is_found_and_what_may_still_get_its_row_is_none(
    db: Database, storage: LocalStorage
) -> None:
    missing, differs, shorter, fine = [await succeeded(db, storage) for _ in range(4)]
    waiting = await submitted(db, storage)
    storage.delete(f"{RESULTS}/{missing}.jpg")
    size = storage.path(f"{RESULTS}/{differs}.jpg").stat().st_size
    storage.path(f"{RESULTS}/{differs}.jpg").write_bytes(b"x" * size)
    storage.path(f"{RESULTS}/{shorter}.jpg").write_bytes(b"x")
    storage.delete(f"{PAYLOADS}/{waiting}.jpg")
    make_old(storage, f"{TEMPLATES}/stray.png")
    storage.path(f"{RESULTS}/young.jpg").write_bytes(b"x")
    assert sorted(await differences(db, storage)) == sorted(
        [
            (f"{TEMPLATES}/stray.png", "no row"),
            (f"{RESULTS}/{missing}.jpg", "missing"),
            (f"{RESULTS}/{differs}.jpg", "differs"),
            (f"{RESULTS}/{shorter}.jpg", "differs"),
            (f"{PAYLOADS}/{waiting}.jpg", "missing"),
        ]
    )
    assert fine


# -- not made, and kept -----------------------------------------------------------------------------------------------


async def test_the_reserve_for_photos_is_not_touched(db: Database, storage: LocalStorage, tmp_path: Path) -> None:
    await settings.save(db, {"disk_reserve_bytes": 10**18})
    with pytest.raises(StorageFull, match="kept for photos"):
        await made(db, storage, tmp_path)
    assert list(tmp_path.glob("*.tar")) + list(tmp_path.glob(".*.part")) == []
    current, apart = await settings.load(db), Path("/proc")
    backups._room(tmp_path, (apart, apart), current)(1)
    for others in ((apart, tmp_path), (tmp_path, apart)):
        with pytest.raises(StorageFull, match="kept for photos"):
            backups._room(tmp_path, others, current)(1)


async def test_a_pg_dump_that_dies_without_a_word_is_told(
    db: Database, storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "pg_dump"
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    program.chmod(0o700)
    monkeypatch.setattr(dumps, "folder", lambda server: tmp_path)
    with pytest.raises(InternalError, match="pg_dump: it ended with -9"):
        await made(db, storage, tmp_path)
    assert list(tmp_path.glob("*.tar")) + list(tmp_path.glob(".*.part")) == []


def command(db: Database, config: Config, *words: str, most_bytes: int | None = None) -> subprocess.Popen[str]:
    def limited() -> None:
        if most_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    return subprocess.Popen(
        [sys.executable, "-m", "photochanger.cli", "backup", *words],
        env={**os.environ, "PHOTOCHANGER_HOME": str(config.home), "PHOTOCHANGER_DATABASE_URL": db.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limited,
    )


async def large(db: Database, storage: LocalStorage) -> None:
    """A picture that takes a while."""
    job_id = await succeeded(db, storage)
    with storage.path(f"{RESULTS}/{job_id}.jpg").open("wb") as file:
        file.truncate(2 * 1024**3)


async def test_a_disk_that_takes_no_more_leaves_nothing_and_is_told(
    db: Database, storage: LocalStorage, config: Config
) -> None:
    await large(db, storage)
    with command(db, config, most_bytes=1024**2) as running:
        _, said = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "takes no file so large" in said
    assert list(config.backups.iterdir()) == []
    last = await backups.last(db)
    assert last is not None
    assert last["last_result"]["failed"] == "storage_full"
    assert not await backups.is_running(db)


async def test_one_that_was_killed_leaves_nothing_that_looks_whole_and_the_next_one_tidies(
    db: Database, storage: LocalStorage, config: Config
) -> None:
    await large(db, storage)
    with command(db, config) as running:
        until(lambda: backups.written_bytes(config.backups) > 1024**2, within_s=30, what="it is under way")
        running.send_signal(signal.SIGKILL)
    assert backups.kept(config.backups) == []
    assert len(list(config.backups.iterdir())) == 1
    assert await backups.begin(db) is None, "its right has to run out first"
    await db.fetch("DELETE FROM lease")
    await db.fetch("UPDATE job SET result_file_path = NULL")
    with command(db, config) as running:
        told, said = running.communicate(timeout=60)
    assert running.returncode == 0, said
    assert "The master key is not in it" in told
    assert [path.name for path in config.backups.iterdir()] == [one.name for one in backups.kept(config.backups)]
    last = await backups.last(db)
    assert last is not None
    assert last["last_result"]["file"] == backups.kept(config.backups)[0].name


async def test_only_the_oldest_of_our_own_are_deleted(config: Config, tmp_path: Path) -> None:
    folder = config.backups
    folder.mkdir()
    names = [f"photochanger-2026112{day}-050000.tar" for day in range(5)]
    for name in (*names, "photochanger-wedding.tar", "photochanger-20261120-050000.tar.old", "notes.txt"):
        (folder / name).touch()
    assert backups.tidy(folder, keep=2) == names[2::-1]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*names[3:], "photochanger-wedding.tar", "photochanger-20261120-050000.tar.old", "notes.txt"]
    )


def test_a_backup_goes_to_no_disk_that_is_not_there_and_over_no_file(config: Config, tmp_path: Path) -> None:
    unmounted = config.model_copy(update={"backup_root": tmp_path / "unmounted"})
    with pytest.raises(ConfigError, match="is its disk mounted"):
        backups.target(unmounted, None)
    (tmp_path / "there.tar").touch()
    with pytest.raises(ConfigError, match="is there already"):
        backups.target(config, tmp_path / "there.tar")
    assert backups.target(config, tmp_path).parent == tmp_path


# -- when -------------------------------------------------------------------------------------------------------------


async def test_the_nightly_one_is_due_at_its_hour_and_again_when_it_was_missed(db: Database) -> None:
    current = settings.Settings(backup_hour=5, time_zone="Europe/Moscow")
    now = await jobs.now(db)
    first = await backups.next_at(db, current)
    assert first is not None
    assert first > now, "a new installation waits for its first night"
    assert first.astimezone(ZoneInfo("Europe/Moscow")).hour == 5
    await db.fetch(
        "INSERT INTO scheduled_run VALUES ('backup', %(at)s, '{}')", {"at": datetime(2026, 1, 1, tzinfo=UTC)}
    )
    assert await backups.next_at(db, current) == datetime(2026, 1, 1, 2, tzinfo=UTC)
    assert await backups.next_at(db, current.model_copy(update={"backup_nightly": False})) is None
