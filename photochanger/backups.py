"""What a backup holds, when one is due, and which are kept.

A backup is one file (``tarball``): the database as of one instant and the pictures that its rows name, templates and
results. Master keys are not in it, nor what means nothing elsewhere or later: messages, leases, sessions, open
galleries, temporary media. It is made beside the photos' work, by a process of its own that gives way to them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from psycopg.types.json import Jsonb

from photochanger import __version__, audit, dumps, leases, logs, schema, settings
from photochanger.config import PROJECT, Config, ConfigError
from photochanger.db import Database, Row, fetch
from photochanger.failures import Conflict, Failure, InternalError, StorageFull
from photochanger.process import die_with_parent
from photochanger.settings import Settings
from photochanger.storage.local import LocalStorage, fsync
from photochanger.tarball import CHUNK, DUMP, MEDIA, NAME, STEP_BYTES, Manifest, Writer

#: One backup at a time, over all machines; its row in ``scheduled_run``.
TASK = "backup"
LEASE_S = 60.0
RENEW_S = 10.0
_OURS = re.compile(r"photochanger-(\d{8}-\d{6})\.tar")
_STAMP = "%Y%m%d-%H%M%S"
_PARTIAL = ".photochanger-*.part"
#: Tables whose rows mean nothing after a restore, or must not come back.
LEFT_OUT = ("dramatiq.queue", "public.lease", "public.session", "public.gallery_share", "public.media_object")

_TEMPLATES = "SELECT storage_key AS key, bytes, created_at AS at FROM template_media"
_RESULTS = """
SELECT result_file_path AS key, result_bytes AS bytes, finalized_at AS at FROM job
WHERE result_file_path IS NOT NULL AND result_expires_at > clock_timestamp()
"""
_COUNTS = """
SELECT (SELECT count(*) FROM job) AS jobs, (SELECT count(*) FROM slot) AS slots,
       (SELECT count(*) FROM account) AS accounts, (SELECT count(*) FROM template_media) AS templates
"""


def _pictures(*, with_results: bool) -> str:
    return f"{_TEMPLATES} UNION ALL {_RESULTS}" if with_results else _TEMPLATES


# -- making one -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Made:
    """A finished backup."""

    path: Path
    bytes: int
    manifest: Manifest


def target(config: Config, given: Path | None) -> Path:
    """Where a backup goes: to ``given``, or under a name of its own into it where it is a folder; else among those
    that are kept.

    Raises:
        ConfigError: the folder is not there, or the file is there already.
    """
    if given is None and config.backup_root is None:
        config.backups.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = given or config.backups
    if given is None or path.is_dir():
        path = path / f"photochanger-{datetime.now(UTC):{_STAMP}}.tar"
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent} is not there; is its disk mounted?")
    if path.exists():
        raise ConfigError(f"{path} is there already")
    return path


async def make(
    db: Database, storage: LocalStorage, path: Path, *, home: Path, with_results: bool, held: Callable[[], bool]
) -> Made:
    """Makes a backup as ``path``, while the server works and we are the one who may (``held``). ``home``: where the
    embedded database is.

    The database is dumped as of one instant, then the pictures are copied that its rows named then. One that has gone
    since, or cannot be read, is left out and listed in the manifest.

    Raises:
        StorageFull: there is no room, or none beside what is kept in reserve for photos.
        ConfigError: the folder cannot be written, or PostgreSQL's programs are missing.
        InternalError: pg_dump failed.
        Conflict: another backup has taken over.
    """
    for left in path.parent.glob(_PARTIAL):  # by one that was killed
        left.unlink(missing_ok=True)
    room = _room(path.parent, (storage.root, home), await settings.load(db))
    partial = path.parent / f".photochanger-{os.urandom(4).hex()}.part"
    try:
        room(await expected_bytes(db, with_results=with_results))

        def step() -> None:
            if not held():
                raise Conflict("Another backup has taken over, or this one was stopped")
            room(STEP_BYTES)

        with os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            manifest = await _write(db, storage, Writer(file, step), with_results=with_results)
        await asyncio.to_thread(_publish, partial, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"The disk of {path.parent} is full") from error
        if error.errno == errno.EFBIG:
            raise StorageFull(f"The disk of {path.parent} takes no file so large (FAT32? exFAT does)") from error
        raise ConfigError(f"{path.parent} cannot be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):  # on a disk that cannot be written there is none
            partial.unlink(missing_ok=True)
    return Made(path, path.stat().st_size, manifest)


async def _write(db: Database, storage: LocalStorage, writer: Writer, *, with_results: bool) -> Manifest:
    server = await schema.server_version(db)
    async with db.transaction() as connection:  # for as long as the dump takes: it sees what these queries see
        await connection.execute(b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        await connection.execute(b"SET LOCAL idle_in_transaction_session_timeout = 0")
        [told] = await fetch(
            connection,
            "SELECT pg_export_snapshot() AS snapshot, clock_timestamp() AS now, version_num FROM alembic_version",
        )
        [counts] = await fetch(connection, _COUNTS)
        sql = f"SELECT key FROM ({_pictures(with_results=with_results)}) AS picture ORDER BY at, key"  # noqa: S608
        cursor = await connection.execute(sql.encode())
        keys = [key for (key,) in await cursor.fetchall()]
        await asyncio.to_thread(_add_dump, writer, db.url, server, told["snapshot"])
    left_out = await asyncio.to_thread(_copy, storage, writer, keys)
    manifest = Manifest(
        version=__version__,
        migration=told["version_num"],
        postgresql=server,
        made_at=told["now"],
        counts={**counts, "pictures": len(keys) - len(left_out)},
        files=writer.files,
        left_out=left_out,
    )
    await asyncio.to_thread(writer.finish, manifest)
    return manifest


def _add_dump(writer: Writer, url: str, server: int, snapshot: str) -> None:
    with contextlib.closing(_dump(url, server, snapshot)) as chunks:
        writer.add(DUMP, chunks)


def _dump(url: str, server: int, snapshot: str) -> Generator[bytes, None, None]:
    database, env = dumps.access(url)
    program = dumps.folder(server) / "pg_dump"
    options = ["--format=custom", "--no-owner", "--no-privileges", f"--snapshot={snapshot}", f"--dbname={database}"]
    options += [f"--exclude-table-data={table}" for table in LEFT_OUT]
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(  # noqa: S603 - PostgreSQL's own program
            [program, *options],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            preexec_fn=die_with_parent,
        ) as running,
    ):
        assert running.stdout is not None
        try:
            while chunk := running.stdout.read(CHUNK):
                yield chunk
        except GeneratorExit:
            running.kill()
            raise
        if running.wait() != 0:
            said.seek(0)
            words = said.read(2000).decode(errors="replace").strip().splitlines()
            raise InternalError(f"pg_dump: {words[0] if words else f'it ended with {running.returncode}'}")


def _copy(storage: LocalStorage, writer: Writer, keys: list[str]) -> list[str]:
    """Copies pictures; the keys of those that are not there or cannot be read."""
    left_out = []
    for key in keys:
        name = MEDIA + key
        try:
            if not NAME.fullmatch(name):
                raise _Unreadable
            writer.add(name, _chunks(storage, key))
        except _Unreadable:
            left_out.append(key)
    return left_out


class _Unreadable(Exception):
    """One picture's file; the others are not worse for it."""


