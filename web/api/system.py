"""``/api/system``: the machinery as it stands, and what may be done about what has failed."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

import falcon.asgi
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from photochanger import limits, outside, schedules, settings, system
from photochanger.failures import InvalidSettings, NotFound
from photochanger.settings import whole_url
from photochanger.storage import StorageAway
from photochanger.storage.local import LocalStorage
from web.api import Page, answer, body, cursor, needs, position, query
from web.live import QueueNews
from web.services import Services


class WorkerView(BaseModel):
    """A worker process."""

    id: int
    host: str
    pid: int
    threads: int
    busy: Annotated[int, Field(ge=0, description="Messages it has in hand.")]
    started_at: datetime
    beat_at: Annotated[datetime, Field(description="Its last sign of life; every half second there is one.")]
    silent_s: float
    draining: Annotated[bool, Field(description="It takes no more and will end.")]


class ScheduleView(BaseModel):
    """A scheduled task."""

    name: str
    every_s: float
    last_run_at: datetime | None
    next_run_at: Annotated[datetime | None, Field(description="When it is due, as long as a scheduler runs.")]
    last_result: dict[str, Any] | None


#: Free bytes, in reserves, under which the disk is worth a look.
ROOMY = 3


class DiskView(BaseModel):
    """The disk that holds the pictures."""

    free_bytes: Annotated[int, Field(ge=0)]
    total_bytes: Annotated[int, Field(ge=0)]
    reserve_bytes: Annotated[int, Field(ge=0, description="With less, photos are refused.")]
    is_there: Annotated[bool, Field(description="False: it is not this installation's disk, or not mounted.")]

    @property
    def light(self) -> Literal["good", "waiting", "failed"]:
        """``failed``: photos are refused; ``waiting``: it is worth a look."""
        if not self.is_there or self.free_bytes < self.reserve_bytes:
            return "failed"
        return "waiting" if self.free_bytes < ROOMY * self.reserve_bytes else "good"


class LimitView(BaseModel):
    """What is used now of a limit or budget."""

    key: Annotated[str, Field(examples=["calls/gemini/at-once"])]
    used: float
    frees_at: Annotated[datetime, Field(description="When the first of it comes back.")]


class Versions(BaseModel):
    """What runs here."""

    photochanger: str
    python: str
    postgresql: str
    migration: str | None


class SystemView(BaseModel):
    """The machinery as it stands."""

    versions: Versions
    queue: QueueNews
    workers: list[WorkerView]
    scheduler: Annotated[str | None, Field(description="The one that acts; null: none runs.")]
    schedules: list[ScheduleView]
    disk: DiskView
    limits: list[LimitView]


class Schedules(BaseModel):
    """Every scheduled task."""

    items: list[ScheduleView]


class DeadLetter(BaseModel):
    """A message whose work has failed for good."""

    id: UUID
    actor: Annotated[str | None, Field(examples=["sweep"])]
    arguments: dict[str, Any] | None
    failed_at: datetime
    trace: Annotated[str | None, Field(description="The end of what was raised.")]


class DeadLetterPage(BaseModel):
    """Dead letters, newest first."""

    items: list[DeadLetter]
    next: Annotated[str | None, Field(description="`after` of the next page; null: this is the last.")]


class Obstacle(BaseModel):
    """What stands in the way. ``values``: what its words name, for who says it in others."""

    code: str
    words: str
    values: dict[str, str | float]


class AddressToCheck(BaseModel):
    """Which address is tried."""

    model_config = ConfigDict(extra="forbid")

    public_base_url: Annotated[
        Annotated[str, Field(max_length=2000), AfterValidator(whole_url)] | None,
        Field(description="Absent or null: the one that is set. It is not saved."),
    ] = None


class AddressCheck(BaseModel):
    """Whether the public address leads here, as seen from this machine."""

    public_base_url: str
    problems: Annotated[list[str], Field(description="What stands in the way; empty: nothing that can be seen.")]
    obstacles: Annotated[list[Obstacle], Field(description="The same, for programs.")]


class System:
    """GET: all of it."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("settings:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        answer(resp, await standing(self._its))


