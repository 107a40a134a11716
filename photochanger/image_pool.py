"""Guarded processes for work on pictures: a decoder that crashes, hangs or swells takes down its own job only.

One task at a time in each process; a process that breaks is replaced. (In one shared pool of executors a single
crash failed nine of its twelve neighbours.)
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import resource
import signal
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from photochanger.failures import InvalidImage
from photochanger.process import die_with_parent

T = TypeVar("T")

#: Address space of one image process. 110 megapixels decode to 330 MB as RGB; turning and encoding hold three
#: such copies, an RGBA conversion a fourth.
MEMORY_BYTES = 2 * 1024**3


class ImagePool:
    """``processes`` guarded processes. ``run`` queues first come, first served.

    Raises (``run``):
        InvalidImage: the picture crashed the process or swelled over the memory limit.
        TimeoutError: ``timeout_s`` passed; the process is killed with its work.
    """

    def __init__(self, processes: int) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(
            ["photochanger.image_server", "photochanger.images", "photochanger.providers.local"]
        )
        self._idle: asyncio.Queue[ProcessPoolExecutor | None] = asyncio.Queue()
        for _ in range(processes):
            self._idle.put_nowait(None)

    async def start(self) -> None:
        """Starts every process now, so that the first guest does not wait for it."""
        count = self._idle.qsize()
        await asyncio.gather(*(self.run(_ready, timeout_s=60) for _ in range(count)))

    async def run(self, work: Callable[..., T], /, *args: Any, timeout_s: float) -> T:
        async with asyncio.timeout(timeout_s):
            executor = await self._idle.get()
            future: Future[T] | None = None
            try:
                if executor is None:
                    executor = ProcessPoolExecutor(1, mp_context=self._context, initializer=_guard)
                future = executor.submit(work, *args)
                return await asyncio.wrap_future(future)
            except BrokenProcessPool:
                raise InvalidImage("The picture crashed the decoder") from None
            except MemoryError:
                raise InvalidImage("The picture needs more memory to decode than is allowed") from None
            finally:
                if executor is not None and (future is None or not future.done() or _broke(future)):
                    _discard(executor)
                    executor = None
                self._idle.put_nowait(executor)

    def close(self) -> None:
        """Ends every idle process; running work is killed with the worker."""
        while not self._idle.empty():
            executor = self._idle.get_nowait()
            if executor is not None:
                _discard(executor)


def _broke(future: Future[T]) -> bool:
    return future.cancelled() or isinstance(future.exception(), BrokenProcessPool)


def _discard(executor: ProcessPoolExecutor) -> None:
    for process in list((executor._processes or {}).values()):
        with contextlib.suppress(OSError):
            process.kill()
    executor.shutdown(wait=False, cancel_futures=True)


def _guard() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_parent()


def _ready() -> None:
    return None
