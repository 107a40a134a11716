"""The whole way of a photo, from the camera's request to its answer, through an installation as a user runs it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import psycopg
from PIL import Image, ImageFilter

from ops.bench.arena import Arena, answer
from ops.bench.client import Answer
from ops.bench.contenders import BUILD, FLOOR, OURS
from ops.bench.report import Row, percentile
from photochanger import schema, slots
from photochanger.db import Database
from photochanger.slots import Route, Rung
from tests.installation import INGEST_PASSWORD, Installation

PHOTOS = 8
SEEDED = 1_000_000
CLIENTS = (4, 8, 16)

_SEED = """
INSERT INTO job ({columns})
SELECT {values} FROM (SELECT * FROM job WHERE status = 'succeeded' LIMIT 1) AS one, generate_series(1, {count}) AS n
"""
#: What differs from the row that is copied: jobs of the last 300 days whose files are cleaned up.
_DIFFERENT = {
    "id": "gen_random_uuid()",
    "payload_path": "NULL",
    "result_file_path": "NULL",
    **{
        name: f"one.{name} - n * interval '26 seconds'"
        for name in ("created_at", "expires_at", "claimed_at", "finalized_at", "result_expires_at")
    },
}


def ingest(arena: Arena) -> list[Row]:
    """One client beside the floor, then several clients at once."""
    with _installed(arena, "a") as (installation, url):
        _send(arena, [installation], 1.5)
        rows = _one_client(arena, installation, url)
        for clients in CLIENTS:
            row = Row(f"ingest, {clients} clients", "photos/s")
            for _ in range(arena.rounds):
                got = _send(arena, [installation], 1.5 if arena.quick else 2.5, clients=clients)
                row.add(OURS, len(got["answers"]) / got["seconds"])
            row.goal("≥100/s", row.median(OURS) >= 100)
            rows.append(row)
    return rows


def _one_client(arena: Arena, installation: Installation, url: str) -> list[Row]:
    over = {
        name: Row(f"ingest, 1 client: overhead {name} (floor: bare trip)", "ms", digits=1) for name in ("p50", "p95")
    }
    image = {name: Row(f"ingest, 1 client: image work {name}", "ms", digits=1) for name in ("p50", "p95")}
    for _ in range(arena.rounds):
        got = _send(arena, [installation], 2.0 if arena.quick else 5.0, floor=arena.url(FLOOR))
        worked = _image_work(url, got["answers"])
        overhead = [one.seconds - worked[one.job_id] for one in got["answers"]]
        for name, share in (("p50", 0.5), ("p95", 0.95)):
            over[name].add(OURS, percentile(overhead, share) * 1000)
            over[name].add(FLOOR, percentile(got["trips"], share) * 1000)
            image[name].add(OURS, percentile(list(worked.values()), share) * 1000)
    for row in over.values():
        row.times(FLOOR, 3, at_least=False)
    return [*over.values(), *image.values()]


def million(arena: Arena) -> list[Row]:
    """Two installations side by side, photo by photo in turn: one whose job table is new, one with a million rows."""
    empty = Row("ingest, 1 client: p95 of the whole answer, no jobs yet", "ms", digits=1)
    full = Row("ingest, 1 client: the same with 1M finished jobs", "ms", digits=1)
    with ExitStack() as stack:
        (new, _), (old, url) = (stack.enter_context(_installed(arena, name)) for name in ("a", "b"))
        _send(arena, [new, old], 2.0)
        _seed(url)
        _send(arena, [new, old], 1.0)
        for _ in range(arena.rounds):
            got = _send(arena, [new, old], 5.0)
            for row, installation in ((empty, new), (full, old)):
                seconds = [one.seconds for one in got["answers"] if one.port == installation.port]
                row.add(OURS, percentile(seconds, 0.95) * 1000)
    ratio = median(a / b for a, b in zip(full.values[OURS.name], empty.values[OURS.name], strict=True))
    full.goal(f"≤1.1× that with none ({ratio:.2f})", ratio <= 1.1)
    return [empty, full]


@contextmanager
def _installed(arena: Arena, name: str) -> Iterator[tuple[Installation, str]]:
    """An installation of the bench's own whose first slot does one decode and one encode, and its database's URL."""
    home = BUILD / f"home-{name}"
    shutil.rmtree(home, ignore_errors=True)
    url = arena.database(f"bench_home_{name}")
    schema.migrate(url)
    asyncio.run(_route_through_original(url))
    installation = Installation(home, database_url=url)
    try:
        installation.start()
        yield installation, url
    finally:
        installation.stop()
        shutil.rmtree(home, ignore_errors=True)


async def _route_through_original(url: str) -> None:
    db = Database(url, connections=1, application_name="bench")
    await slots.create_first(db)
    first = (await slots.all_slots(db))["slot-001"]
    route = Route(rungs=[Rung(provider="local", operation="original")])
    await slots.save(db, first.model_copy(update={"route": route}))
    await db.close()


def _send(
    arena: Arena, installations: list[Installation], seconds: float, *, clients: int = 1, floor: str = ""
) -> dict[str, Any]:
    """Runs the cameras in a process of their own.

    Raises:
        RuntimeError: a photo was not answered with a picture.
    """
    argv: list[Any] = ["--seconds", seconds, "--clients", clients, "--photos", _photos(arena.scratch / "photos")]
    for installation in installations:
        argv += ["--port", installation.port]
    if floor:
        argv += ["--floor", floor]
    process = arena.python("ops.bench.client", argv, {"BENCH_PASSWORD": INGEST_PASSWORD})
    got: dict[str, Any] = answer(process, within_s=seconds + 120)
    got["answers"] = [Answer(*one) for one in got["answers"]]
    if refused := [one.status for one in got["answers"] if one.status != 200]:
        log = "".join(installations[0].log[-20:])
        raise RuntimeError(f"{len(refused)} of {len(got['answers'])} photos were answered with {set(refused)}:\n{log}")
    return got


def _photos(folder: Path) -> Path:
    """1024×768 JPEGs of about 100 KB."""
    if not folder.exists():
        folder.mkdir()
        for number in range(PHOTOS):
            noise = Image.effect_noise((1024, 768), 30).convert("RGB").filter(ImageFilter.GaussianBlur(1.5))
            noise.save(folder / f"{number}.jpg", "JPEG", quality=87)
    return folder


def _image_work(url: str, answers: list[Answer]) -> dict[str, float]:
    """Seconds between dispatch and the provider's answer, by job."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            b"SELECT job_id::text, sum(extract(epoch FROM responded_at - dispatched_at))::float8 FROM attempt "
            b"WHERE job_id = ANY(%s::uuid[]) GROUP BY job_id",
            ([one.job_id for one in answers],),
        )
        return dict(rows.fetchall())


def _seed(url: str) -> None:
    """Copies one finished job a million times, whatever columns a job has."""
    with psycopg.connect(url, autocommit=True) as connection:
        names = [
            name
            for (name,) in connection.execute(
                b"SELECT column_name FROM information_schema.columns "
                b"WHERE table_schema = 'public' AND table_name = 'job' AND is_generated = 'NEVER'"
            )
        ]
        values = ", ".join(_DIFFERENT.get(name, f"one.{name}") for name in names)
        connection.execute(_SEED.format(columns=", ".join(names), values=values, count=SEEDED).encode())
        connection.execute(b"VACUUM ANALYZE job")
