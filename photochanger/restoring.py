"""How a backup becomes an installation again: checked whole first, then in one transaction of the database.

Pictures are put in their places before the database names them; until the transaction's end everything is as it was.
Jobs that ran when the backup was made are past their deadline and end as timed out by the usual expiry; their messages
are in no backup, so that no provider is called for a guest who has long gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, BinaryIO

from photochanger import audit, dumps, retention, schema, tarball
from photochanger.db import Database
from photochanger.failures import Conflict, InternalError, InvalidRequest, StorageFull
from photochanger.storage.local import LocalStorage, full_or
from photochanger.tarball import CHUNK, DUMP, MEDIA, Manifest

#: Seconds to wait for somebody else's hold on the tables.
_LOCK_S = 10
#: Names that every migration has which a backup was ever made at: this runs before the dump's own is left behind.
_BEFORE = f"""
BEGIN;
SET client_min_messages = warning;
SET LOCAL lock_timeout = '{_LOCK_S}s';
SELECT pg_advisory_xact_lock({schema.LOCK});
DROP SCHEMA IF EXISTS dramatiq CASCADE;
DO $$ DECLARE one record; BEGIN
    FOR one IN SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public' LOOP
        EXECUTE format('DROP TABLE public.%I CASCADE', one.name);
    END LOOP;
    FOR one IN SELECT typname AS name FROM pg_type WHERE typnamespace = 'public'::regnamespace AND typtype = 'e' LOOP
        EXECUTE format('DROP TYPE public.%I', one.name);
    END LOOP;
END $$;
"""  # noqa: S608 - our own constants
_AFTER = """
CREATE TEMP TABLE restored (key text PRIMARY KEY) ON COMMIT DROP;
COPY restored FROM STDIN;
{keys}\\.
DELETE FROM dramatiq.worker;
UPDATE public.job SET payload_path = NULL WHERE payload_path IS NOT NULL;
UPDATE public.job SET result_file_path = NULL, result_expires_at = least(result_expires_at, clock_timestamp())
WHERE result_file_path IS NOT NULL AND NOT EXISTS (SELECT FROM restored WHERE key = result_file_path);
DELETE FROM public.template_media WHERE NOT EXISTS (SELECT FROM restored WHERE key = storage_key);
INSERT INTO public.app_settings (key, value) VALUES ('media_marker', '"{marker}"')
ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value;
COMMIT;
"""
#: Of every dump by PostgreSQL 17 and newer; older servers do not know it.
_TOO_NEW = b"SET transaction_timeout = 0;\n"


async def restore(db: Database, storage: LocalStorage, path: Path, *, replace: bool) -> Manifest:
    """Makes database and pictures what they were when the backup at ``path`` was made; its manifest. Nothing else of
    this installation may run. ``replace``: what is there now is lost.

    Raises:
        InvalidRequest: the file is damaged, no backup of ours, or by a newer version; nothing was changed.
        Conflict: the database is in use, or not empty and it is not to be ``replace``d; nothing was changed.
        StorageFull: the pictures do not fit; nothing was changed.
        InternalError: the database refused it, and is as it was.
    """
    with path.open("rb") as file:
        manifest = await asyncio.to_thread(tarball.verified, file)
        await check(db, manifest, replace=replace)
        if path.stat().st_size > storage.free_bytes():
            raise StorageFull(f"The backup takes {path.stat().st_size / 1024**2:.0f} MiB, and fewer are free")
        marker = storage.prepare()
        server = await schema.server_version(db)
        placed: list[str] = []
        dump = storage.temporary()
        try:
            if await _to_its_end(partial(_place, file, storage, dump, placed)):
                raise InternalError("It was stopped, and the database is as it was")
            after = _AFTER.format(keys=_lines(manifest), marker=marker)
            await _to_its_end(partial(_load, db.url, server, dump, after))  # what has been committed is so
        except Exception:
            await retention.delete(storage, placed, kind=MEDIA)
            raise
        finally:
            dump.unlink(missing_ok=True)
    await asyncio.to_thread(schema.migrate, db.url)
    await db.fetch("ANALYZE")
    await audit.record(db, actor=audit.COMMAND_LINE, action="backup.restored", target=f"backup/{path.name}")
    await retention.clean_results(db, storage)  # their time may have come since
    await retention.clean_orphans(db, storage)
    return manifest


async def _to_its_end(work: Callable[[], None]) -> bool:
    """Runs ``work`` in a thread; whether somebody wanted to stop it meanwhile. A thread cannot be stopped: nothing of
    it is undone before it is known how it ended."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    stopped = False
    while not running.done():
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            stopped = True
    running.result()
    return stopped


