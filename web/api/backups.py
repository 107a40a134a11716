"""``/api/system/backups``: the backups that are kept, and one more."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated

import falcon.asgi
from pydantic import BaseModel, Field

from photochanger import backups, settings
from photochanger.db import Database
from photochanger.failures import Conflict
from web.api import answer, needs
from web.services import Services


class Backup(BaseModel):
    """A backup that is kept."""

    name: Annotated[str, Field(examples=["photochanger-20261130-020000.tar"])]
    bytes: Annotated[int, Field(ge=0)]
    made_at: datetime


class BackupProgress(BaseModel):
    """How far the one that is being made is."""

    written_bytes: Annotated[int, Field(ge=0, description="As far as it can be seen from this machine.")]
    expected_bytes: Annotated[int, Field(ge=0, description="About how many there will be: the pictures.")]


class BackupFailure(BaseModel):
    """Why there was none the last time."""

    at: datetime
    code: Annotated[str, Field(examples=["storage_full"])]
    detail: str


class Backups(BaseModel):
    """The backups in this machine's folder, newest first."""

    folder: Annotated[str, Field(description="On the server. A backup is fetched from there, never over HTTP.")]
    items: list[Backup]
    running: BackupProgress | None
    failure: Annotated[BackupFailure | None, Field(description="Of the last one tried; null: it was made.")]
    next_at: Annotated[datetime | None, Field(description="When the nightly one is due; null: they are switched off.")]


class BackupList:
    """GET: the backups. POST: has one made now."""

    def __init__(self, services: Services) -> None:
        self._its = services
        self._making: set[asyncio.Task[None]] = set()

    @needs("settings:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        answer(resp, await standing(self._its))

    @needs("settings:write")
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        db = self._its.db
        holder = await backups.begin(db, actor=req.context.account.name)
        if holder is None:
            raise Conflict("A backup is being made already")
        making = asyncio.create_task(backups.run_apart(db, holder))
        self._making.add(making)
        making.add_done_callback(self._making.discard)
        answer(resp, await standing(self._its), 202)


async def standing(its: Services) -> Backups:
    """The backups as they stand now."""
    current = await settings.load(its.db)
    folder = its.config.backups
    kept = await asyncio.to_thread(backups.kept, folder)
    running = None
    if await backups.is_running(its.db):
        running = BackupProgress(
            written_bytes=await asyncio.to_thread(backups.written_bytes, folder),
            expected_bytes=await backups.expected_bytes(its.db, with_results=current.backup_results),
        )
    return Backups(
        folder=str(folder),
        items=[Backup.model_validate(vars(one)) for one in kept],
        running=running,
        failure=await failure(its.db),
        next_at=await backups.next_at(its.db, current),
    )


async def failure(db: Database) -> BackupFailure | None:
    """What went wrong with the last one tried, if anything."""
    last = await backups.last(db)
    if last is None or "failed" not in last["last_result"]:
        return None
    result = last["last_result"]
    return BackupFailure(at=last["last_run_at"], code=result["failed"], detail=result["detail"])
