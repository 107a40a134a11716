"""``photochanger doctor``: what an administrator looks at before an event, in one page; 1 when something is wrong."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Callable
from datetime import UTC

from photochanger import __version__, access, backups, breakers, readiness, settings, slots, tokens, vault
from photochanger import providers as drivers
from photochanger.config import Config
from photochanger.db import Database
from photochanger.failures import Failure
from photochanger.storage.opening import open_storage

#: Bytes free under the media root that an evening needs: 1000 results of 5 MB, and their originals.
ENOUGH_BYTES = 10 * 1024**3

Check = Callable[[Config, Database], AsyncIterator[str]]


async def doctor(arguments: argparse.Namespace, config: Config, db: Database) -> int:
    """Prints every part with what is wrong with it."""
    print(f"PhotoChanger {__version__}, home {config.home}")
    wrong = 0
    for name, check in CHECKS.items():
        try:
            found = [words async for words in check(config, db)]
        except (Failure, OSError) as error:
            found = [str(error)]
        print(f"{'!!' if found else 'ok'}  {name}")
        for words in found:
            print(f"      {words}")
        wrong += len(found)
    await _told(config, db)
    return 1 if wrong else 0


async def _database(config: Config, db: Database) -> AsyncIterator[str]:
    if words := await readiness.migrations(db):
        yield f"{words}: photochanger migrate"


async def _pictures(config: Config, db: Database) -> AsyncIterator[str]:
    storage = open_storage(config)
    if words := await readiness.storage(db, storage):
        yield words
    free = storage.free_bytes()
    reserve = (await settings.load(db)).disk_reserve_bytes
    if free < reserve:
        yield f"photos are refused: {free / 1024**3:.1f} GiB are free and {reserve / 1024**3:.1f} are kept in reserve"
    if free < ENOUGH_BYTES:
        yield f"{free / 1024**3:.1f} GiB are free under {config.media}; an evening may need {ENOUGH_BYTES // 1024**3}"


async def _keys(config: Config, db: Database) -> AsyncIterator[str]:
    if refusal := await vault.wrong_master_key(db, tokens.master_keys(config)):
        yield refusal


async def _workers(config: Config, db: Database) -> AsyncIterator[str]:
    if words := await readiness.workers(db):
        yield f"{words}: make up"
    rows = await db.fetch("SELECT count(*) AS dead FROM dramatiq.queue WHERE state = 'rejected'")
    if rows[0]["dead"]:
        yield f"{rows[0]['dead']} messages have failed: photochanger queue show"


async def _providers(config: Config, db: Database) -> AsyncIterator[str]:
    """Whoever is not asked just now."""
    for row in await breakers.standing(db):
        if row["open"]:
            yield (
                f"{row['provider']} is not asked for {row['left_s']:.0f} s, after: {row['detail']} "
                f"(put right? photochanger limits reset {row['provider']})"
            )


async def _slots(config: Config, db: Database) -> AsyncIterator[str]:
    """Every rung of every slot that is on: its settings, its provider's key, what is unwise."""
    current = await settings.load(db)
    keys = tokens.master_keys(config)
    for slot in (await slots.all_slots(db)).values():
        if not slot.is_active:
            continue
        for rung in slot.route.rungs:
            try:
                if provider := drivers.registry().get(rung.provider):
                    await access.to(provider, db, keys, config)
            except Failure as failure:
                yield f"{slot.id}: {failure.detail}"
        try:
            for concern in slots.warnings(slots.check_route(slot.route, current), current):
                yield f"{slot.id}: {concern.words}"
        except Failure as failure:
            yield f"{slot.id}: {failure.detail}"


async def _backups(config: Config, db: Database) -> AsyncIterator[str]:
    """The last one failed."""
    last = await backups.last(db)
    if last and "failed" in last["last_result"]:
        at = f"{last['last_run_at'].astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        yield f"the last one, at {at}, was not made: {last['last_result']['detail']}"


async def _told(config: Config, db: Database) -> None:
    """What is no fault and worth seeing."""
    current = await settings.load(db)
    print(f"    public address: {current.public_base_url or 'none (photochanger public-url)'}")
    kept = backups.kept(config.backups)
    newest = f"the newest made {kept[0].made_at:%Y-%m-%d %H:%M} UTC" if kept else "make one: photochanger backup"
    print(f"    backups: {len(kept)} in {config.backups}; {newest}")
    allowed = ", ".join(current.allowed_private_hosts) or "none"
    print(f"    inner addresses that results may be downloaded from: {allowed}")


CHECKS: dict[str, Check] = {
    "database": _database,
    "pictures": _pictures,
    "master keys": _keys,
    "workers and queue": _workers,
    "backups": _backups,
    "providers": _providers,
    "slots that are on": _slots,
}
