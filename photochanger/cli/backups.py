"""``photochanger backup``, ``restore`` and ``audit``: a second place for everything, and the proof that it is whole."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import psutil

from photochanger import __version__
from photochanger.cli.prepare import its_storage
from photochanger.config import Config, ConfigError
from photochanger.db import Database
from photochanger.failures import Conflict, Failure
from photochanger.process import die_with_parent
from photochanger.storage.opening import open_storage
from photochanger.tarball import Manifest

#: Differences of one kind that are printed; ``--json`` has all.
SHOWN = 20
_MIB = 1024**2


def add_parsers(commands: Any) -> None:
    """The commands' arguments."""
    backup = commands.add_parser("backup", help="copy database and pictures into one file, while everything runs")
    backup.add_argument("file", nargs="?", type=Path, help="a new file, or a folder for it (default: those kept)")
    backup.add_argument("--without-results", action="store_true", help="leave out the guests' pictures")
    backup.add_argument("--holder", help=argparse.SUPPRESS)
    backup.add_argument("--parent", type=int, help=argparse.SUPPRESS)
    restore = commands.add_parser("restore", help="make everything what it was when a backup was made")
    restore.add_argument("file", type=Path)
    restore.add_argument("--replace", action="store_true", help="the database is not empty: what is there now is lost")
    restore.add_argument("--check", action="store_true", help="read the whole file, say what is in it, change nothing")
    look = commands.add_parser("audit", help="whether every picture's row and file agree; 1 if not")
    look.add_argument("--json", action="store_true", help="everything that was found, as JSON")


async def backup(arguments: argparse.Namespace, config: Config, db: Database) -> int:
    """Makes a backup. One of those kept: tidies them, and remembers what came of it."""
    from photochanger import backups, logs, settings

    is_kept = arguments.file is None
    if arguments.holder is not None:  # nobody sits here: said to the server's log
        logs.setup(config.log_format, config.log_level)
    _give_way(arguments.parent)
    holder = arguments.holder or await backups.begin(db)
    if holder is None:
        raise Conflict("A backup is being made already")
    gone: list[str] = []
    async with backups.held(db, holder) as held:
        try:
            storage = await its_storage(config, db)
            path = backups.target(config, arguments.file)
            current = await settings.load(db)
            with_results = current.backup_results and not arguments.without_results
            made = await backups.make(db, storage, path, home=config.home, with_results=with_results, held=held)
        except (Failure, ConfigError) as error:
            if is_kept:
                await backups.record_failure(db, error)
            if arguments.holder is None:
                raise
            logs.event("backup.failed", reason=backups.reason(error), detail=str(error))
            return 0  # whoever has started us need not say it again
        if is_kept:
            await backups.record(db, made)
            gone = backups.tidy(config.backups, keep=current.backup_keep)
    left_out = len(made.manifest.left_out)
    if arguments.holder is not None:
        logs.event("backup.finished", file=path.name, bytes=made.bytes, left_out=left_out, removed=len(gone))
        return 0
    counts = made.manifest.counts
    print(f"{path}  {made.bytes / _MIB:.1f} MiB: the database and {counts['pictures']} pictures")
    if left_out:
        print(f"Not in it: {left_out} pictures that went meanwhile or cannot be read (photochanger audit)")
    for name in gone:
        print(f"Removed {name}")
    print(f"The master key is not in it. Keep a copy of {_key(config)} apart from the backups: without it")
    print("providers' keys cannot be read and guests' links do not open.")
    return 0


def _give_way(parent: int | None) -> None:
    """Whatever else this machine does goes first; we end with ``parent``, which has started us."""
    if parent is not None:
        die_with_parent()
        if os.getppid() != parent:  # it had died before we could ask
            raise SystemExit(1)
    os.nice(19)
    with contextlib.suppress(psutil.Error, OSError):
        psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)


def _key(config: Config) -> str:
    return "PHOTOCHANGER_MASTER_KEY" if config.master_key else str(config.home / "master.key")


@contextlib.contextmanager
def alone(config: Config) -> Iterator[None]:
    """Nothing runs for this home, and nothing begins to, while inside."""
    from photochanger.cli.up import only_one

    config.home.mkdir(parents=True, exist_ok=True)
    config.run_dir.mkdir(exist_ok=True, mode=0o700)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(only_one(config))
        except ConfigError:
            raise Conflict(f"PhotoChanger runs for {config.home}: stop it first, on every machine") from None
        (config.run_dir / "database_url").unlink(missing_ok=True)  # of a server that was killed
        yield


def check(file: Path) -> int:
    """Reads a backup whole, and says what is in it."""
    from photochanger import dumps, restoring, tarball

    try:
        with file.open("rb") as opened:
            manifest = tarball.verified(opened)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    restoring.check_version(manifest)
    dumps.folder(manifest.postgresql)  # those that load it into a server of its version
    print(f"{file} is whole: made {_at(manifest)} by version {manifest.version}")
    for name, count in manifest.counts.items():
        print(f"    {name:<10} {count:>8}")
    if manifest.left_out:
        print(f"    {len(manifest.left_out)} pictures were left out of it")
    return 0


def _at(manifest: Manifest) -> str:
    return f"{manifest.made_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


async def restore(arguments: argparse.Namespace, config: Config, db: Database) -> int:
    """Restores a backup, and says what is left to do."""
    from photochanger import restoring, tokens, vault

    storage = open_storage(config)
    config.media.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        manifest = await restoring.restore(db, storage, arguments.file, replace=arguments.replace)
    except OSError as error:
        raise ConfigError(f"{error.filename or arguments.file}: {error.strerror}") from None
    print(f"Restored what was there {_at(manifest)}, for version {__version__}:")
    for name, count in manifest.counts.items():
        print(f"    {name:<10} {count:>8}")
    key = config.home / "master.key"
    if config.master_key is None and not key.exists():
        print(f"Before the start, put the installation's master key there: {key}, mode 0600. Without it a new one is")
        print("made that opens nothing of this; if it is lost for good: photochanger secrets reset")
    elif refusal := await vault.wrong_master_key(db, tokens.master_keys(config)):
        print(refusal)
    print("Everybody signs in again. To prove that it is whole: photochanger audit")
    return 0


async def audit(arguments: argparse.Namespace, config: Config, db: Database) -> int:
    """Prints every kind of files with what is wrong with them."""
    from photochanger import agreement

    storage = await its_storage(config, db)
    kinds = await agreement.look(db, storage)
    wrong = sum(len(kind.differences) for kind in kinds)
    if arguments.json:
        found = {
            kind.name: {"rows": kind.rows, "differences": [vars(one) for one in kind.differences]} for kind in kinds
        }
        print(json.dumps({"differences": wrong, "kinds": found}, indent=2))
        return 1 if wrong else 0
    for kind in kinds:
        print(f"{'!!' if kind.differences else 'ok'}  {kind.name:<10} {kind.rows:>8} rows")
        for one in kind.differences[:SHOWN]:
            print(f"      {one.key}: {one.what}")
        if len(kind.differences) > SHOWN:
            print(f"      and {len(kind.differences) - SHOWN} more: --json")
    print(f"{wrong} differences")
    return 1 if wrong else 0
