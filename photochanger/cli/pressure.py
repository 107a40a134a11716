"""``photochanger limits`` and ``photochanger cancel``: what is used up, who is not asked, and ending one photo."""

from __future__ import annotations

import argparse
from typing import Any
from uuid import UUID

from photochanger.config import Config, ConfigError
from photochanger.db import Database


def add_parsers(commands: Any) -> None:
    """The commands' arguments."""
    limits = commands.add_parser("limits", help="what is used of limits and budgets; providers that are not asked")
    actions = limits.add_subparsers(dest="action", required=True)
    actions.add_parser("show", help="everything that is in use, and how long calls take")
    reset = actions.add_parser("reset", help="ask a provider again at once: what was wrong has been put right")
    reset.add_argument("provider")
    cancel = commands.add_parser("cancel", help="cancel a photo that waits or runs; its provider's call is aborted")
    cancel.add_argument("job", help="its id, as X-Job-Id and the log have it")


async def limits(arguments: argparse.Namespace, config: Config, db: Database) -> int:
    """Shows, or closes a provider's breaker."""
    from photochanger import breakers, usual
    from photochanger import limits as used
    from photochanger.audit import COMMAND_LINE

    if arguments.action == "reset":
        was = await breakers.reset(db, arguments.provider, actor=COMMAND_LINE)
        print(f"{arguments.provider} is asked again" if was else f"{arguments.provider} had not failed")
        return 0
    for row in await breakers.standing(db):
        state = f"not asked for {row['left_s']:.0f} s" if row["open"] else "asked as usual"
        print(f"{row['provider']:<12} {state}; {row['failures']} failures in a row, the last: {row['detail']}")
    for use in await used.in_use(db):
        print(f"{use['key']:<40} {use['used']:>10g}  until {use['frees_at']:%Y-%m-%d %H:%M:%S %z}")
    for name, one in (await usual.load(db)).listing():
        print(f"{name:<40} 90 % within {one.p90_s:.2f} s, {one.mean_s:.2f} s and {one.mean_cost:g} a call on average")
    return 0


async def cancel(arguments: argparse.Namespace, config: Config, db: Database) -> int:
    """Cancels one job."""
    from photochanger import audit, jobs, retention
    from photochanger.storage.opening import open_storage

    try:
        job_id = UUID(arguments.job)
    except ValueError:
        raise ConfigError(f"{arguments.job!r} is not a job's id") from None
    final = await jobs.cancel(db, job_id, detail="Cancelled by an administrator", actor=audit.COMMAND_LINE)
    await retention.drop_payloads(open_storage(config), [final])
    if final is None:
        row = await jobs.find(db, job_id)
        raise ConfigError(f"it has ended already: {row['status']}" if row else "there is no such job")
    print("cancelled")
    return 0