def check_version(manifest: Manifest) -> None:
    """Raises why this version cannot restore the backup into any database."""
    if manifest.migration not in schema.known():
        raise InvalidRequest(
            f"The backup was made by version {manifest.version}, whose database is newer than this version knows: "
            "install that version or a newer one"
        )


async def check(db: Database, manifest: Manifest, *, replace: bool) -> None:
    """Raises why the backup must not be restored into this database now: see ``restore``."""
    check_version(manifest)
    server = await schema.server_version(db)
    if manifest.postgresql > server:
        raise InvalidRequest(f"The backup is of PostgreSQL {manifest.postgresql}, this is {server}: take one as new")
    running = await db.fetch(
        "SELECT DISTINCT application_name AS name FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name LIKE 'photochanger %%' AND application_name <> 'photochanger cli' ORDER BY name"
    )
    if running:
        names = ", ".join(row["name"] for row in running)
        raise Conflict(f"PhotoChanger runs on this database ({names}): stop it first, on every machine")
    there = await db.fetch("SELECT FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema') LIMIT 1")
    if there and not replace:
        raise Conflict("The database is not empty: with --replace, what is in it now is lost")


def _place(file: BinaryIO, storage: LocalStorage, dump: Path, placed: list[str]) -> None:
    """Puts the pictures where their keys say, and the dump in ``dump``; ``placed``: keys that were not there before."""
    try:
        for name, _, chunks in tarball.entries(file):
            if name != DUMP and not name.startswith(MEDIA):
                continue
            temporary = dump if name == DUMP else storage.temporary()
            with open(temporary, "xb", opener=_private if name == DUMP else None) as target:
                target.writelines(chunks)
            if name != DUMP:
                key = name.removeprefix(MEDIA)
                if not storage.holds(key):
                    placed.append(key)
                storage.adopt(temporary, key, durable=False)
        os.sync()  # all of them at once: one by one would take a hundred times as long
    except OSError as error:
        raise full_or(error) from error


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _lines(manifest: Manifest) -> str:
    return "".join(f"{key}\n" for key in manifest.keys)


def _load(url: str, server: int, dump: Path, after: str) -> None:
    """Gives the dump to psql, which commits only what we have told it to commit after all of it."""
    database, env = dumps.access(url)
    programs = dumps.folder(server)
    with tempfile.TemporaryFile() as said:
        psql = subprocess.Popen(  # noqa: S603 - PostgreSQL's own programs
            [programs / "psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--dbname={database}"],
            env=env, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said,
        )  # fmt: skip
        reading = subprocess.Popen(  # noqa: S603
            [programs / "pg_restore", "--no-owner", "--no-privileges", "--file=-", dump],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said,
        )  # fmt: skip
        assert psql.stdin is not None
        assert reading.stdout is not None
        try:
            psql.stdin.write(_BEFORE.encode())
            _pump(reading.stdout, psql.stdin, server)
            if reading.wait() == 0:
                psql.stdin.write(after.encode())
                psql.stdin.close()
                if psql.wait() == 0:
                    return
        except BrokenPipeError:
            pass  # it has said why
        finally:
            for program in (reading, psql):
                program.kill()
                with contextlib.suppress(BrokenPipeError):
                    program.communicate()
        said.seek(0)
        words = said.read(4000).decode(errors="replace").strip().splitlines() or ["its programs ended early"]
        raise InternalError(f"The database refused it, and is as it was: {words[0]}")


def _pump(source: IO[bytes], target: IO[bytes], server: int) -> None:
    head = source.read(4096)
    target.write(head.replace(_TOO_NEW, b"", 1) if server < 17 else head)
    shutil.copyfileobj(source, target, CHUNK)
