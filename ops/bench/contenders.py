"""Who is measured: each contender's environment, its database, and what to know to start and to ring it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg

from ops.bench.workers import floor
from photochanger import schema, slots
from photochanger.config import PROJECT
from photochanger.db import Database

HERE = Path(__file__).parent
BUILD = PROJECT / "build" / "bench"


@dataclass(frozen=True)
class Contender:
    """``ring``: what its producer says after an INSERT; ``connections``: how many one listening worker process has."""

    name: str
    title: str
    ring: str = "SELECT"
    connections: int = 0

    @property
    def python(self) -> Path:
        own = HERE / f"{self.name}.txt"
        return BUILD / self.name / "bin" / "python" if own.exists() else Path(sys.executable)


OURS = Contender("ours", "ours", "SELECT pg_notify('photochanger_queue', '')", connections=1)
STOCK = Contender(
    "stock",
    "dramatiq-pg 0.12",
    # Its workers take a message from the NOTIFY itself: one each.
    "SELECT pg_notify('dramatiq.default.enqueue', message::text) FROM dramatiq.queue",
    connections=2,
)
POSTGRES = Contender(
    "postgres", "dramatiq-postgres 1.4", "SELECT pg_notify('dramatiq.default.enqueue', '')", connections=3
)
FLOOR = Contender("floor", "bare psycopg")
QUEUES = (OURS, STOCK, POSTGRES)


def install(contender: Contender) -> None:
    """Makes the contender's own environment from its lock, unless it is there and the lock is still the same."""
    lock = HERE / f"{contender.name}.txt"
    if not lock.exists():
        return
    folder = BUILD / contender.name
    stamp = folder / "installed.txt"
    if stamp.exists() and stamp.read_text() == lock.read_text():
        return
    print(f"Installing {contender.title} into {folder.relative_to(PROJECT)}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", folder], check=True)
    uv = PROJECT / ".venv" / "bin" / "uv"
    argv: Sequence[str | Path]
    if uv.exists():
        argv = [uv, "pip", "install", "--quiet", "--python", contender.python]
    else:
        argv = [sys.executable, "-m", "pip", "--python", contender.python, "install", "--quiet"]
    subprocess.run([*argv, "--require-hashes", "-r", lock], check=True)
    stamp.write_text(lock.read_text())


def prepare(contender: Contender, url: str) -> None:
    """Gives the contender's fresh database its schema, by the contender's own means."""
    if contender is OURS:
        schema.migrate(url)
        asyncio.run(_first_slots(url))
        return
    if contender is FLOOR:
        sql = floor.TABLE
    else:
        package = {"stock": "dramatiq_pg", "postgres": "dramatiq_postgres"}[contender.name]
        code = f"from {package} import generate_init_sql; print(generate_init_sql())"
        made = subprocess.run([contender.python, "-c", code], check=True, capture_output=True, text=True)
        sql = made.stdout
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.encode())


async def _first_slots(url: str) -> None:
    db = Database(url, connections=1, application_name="bench")
    await slots.create_first(db)
    await db.close()
