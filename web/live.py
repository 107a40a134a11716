"""What happens now, for whoever watches: one poller per process while anybody does, whatever their number."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime
from types import FrameType
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from photochanger import logs, system
from photochanger.db import Database, Row
from photochanger.failures import Forbidden, InvalidToken, Unavailable
from photochanger.states import JobStatus

#: Seconds between looks.
EVERY_S = 1.0
#: A stream without news says so after as many seconds, and asks whether its reader may still listen.
PING_S = 15.0
#: Watchers of one process, and events that wait for a slow one before it is told to begin anew.
MOST_WATCHERS = 100
MOST_WAITING = 500
#: Jobs made so long ago do not change any more: the longest deadline, and a late call.
AGE_S = 130
#: Of so many. With more, whoever watches is told to read anew what is shown.
MOST_LOOKED_AT = 500

_JOBS = f"""
SELECT id AS job_id, slot_id, status::text AS status, failure_reason, created_at, expires_at, claimed_at, finalized_at,
       served_by, is_test, result_expires_at,
       result_file_path IS NOT NULL AND result_expires_at > clock_timestamp() AS has_result
FROM job WHERE created_at > clock_timestamp() - interval '{AGE_S} s' ORDER BY created_at DESC LIMIT {MOST_LOOKED_AT}
"""  # noqa: S608 - our own constant


class JobNews(BaseModel):
    """A job that was made, taken, or has ended: event `job`."""

    job_id: UUID
    slot_id: str
    status: JobStatus
    failure_reason: str | None
    created_at: datetime
    expires_at: datetime
    claimed_at: datetime | None
    finalized_at: datetime | None
    served_by: str | None
    is_test: bool
    picture: Annotated[str | None, Field(description="Path of its picture on this server; null: there is none.")]


class QueueNews(BaseModel):
    """How the queue stands: event `queue`."""

    queued: Annotated[int, Field(ge=0, description="Messages that wait.")]
    running: Annotated[int, Field(ge=0)]
    dead: Annotated[int, Field(ge=0, description="Messages that have failed.")]
    oldest_s: Annotated[float, Field(ge=0, description="How long the oldest has waited.")]
    workers: Annotated[int, Field(ge=0)]


class News(BaseModel):
    """One event of the stream. `hello` comes first, `missed` where there was too much news: read anew what is shown."""

    event: Literal["hello", "job", "queue", "missed"]
    data: JobNews | QueueNews | None = None


#: The process ends.
_END = News(event="missed")


class Live:
    """The watchers of one process. ``picture``: the path of a job's picture, with its token."""

    def __init__(self, db: Database, picture: Callable[[UUID, datetime], str]) -> None:
        self._db = db
        self._picture = picture
        self._watchers: set[asyncio.Queue[News]] = set()
        self._task: asyncio.Task[None] | None = None
        self._known: dict[UUID, tuple[Any, ...]] | None = None
        self._queue: QueueNews | None = None
        self._closed = False

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another watcher."""
        return self._closed or len(self._watchers) >= MOST_WATCHERS

    def open(self) -> None:
        """Ends the streams as soon as the process is told to stop: the server waits for them before anything else."""
        with contextlib.suppress(ValueError):  # not in the main thread: somebody else handles signals
            for number in (signal.SIGTERM, signal.SIGINT):
                self._close_at(number)

    def _close_at(self, number: signal.Signals) -> None:
        loop = asyncio.get_running_loop()
        before = signal.getsignal(number)

        def stop(number: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(self.close)
            if callable(before):
                before(number, frame)

        signal.signal(number, stop)

    def close(self) -> None:
        self._closed = True
        for watcher in self._watchers:
            _tell(watcher, _END)
        if self._task is not None:
            self._task.cancel()

    async def watch(self, may_listen: Callable[[], Awaitable[object]]) -> AsyncIterator[News | None]:
        """The news from now on, ``None`` after ``PING_S`` without; ends with the process, and within ``PING_S`` of when
        ``may_listen`` begins to raise ``InvalidToken`` or ``Forbidden``, however much news there is."""
        with self._watching() as queue:
            yield News(event="hello")
            if self._queue is not None:
                yield News(event="queue", data=self._queue)
            ask_at = time.monotonic() + PING_S
            while True:
                news = await _next(queue, ask_at - time.monotonic())
                if time.monotonic() >= ask_at:
                    if not await _may(may_listen):
                        return
                    ask_at = time.monotonic() + PING_S
                if news is _END:
                    return
                yield news

    @contextlib.contextmanager
    def _watching(self) -> Iterator[asyncio.Queue[News]]:
        queue: asyncio.Queue[News] = asyncio.Queue(MOST_WAITING)
        self._watchers.add(queue)
        if self._task is None or self._task.done():
            self._known = None
            self._task = asyncio.get_running_loop().create_task(self._run())
        try:
            yield queue
        finally:
            self._watchers.discard(queue)

    async def _run(self) -> None:
        while self._watchers:
            try:
                await self._look()
            except Unavailable:
                pass
            except Exception:
                logs.event("loop.failed", loop="live", exc_info=True)
            await asyncio.sleep(EVERY_S)

    async def _look(self) -> None:
        rows = await self._db.fetch(_JOBS)
        seen = {row["job_id"]: (row["status"], row["has_result"]) for row in rows}
        if self._known is not None:
            for row in reversed(rows):
                if self._known.get(row["job_id"]) != seen[row["job_id"]]:
                    self._spread(News(event="job", data=self._job(row)))
            if len(rows) == MOST_LOOKED_AT and seen != self._known:  # what has happened to the older is not seen
                self._spread(News(event="missed"))
        self._known = seen
        queue = QueueNews(**await system.queue(self._db))
        if queue != self._queue:
            self._queue = queue
            self._spread(News(event="queue", data=queue))

    def _job(self, row: Row) -> JobNews:
        path = self._picture(row["job_id"], row["result_expires_at"]) if row["has_result"] else None
        return JobNews(**row, picture=path)

    def _spread(self, news: News) -> None:
        for watcher in self._watchers:
            _tell(watcher, news)


async def _next(queue: asyncio.Queue[News], patience_s: float) -> News | None:
    try:
        async with asyncio.timeout(patience_s):
            return await queue.get()
    except TimeoutError:
        return None


async def _may(listen: Callable[[], Awaitable[object]]) -> bool:
    try:
        await listen()
    except (InvalidToken, Forbidden):
        return False
    except Unavailable:
        pass
    return True


def _tell(watcher: asyncio.Queue[News], news: News) -> None:
    """Puts news in; who is too slow loses all of it, and is told."""
    if watcher.full():
        while not watcher.empty():
            watcher.get_nowait()
        watcher.put_nowait(News(event="missed"))
    watcher.put_nowait(news)
