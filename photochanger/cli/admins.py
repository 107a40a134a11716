"""``photochanger admin``: accounts from a shell, for the first one and for the day that nobody can sign in."""

from __future__ import annotations

import argparse
from typing import Any

from photochanger.config import Config
from photochanger.db import Database
from photochanger.permissions import MEANINGS, PERMISSIONS

EVERYTHING = "all"


def add_parsers(commands: Any) -> None:
    """The command's arguments."""
    meanings = "\n".join(f"  {name:<16} {words}" for name, words in MEANINGS.items())
    admin = commands.add_parser(
        "admin",
        help="accounts: list, create, disable, enable, permissions, password",
        epilog=f"permissions, or {EVERYTHING!r}:\n{meanings}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = admin.add_subparsers(dest="action", required=True)
    actions.add_parser("list", help="every account and what it may do")
    create = actions.add_parser("create", help="make an account and show its password, once")
    create.add_argument("name")
    create.add_argument("permissions", nargs="*", help=f"what it may do; {EVERYTHING}: everything")
    actions.add_parser("disable", help="end its sessions; it cannot sign in").add_argument("name")
    actions.add_parser("enable", help="it may sign in again").add_argument("name")
    permissions = actions.add_parser("permissions", help="what it may do from now on: these and no others")
    permissions.add_argument("name")
    permissions.add_argument("permissions", nargs="*", help=f"none: nothing; {EVERYTHING}: everything")
    password = actions.add_parser("password", help="give it a new password, end its sessions, and show it, once")
    password.add_argument("name")


async def admin(arguments: argparse.Namespace, config: Config, db: Database) -> int:
    """Does one of them, and writes it into the audit."""
    from photochanger import accounts, audit

    actor, action = audit.COMMAND_LINE, arguments.action
    if action == "list":
        for row in await accounts.listing(db):
            may = EVERYTHING if len(row["permissions"]) == len(PERMISSIONS) else " ".join(row["permissions"])
            print(f"{row['name']:<24} {'on ' if row['is_active'] else 'off'}  {may or '–'}")
    elif action == "create":
        _, password = await accounts.create(
            db, actor=actor, name=arguments.name, permissions=_wanted(arguments.permissions)
        )
        print(password)
    elif action == "password":
        print(await accounts.set_password(db, arguments.name, actor=actor))
    elif action == "permissions":
        changed = await accounts.update(
            db, arguments.name, {"permissions": _wanted(arguments.permissions)}, actor=actor
        )
        print(" ".join(changed["permissions"]) or "–")
    else:
        await accounts.update(db, arguments.name, {"is_active": action == "enable"}, actor=actor)
        print(f"{arguments.name} is {action}d")
    return 0


def _wanted(given: list[str]) -> list[str]:
    return list(PERMISSIONS) if given == [EVERYTHING] else given