def _chunks(storage: LocalStorage, key: str) -> Iterator[bytes]:
    try:
        yield from storage.read(key)
    except OSError:
        raise _Unreadable from None


def _publish(partial: Path, path: Path) -> None:
    os.replace(partial, path)
    fsync(path.parent)


def _room(folder: Path, others: Sequence[Path], current: Settings) -> Callable[[int], None]:
    """Says no where so many bytes more would touch what is kept for photos on a disk with one of ``others``."""
    shared = folder.stat().st_dev in {other.stat().st_dev for other in others}
    reserve = current.disk_reserve_bytes if shared else 0

    def check(more: int) -> None:
        free = shutil.disk_usage(folder).free
        if free - more < reserve:
            raise StorageFull(
                f"There is no room for a backup in {folder}: {free / 1024**2:.0f} MiB are free, "
                f"{reserve / 1024**2:.0f} of them kept for photos, and it takes {more / 1024**2:.0f} more"
            )

    return check


async def expected_bytes(db: Database, *, with_results: bool) -> int:
    """About how large a backup will be: its pictures."""
    sql = f"SELECT coalesce(sum(bytes), 0)::bigint AS n FROM ({_pictures(with_results=with_results)}) AS one"  # noqa: S608
    return int((await db.fetch(sql))[0]["n"])


# -- one at a time ----------------------------------------------------------------------------------------------------


async def begin(db: Database, *, actor: str | None = None) -> str | None:
    """The right to make a backup, as a name for its holder; ``None`` while another is being made. ``actor``: whose
    deed the audit remembers."""
    holder = leases.new_holder()
    async with db.transaction() as connection:
        if not await leases.hold(connection, TASK, holder, ttl_s=LEASE_S):
            return None
        if actor is not None:
            await audit.record(connection, actor=actor, action="backup.begun", target="backup/new")
    return holder


@contextlib.asynccontextmanager
async def held(db: Database, holder: str) -> AsyncIterator[Callable[[], bool]]:
    """Renews a right that has ``begin``-ed, and gives it back at the end; whether it is still ours."""
    lost = threading.Event()

    async def renew() -> None:
        while not lost.is_set():
            with contextlib.suppress(Failure):  # the database is away: whoever needs it says so
                if not await leases.hold(db, TASK, holder, ttl_s=LEASE_S):
                    lost.set()
            await asyncio.sleep(RENEW_S)

    renewing = asyncio.create_task(renew())
    try:
        yield lambda: not lost.is_set()
    finally:
        lost.set()
        renewing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await renewing
        with contextlib.suppress(Failure):  # it runs out by itself
            await leases.release(db, TASK, holder)


