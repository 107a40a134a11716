"""``photochanger``: what an operator says to the server from a shell."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from photochanger import __version__, config, schema
from photochanger.cli import admins, backups, pressure, providers
from photochanger.config import Config, ConfigError
from photochanger.db import Database
from photochanger.failures import Failure, NotFound


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; 0, or 1 with a clear line on stderr."""
    arguments = _parser().parse_args(argv)
    try:
        settings = config.load()
        if arguments.command == "up":
            return _up(settings)
        return asyncio.run(_run(arguments, settings))
    except (ConfigError, Failure) as error:
        print(f"photochanger: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _up(settings: Config) -> int:
    """Runs everything until it is to stop, which is no failure."""
    with contextlib.suppress(KeyboardInterrupt):
        from photochanger.cli.up import up

        up(settings)
    with contextlib.suppress(OSError):  # its terminal may be what has ended
        os.write(1, b"PhotoChanger has stopped.\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="photochanger", description="Turns photos with AI under a deadline.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    commands.add_parser("up", help="run everything here: web, worker, scheduler, and PostgreSQL where none is set")
    migrate = commands.add_parser("migrate", help="bring the database to this version's schema")
    migrate.add_argument("target", nargs="?", default="head", help="a migration, head, base or -1 (default: head)")
    ingest = commands.add_parser("ingest-password", help="make a new ingest password and show it, once")
    ingest.add_argument("--grace-hours", type=float, default=24.0, help="the old one stays valid (default: 24)")
    admins.add_parsers(commands)
    admin = commands.add_parser("admin-password", help="the same as: admin password [admin]")
    admin.add_argument("name", nargs="?", default="admin")
    admin.set_defaults(action="password")
    _slot_parser(commands)
    _template_parser(commands)
    queue = commands.add_parser("queue", help="look at the queue; requeue dead letters")
    queue.add_argument("action", choices=["show", "requeue"])
    settings = commands.add_parser("settings", help="show or change the administrator's settings")
    settings.add_argument("changes", nargs="*", metavar="name=value", help="value as JSON")
    providers.add_parsers(commands)
    pressure.add_parsers(commands)
    backups.add_parsers(commands)
    commands.add_parser("doctor", help="look at everything an evening needs, and say what is wrong")
    return parser


def _slot_parser(commands: Any) -> None:
    slot = commands.add_parser("slot", help="show or change a slot").add_subparsers(dest="action", required=True)
    show = slot.add_parser("show", help="all slots, or one as JSON")
    show.add_argument("id", nargs="?")
    change = slot.add_parser("set", help="change a slot; what is not named stays")
    change.add_argument("id")
    change.add_argument("--name")
    change.add_argument("--on", dest="is_active", action="store_true", default=None)
    change.add_argument("--off", dest="is_active", action="store_false")
    change.add_argument("--provider", help="of a route with one step (default: local)")
    change.add_argument("--operation", help="of a route with one step")
    change.add_argument("--settings", help="of a route with one step, as JSON")
    change.add_argument("--route", help="the whole route, as JSON")
    change.add_argument("--options", help="the slot's options, as JSON")


def _template_parser(commands: Any) -> None:
    template = commands.add_parser("template", help="list or add template pictures")
    actions = template.add_subparsers(dest="action", required=True)
    actions.add_parser("list", help="every template")
    add = actions.add_parser("add", help="store a picture and print its id")
    add.add_argument("file", type=Path)
    add.add_argument("--name", help="default: the file's name")


async def _run(arguments: argparse.Namespace, settings: Config) -> int:
    commands = {
        "migrate": _migrate,
        "ingest-password": _ingest_password,
        "slot": _slot,
        "template": _template,
        "queue": _queue,
        "settings": _settings,
    }
    opened = {
        "admin": admins.admin,
        "admin-password": admins.admin,
        "secrets": providers.secrets,
        "public-url": providers.public_url,
        "limits": pressure.limits,
        "cancel": pressure.cancel,
        "doctor": _doctor,
        "backup": backups.backup,
        "restore": backups.restore,
        "audit": backups.audit,
    }
    restores = arguments.command == "restore"
    if restores and arguments.check:
        return backups.check(arguments.file)
    with backups.alone(settings) if restores else contextlib.nullcontext():
        async with _database_url(settings, make=restores) as url:
            if arguments.command in opened:
                async with _opened(url) as db:
                    return await opened[arguments.command](arguments, settings, db)
            return await commands[arguments.command](arguments, settings, url)


@asynccontextmanager
async def _database_url(settings: Config, *, make: bool = False) -> AsyncIterator[str]:
    """The configured or running database; else the home's embedded one, started for this command. ``make``: where
    there is none yet, too, by who has the home to itself already.

    Raises:
        ConfigError: there is none, or another command has just started it.
    """
    from photochanger.embedded import EmbeddedPostgres

    server = EmbeddedPostgres(settings.home / "pg")
    url = None
    try:
        url = settings.require_database_url()
        if settings.database_url is None and not server.is_running():  # it was killed, or the power was cut
            url = None
    except ConfigError:
        if not make and not server.folder.exists():
            raise
    if url is not None:  # outside of the ``try``: what the command itself raises is its own
        yield url
        return
    from photochanger.cli.up import only_one

    settings.run_dir.mkdir(exist_ok=True, mode=0o700)
    with contextlib.nullcontext() if make else only_one(settings):  # nobody may count on a server that we stop
        try:
            yield await asyncio.to_thread(server.start)
        finally:
            await asyncio.to_thread(server.stop)


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[Database]:
    db = Database(url, connections=2, application_name="photochanger cli")
    try:
        yield db
    finally:
        await db.close()


async def _migrate(arguments: argparse.Namespace, settings: Config, url: str) -> int:
    from photochanger import accounts
    from photochanger.cli.prepare import prepare

    await asyncio.to_thread(schema.migrate, url, arguments.target)
    async with _opened(url) as db:
        print(f"The database is at {await schema.current(db) or 'base'}")
    if arguments.target == "head":
        shown = await prepare(settings.model_copy(update={"database_url": url}))
        if shown.admin_password:
            print(f"Administrator    {accounts.FIRST_ADMIN} / {shown.admin_password}   (shown only now)")
        if shown.ingest_password:
            print(f"Ingest password  {shown.ingest_password}   (shown only now)")
    return 0


async def _ingest_password(arguments: argparse.Namespace, settings: Config, url: str) -> int:
    from photochanger import accounts

    async with _opened(url) as db:
        made = await accounts.rotate_ingest_password(db, grace=timedelta(hours=arguments.grace_hours))
    print(made)
    if settings.ingest_password is not None:
        print("PHOTOCHANGER_INGEST_PASSWORD is set and wins at the next start", file=sys.stderr)
    return 0


async def _doctor(arguments: argparse.Namespace, settings: Config, db: Database) -> int:
    from photochanger.cli.doctor import doctor

    return await doctor(arguments, settings, db)


async def _slot(arguments: argparse.Namespace, settings: Config, url: str) -> int:
    from photochanger import settings as app_settings
    from photochanger import slots
    from photochanger.failures import SlotNotFound

    async with _opened(url) as db:
        found = await slots.all_slots(db)
        if arguments.id is None:
            for slot in found.values():
                rungs = " → ".join(f"{rung.provider}/{rung.operation}" for rung in slot.route.rungs)
                print(f"{slot.id}  {'on ' if slot.is_active else 'off'}  {slot.name:<24}  {rungs}")
            return 0
        if arguments.id not in found:
            raise SlotNotFound(f"There is no slot {arguments.id}")
        slot = found[arguments.id]
        if arguments.action == "set":
            slot = await slots.save(db, _changed(slot, arguments))
            for concern in slots.warnings(slot.route, await app_settings.load(db)):
                print(f"photochanger: note: {concern.words}", file=sys.stderr)
        print(slot.model_dump_json(indent=2))
    return 0


def _changed(slot: Any, arguments: argparse.Namespace) -> Any:
    from pydantic import ValidationError

    from photochanger import settings as app_settings

    changes = slot.model_dump()
    for name in ("name", "is_active"):
        if getattr(arguments, name) is not None:
            changes[name] = getattr(arguments, name)
    for name in ("route", "options"):
        if getattr(arguments, name) is not None:
            changes[name] = _json(f"--{name}", getattr(arguments, name))
    if arguments.operation is not None:
        rung = {"provider": arguments.provider or "local", "operation": arguments.operation}
        changes["route"] = {"rungs": [{**rung, "settings": _json("--settings", arguments.settings or "{}")}]}
    elif arguments.settings is not None or arguments.provider is not None:
        raise ConfigError("--provider and --settings go with --operation")
    try:
        return type(slot).model_validate(changes)
    except ValidationError as error:
        raise app_settings.invalid(error) from None


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{name}: not JSON: {error}") from None


async def _template(arguments: argparse.Namespace, settings: Config, url: str) -> int:
    from photochanger import templates
    from photochanger.cli.prepare import its_storage
    from photochanger.image_pool import ImagePool

    async with _opened(url) as db:
        storage = await its_storage(settings, db)
        if arguments.action == "add":
            if not arguments.file.is_file():
                raise ConfigError(f"There is no file {arguments.file}")
            name = arguments.name or arguments.file.name
            with contextlib.closing(ImagePool(1)) as pool:
                print(await templates.add(db, storage, pool, arguments.file, name=name))
            return 0
        for row in await templates.listing(db):
            print(f"{row['id']}  {row['width']} x {row['height']}  {row['mime']:<10}  {row['name']}")
    return 0


async def _queue(arguments: argparse.Namespace, settings: Config, url: str) -> int:
    from photochanger import system
    from photochanger.audit import COMMAND_LINE

    async with _opened(url) as db:
        if arguments.action == "requeue":
            rows = await db.fetch("SELECT message_id AS id FROM dramatiq.queue WHERE state = 'rejected'")
            for row in rows:
                with contextlib.suppress(NotFound):  # somebody else was quicker
                    await system.requeue(db, row["id"], actor=COMMAND_LINE)
            print(f"{len(rows)} requeued")
            return 0
        for row in await db.fetch(
            "SELECT state::text AS state, count(*) AS count, min(due_at) AS oldest FROM dramatiq.queue "
            "GROUP BY state ORDER BY state"
        ):
            print(f"{row['state']:<10} {row['count']:>8}  oldest {row['oldest']:%Y-%m-%d %H:%M:%S}")
        for row in await db.fetch("SELECT * FROM dramatiq.worker ORDER BY id"):
            print(f"worker {row['id']}  {row['host']}:{row['pid']}  {row['threads']} threads  beat {row['beat_at']}")
    return 0


async def _settings(arguments: argparse.Namespace, settings: Config, url: str) -> int:
    from photochanger import settings as app_settings
    from photochanger.audit import COMMAND_LINE
    from photochanger.settings import SERVERS_OWN

    async with _opened(url) as db:
        changes = {}
        for change in arguments.changes:
            name, separator, value = change.partition("=")
            if not separator or name in SERVERS_OWN:
                raise ConfigError(f"{change}: write name=value; passwords have commands of their own")
            changes[name] = _json(name, value)
        saved = await app_settings.save(db, changes, actor=COMMAND_LINE) if changes else await app_settings.load(db)
    print(saved.model_dump_json(indent=2, exclude=set(SERVERS_OWN)))
    return 0
