"""The database's schema: Alembic's migrations, run from code."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import psycopg

from photochanger.config import PROJECT, ConfigError
from photochanger.db import CONNECT_TIMEOUT_S, Database
from photochanger.failures import Unavailable

if TYPE_CHECKING:
    from alembic.config import Config

#: First key of the advisory lock that lets one process migrate at a time.
LOCK = 0x50436D67


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(PROJECT / "migrations"))
    return config


@functools.cache
def head() -> str:
    """The newest migration this version knows."""
    from alembic.script import ScriptDirectory

    found = ScriptDirectory.from_config(_config()).get_current_head()
    assert found is not None
    return found


@functools.cache
def known() -> frozenset[str]:
    """Every migration this version knows."""
    from alembic.script import ScriptDirectory

    return frozenset(one.revision for one in ScriptDirectory.from_config(_config()).walk_revisions())


async def server_version(db: Database) -> int:
    """PostgreSQL's major version."""
    return int((await db.fetch("SELECT current_setting('server_version_num')::int / 10000 AS major"))[0]["major"])


async def current(db: Database) -> str | None:
    """The migration the database is at."""
    try:
        rows = await db.fetch("SELECT version_num FROM alembic_version")
    except psycopg.errors.UndefinedTable:
        return None
    return rows[0]["version_num"] if rows else None


def migrate(url: str, target: str = "head") -> None:
    """Brings the database to ``target``, up or down; several at once wait for each other.

    Raises:
        Unavailable: PostgreSQL cannot be reached.
        ConfigError: it is at a migration that this version does not know.
    """
    import sqlalchemy
    from alembic import command
    from alembic.util import CommandError

    engine = sqlalchemy.create_engine(url, connect_args={"connect_timeout": CONNECT_TIMEOUT_S})
    try:
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": LOCK})
            connection.commit()
            config = _config()
            config.attributes["connection"] = connection
            down = target == "base" or target.startswith("-")
            (command.downgrade if down else command.upgrade)(config, target)
            connection.commit()
            connection.execute(sqlalchemy.text("SELECT pg_advisory_unlock(:key)"), {"key": LOCK})
            connection.commit()
    except CommandError as error:
        raise ConfigError(f"The database is of a newer version than this one, or of another program: {error}") from None
    except sqlalchemy.exc.OperationalError as error:
        raise Unavailable(f"The database cannot be reached: {error.orig}") from error
    finally:
        engine.dispose()
