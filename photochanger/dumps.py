"""PostgreSQL's own programs, pg_dump, pg_restore and psql, in the version that a server needs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from photochanger import embedded
from photochanger.config import ConfigError

PROGRAMS = ("pg_dump", "pg_restore", "psql")
DEBIAN = Path("/usr/lib/postgresql")


def folder(server: int) -> Path:
    """Where the programs lie: of those found here, the nearest version that is not older than the server's (its major
    version), because pg_dump refuses a newer server.

    Raises:
        ConfigError: there are none; the message says what to install.
    """
    found: dict[int, Path] = {}
    for one in _folders():
        found.setdefault(_version(one), one)
    fitting = [version for version in found if version >= server]
    if not fitting:
        known = ", ".join(map(str, sorted(found))) or "none"
        raise ConfigError(
            f"The database is PostgreSQL {server} and needs its client programs, no older (found here: {known}): "
            f"install postgresql-client-{server}"
        )
    return found[min(fitting)]


def _folders() -> Iterator[Path]:
    """Debian's own folders before what PATH has: /usr/bin/pg_dump there chooses a version by itself."""
    on_path = shutil.which("pg_dump")
    for one in (embedded.programs(), *sorted(DEBIAN.glob("*/bin")), on_path and Path(on_path).parent):
        if one and all((one / name).exists() for name in PROGRAMS):
            yield one


def _version(folder: Path) -> int:
    told = subprocess.run([folder / "pg_dump", "--version"], capture_output=True, text=True, check=True)  # noqa: S603
    match = re.search(r"\d+", told.stdout)
    return int(match[0]) if match else 0


def access(url: str) -> tuple[str, dict[str, str]]:
    """How a program reaches the database: what its arguments may say, which everybody on the machine can read, and its
    environment, which has the password.

    >>> access("postgresql://anna:secret@db/photos")[0]
    'user=anna dbname=photos host=db'
    """
    given = conninfo_to_dict(url)
    password = given.pop("password", None)
    return make_conninfo("", **given), {**os.environ, **({"PGPASSWORD": str(password)} if password else {})}