async def run_apart(db: Database, holder: str) -> None:
    """Makes a backup, and tidies those that are kept, in a process of its own that ends with this one. What came of it
    is in ``last``."""
    words = [sys.executable, "-m", "photochanger.cli", "backup", "--holder", holder, "--parent", str(os.getpid())]
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            cwd=PROJECT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            status = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        failed = InternalError(f"Its process ended with status {status}") if status else None
    except OSError as error:
        failed = InternalError(f"No process could be started: {error.strerror}")
    if failed is not None:
        logs.event("backup.failed", reason=reason(failed), detail=failed.detail)
        with contextlib.suppress(Failure):  # then the next one is as due as this one was
            await record_failure(db, failed)
            await leases.release(db, TASK, holder)


# -- what came of it --------------------------------------------------------------------------------------------------


def reason(error: BaseException) -> str:
    """Why there is no backup, as the end of a word ``backup.why.…``."""
    if isinstance(error, ConfigError):
        return "not_set_up"
    return error.code if isinstance(error, StorageFull) else "internal_error"


async def record_failure(db: Database, error: BaseException) -> None:
    """Remembers that there is no backup, and why, until there is one."""
    await _record(db, {"failed": reason(error), "detail": str(error)})


async def record(db: Database, made: Made) -> None:
    """Remembers a backup that was made."""
    await _record(db, {"file": made.path.name, "bytes": made.bytes, "left_out": len(made.manifest.left_out)})


async def _record(db: Database, result: dict[str, Any]) -> None:
    await db.fetch(
        "INSERT INTO scheduled_run (name, last_run_at, last_result) VALUES (%(task)s, clock_timestamp(), %(result)s) "
        "ON CONFLICT (name) DO UPDATE SET last_run_at = EXCLUDED.last_run_at, last_result = EXCLUDED.last_result",
        {"task": TASK, "result": Jsonb(result)},
    )


async def last(db: Database) -> Row | None:
    """The last one tried: ``last_run_at``, and in ``last_result`` either ``file`` and ``bytes`` or ``failed`` and
    ``detail``."""
    rows = await db.fetch("SELECT last_run_at, last_result FROM scheduled_run WHERE name = %(task)s", {"task": TASK})
    return rows[0] if rows else None


async def is_running(db: Database) -> bool:
    return bool(
        await db.fetch("SELECT FROM lease WHERE name = %(task)s AND expires_at > clock_timestamp()", {"task": TASK})
    )


# -- when, and which are kept -----------------------------------------------------------------------------------------


async def next_at(db: Database, current: Settings) -> datetime | None:
    """When the next nightly one is due; in the past: it is overdue; ``None``: they are switched off."""
    if not current.backup_nightly:
        return None
    [row] = await db.fetch(
        "SELECT coalesce((SELECT last_run_at FROM scheduled_run WHERE name = %(task)s), "
        "(SELECT min(created_at) FROM slot), clock_timestamp()) AS since",
        {"task": TASK},
    )
    return at_hour(current.backup_hour, after=row["since"], zone=ZoneInfo(current.time_zone))


def at_hour(hour: int, *, after: datetime, zone: ZoneInfo) -> datetime:
    """The first instant after ``after`` (aware) at which clocks in ``zone`` show ``hour`` o'clock.

    >>> at_hour(5, after=datetime(2026, 11, 30, 1, tzinfo=UTC), zone=ZoneInfo("Europe/Moscow")).isoformat()
    '2026-11-30T02:00:00+00:00'
    >>> at_hour(5, after=datetime(2026, 11, 30, 2, tzinfo=UTC), zone=ZoneInfo("Europe/Moscow")).isoformat()
    '2026-12-01T02:00:00+00:00'
    """
    there = after.astimezone(zone).replace(hour=hour, minute=0, second=0, microsecond=0)
    while there.astimezone(UTC) <= after:
        there += timedelta(days=1)
    return there.astimezone(UTC)


@dataclass(frozen=True)
class Kept:
    """A backup in the folder of those that are kept."""

    name: str
    bytes: int
    made_at: datetime


def kept(folder: Path) -> list[Kept]:
    """Those we have made there, newest first; nothing else is looked at or ever deleted."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            if match := _OURS.fullmatch(path.name):
                made_at = datetime.strptime(match[1], _STAMP).replace(tzinfo=UTC)
                found.append(Kept(path.name, path.stat().st_size, made_at))
    return sorted(found, key=lambda one: one.made_at, reverse=True)


def tidy(folder: Path, *, keep: int) -> list[str]:
    """Deletes all but the newest ``keep``; their names."""
    old = [one.name for one in kept(folder)[keep:]]
    for name in old:
        (folder / name).unlink(missing_ok=True)
    return old


def written_bytes(folder: Path) -> int:
    """How much of the one that is being made has been written."""
    sizes = []
    for path in folder.glob(_PARTIAL):
        with contextlib.suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return max(sizes, default=0)