class ScheduleList:
    """GET: when what has run, and runs next."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("settings:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        answer(resp, Schedules(items=await _schedules(self._its)))


class DeadLetters:
    """GET: messages that have failed."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("settings:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        page = query(req, Page)
        place = position(page.after, datetime, UUID)
        after = (place[0], place[1]) if place else None
        rows = await system.dead_letters(self._its.db, after=after, limit=page.limit + 1)
        shown = [DeadLetter.model_validate(row) for row in rows[: page.limit]]
        more = len(rows) > page.limit
        answer(resp, DeadLetterPage(items=shown, next=cursor(shown[-1].failed_at, shown[-1].id) if more else None))


class OneDeadLetter:
    """DELETE: forgets it."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("settings:write")
    async def on_delete(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, message_id: str) -> None:
        await system.drop(self._its.db, _key(message_id), actor=req.context.account.name)
        resp.status = 204


class DeadLetterRequeue:
    """POST: has it tried again."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("settings:write")
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, message_id: str) -> None:
        await system.requeue(self._its.db, _key(message_id), actor=req.context.account.name)
        resp.status = 204


class PublicAddress:
    """POST: tries the public address from here, or one that may become it."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("settings:write")
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        given = await body(req, AddressToCheck) if req.content_type else AddressToCheck()
        base_url = given.public_base_url or (await settings.load(self._its.db)).public_base_url
        if base_url is None:
            raise InvalidSettings("public_base_url is not set: set it to this server's address on the internet first")
        found = await outside.check(base_url)
        obstacles = [Obstacle(code=one.code, words=one.words, values=dict(one.values)) for one in found]
        problems = [one.words for one in found]
        answer(resp, AddressCheck(public_base_url=base_url, problems=problems, obstacles=obstacles))


async def standing(its: Services) -> SystemView:
    """The machinery as it stands now."""
    return SystemView(
        versions=Versions.model_validate(await system.versions(its.db)),
        queue=QueueNews.model_validate(await system.queue(its.db)),
        workers=[WorkerView.model_validate(row) for row in await system.workers(its.db)],
        scheduler=await system.leader(its.db),
        schedules=await _schedules(its),
        disk=await disk(its),
        limits=[LimitView.model_validate(row) for row in await limits.in_use(its.db)],
    )


async def disk(its: Services) -> DiskView:
    """The disk as it stands now.

    Raises:
        Unavailable: the settings were never read, and PostgreSQL cannot be reached.
    """
    current = await its.settings.get()
    free, total = await asyncio.to_thread(_room_of, its.storage, current.media_marker)
    return DiskView(free_bytes=free, total_bytes=total, reserve_bytes=current.disk_reserve_bytes, is_there=total > 0)


def _room_of(storage: LocalStorage, marker: str | None) -> tuple[int, int]:
    """Its free bytes and all; none where it is not there."""
    with contextlib.suppress(StorageAway):  # another machine's pictures: what is here is room for them all the same
        if marker not in (None, storage.marker()):
            return 0, 0
    try:
        usage = shutil.disk_usage(storage.root)
    except OSError:
        return 0, 0
    return usage.free, usage.total


async def _schedules(its: Services) -> list[ScheduleView]:
    ran = {row["name"]: row for row in await system.schedules(its.db)}
    return [_schedule(name, every_s, ran.get(name)) for name, every_s in schedules.EVERY_S.items()]


def _schedule(name: str, every_s: float, row: dict[str, Any] | None) -> ScheduleView:
    if row is None:
        return ScheduleView(name=name, every_s=every_s, last_run_at=None, next_run_at=None, last_result=None)
    return ScheduleView(
        name=name,
        every_s=every_s,
        last_run_at=row["last_run_at"],
        next_run_at=row["last_run_at"] + timedelta(seconds=every_s),
        last_result=row["last_result"],
    )


def _key(message_id: str) -> UUID:
    try:
        return UUID(message_id)
    except ValueError:
        raise NotFound(f"There is no dead letter {message_id[:64]!r}") from None
