"""``photochanger secrets`` and ``photochanger public-url``: what the providers need of this installation."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import sys
from typing import Any

from photochanger.config import Config, ConfigError, api_key
from photochanger.db import Database
from photochanger.failures import InvalidSettings


def add_parsers(commands: Any) -> None:
    """The commands' arguments."""
    secrets = commands.add_parser("secrets", help="providers' keys: stored sealed, never shown again")
    actions = secrets.add_subparsers(dest="action", required=True)
    actions.add_parser("list", help="which providers have a stored key")
    store = actions.add_parser("set", help="store a provider's key, read from standard input")
    store.add_argument("provider")
    forget = actions.add_parser("forget", help="delete a provider's stored key")
    forget.add_argument("provider")
    actions.add_parser("reset", help="master keys are lost for good: forget every stored key and begin with new ones")
    actions.add_parser("rotate", help="make a new master key and seal every stored key under it")
    public = commands.add_parser("public-url", help="set this server's address on the internet, and try it")
    public.add_argument("url", nargs="?", help="like https://photos.example.com (default: the one that is set)")


async def secrets(arguments: argparse.Namespace, config: Config, db: Database) -> int:
    """Lists, stores, forgets, rotates, or begins anew."""
    from photochanger import tokens, vault

    if arguments.action == "rotate":
        return await _rotate(config, db)
    if arguments.action == "reset":
        print(f"{await vault.reset(db, tokens.master_keys(config))} stored keys are forgotten; store them again")
        return 0
    if arguments.action == "list":
        stored = {row["provider"]: row for row in await vault.listing(db)}
        for name in _with_key():
            print(f"{name:<12} {_where(name, stored.get(name), config)}")
        return 0
    name = arguments.provider
    if name not in _with_key():
        raise ConfigError(f"{name!r} takes no key; choose one of: {', '.join(_with_key())}")
    if arguments.action == "forget":
        print("forgotten" if await vault.forget(db, name) else "there was none")
        return 0
    await vault.store(db, tokens.master_keys(config), name, await asyncio.to_thread(_read, name))
    print(f"The key of {name} is stored; the next call uses it")
    return 0


def _with_key() -> list[str]:
    from photochanger import providers

    return [name for name, provider in providers.registry().items() if provider.needs_key]


def _where(name: str, row: Any, config: Config) -> str:
    if row is not None:
        return f"stored {row['updated_at']:%Y-%m-%d %H:%M} under master key {row['key_id']}"
    variable = f"PHOTOCHANGER_{name.upper()}_API_KEY"
    return f"from {variable}" if getattr(config, f"{name}_api_key") else "none"


def _read(provider: str) -> str:
    given = getpass.getpass(f"Key of {provider}: ") if sys.stdin.isatty() else sys.stdin.readline()
    try:
        return api_key(given)
    except ValueError as error:
        raise ConfigError(f"the key {error}") from None


async def _rotate(config: Config, db: Database) -> int:
    """A rotation that was cut short is finished before another one is begun."""
    from photochanger import tokens, vault

    with tokens.rotating(config):
        keys = tokens.master_keys(config)
        await vault.adopt_master_keys(db, keys)
        if await vault.pending(db, keys):
            print("An earlier rotation was cut short; finishing it")
        else:
            if config.master_key is None:
                keys = tokens.add_master_key(config)
            print(f"The newest master key is {keys.newest}")
        print(f"{await vault.rotate(db, keys)} stored keys are sealed under {keys.newest} now")
    older = [key_id for key_id in keys.keys if key_id != keys.newest]
    if older:
        print(f"Keep {', '.join(older)} for as long as links signed with it are to work; running servers sign with the")
        print("newest one from their next start")
    return 0


async def public_url(arguments: argparse.Namespace, config: Config, db: Database) -> int:
    """Sets the address if one is given; tries the one that is set. 1 when something stands in the way."""
    from photochanger import outside, settings
    from photochanger.audit import COMMAND_LINE

    if arguments.url:
        await settings.save(db, {"public_base_url": arguments.url}, actor=COMMAND_LINE)
    base_url = (await settings.load(db)).public_base_url
    if base_url is None:
        raise InvalidSettings("No public address is set; give one, like https://photos.example.com")
    print(base_url)
    problems = await outside.check(base_url)
    for problem in problems:
        print(f"  {problem.words}")
    if not problems:
        print("  leads to this server")
    return 1 if problems else 0
