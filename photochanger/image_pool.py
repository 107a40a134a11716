"""Guarded processes for work on pictures: a decoder that crashes, hangs or swells takes down its own job only.

One task at a time in each process; a process that breaks is replaced. (In one shared pool of executors a single
crash failed nine of its twelve neighbours; an executor per process costs two threads and four hand-overs a photo.)
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import resource
import signal
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from photochanger import images
from photochanger.failures import InvalidImage
from photochanger.process import die_with_parent
from photochanger.storage.local import full_or

T = TypeVar("T")

#: Address space of one image process. 110 megapixels decode to 330 MB as RGB; turning and encoding hold three
#: such copies, an RGBA conversion a fourth.
MEMORY_BYTES = 2 * 1024**3
#: Seconds in which a picture that an administrator brings must be written anew, waiting for its turn included.
REWRITE_S = 60.0


class ImagePool:
    """``processes`` guarded processes, each started when it is first needed; first come, first served. Use it from one
    event loop, whose thread outlives it."""

    def __init__(self, processes: int) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(
            ["photochanger.image_server", "photochanger.images", "photochanger.providers.local"]
        )
        self._idle: asyncio.Queue[_Process | None] = asyncio.Queue()
        for _ in range(processes):
            self._idle.put_nowait(None)

    async def start(self) -> None:
        """Starts every process now, so that the first guest does not wait for it."""
        count = self._idle.qsize()
        await asyncio.gather(*(self.run(_ready, timeout_s=60) for _ in range(count)))

    async def run(self, work: Callable[..., T], /, *args: Any, timeout_s: float) -> T:
        """Runs ``work(*args)``, picklable, in one of the processes; raises what it raises.

        Raises:
            InvalidImage: the picture crashed the process or swelled over its memory limit.
            TimeoutError: ``timeout_s`` passed; the process is killed with its work.
        """
        async with asyncio.timeout(timeout_s):
            process = await self._idle.get()
            try:
                if process is None:
                    forkserver.ensure_running()  # here, and not in the other thread: it ends with the one it is from
                    process = await asyncio.to_thread(_Process, self._context)  # the first takes half a second
                done, value = await process.ask(work, args)
            except BaseException as error:
                if process is not None:
                    process.kill()
                process = None
                if isinstance(error, EOFError | OSError) and not isinstance(error, TimeoutError):
                    raise InvalidImage("The picture crashed the decoder") from None
                raise
            finally:
                self._idle.put_nowait(process)
        if done:
            return value  # type: ignore[no-any-return]
        raise value

    async def rewrite(
        self, picture: Path, target: Path, mime: str, *, max_pixels: int, timeout_s: float = REWRITE_S
    ) -> tuple[int, int, int, str]:
        """``images.rewrite`` of what an administrator brings, its longer side at most ``images.KEPT_EDGE`` pixels.

        Raises:
            InvalidImage, ImageTooLarge, UnsupportedMediaType: it cannot be decoded, or not within ``timeout_s``.
            StorageFull: the disk is.
        """
        work = (picture, target, mime, max_pixels, images.KEPT_EDGE)
        try:
            return await self.run(images.rewrite, *work, timeout_s=timeout_s)
        except TimeoutError:
            raise InvalidImage(f"The picture could not be decoded within {timeout_s:g} s") from None
        except OSError as error:
            raise full_or(error) from error
        finally:
            self.close()  # a big picture left 350 MB; such pictures are rare, and another process takes 15 ms

    def close(self) -> None:
        """Ends every idle process; others are started when they are needed. Running work ends with its owner."""
        for _ in range(self._idle.qsize()):
            process = self._idle.get_nowait()
            if process is not None:
                process.kill()
            self._idle.put_nowait(None)


class _Process:
    """One guarded process and the pipe to it."""

    def __init__(self, context: multiprocessing.context.ForkServerContext) -> None:
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    async def ask(self, work: Callable[..., Any], args: tuple[Any, ...]) -> tuple[bool, Any]:
        """Sends one task and waits for its end: whether it returned, and what it returned or raised.

        Raises:
            EOFError, OSError: the process is gone.
        """
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._pipe.fileno(), readable.set)
        try:
            self._pipe.send((work, args))
            await readable.wait()
            answer: tuple[bool, Any] = self._pipe.recv()
            return answer
        finally:
            loop.remove_reader(self._pipe.fileno())

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _work(pipe: Connection) -> None:
    """The guarded process: one task after the other, until the pipe ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_parent()
    with contextlib.suppress(EOFError):
        while True:
            work, args = pipe.recv()
            try:
                pipe.send((True, work(*args)))
            except MemoryError:
                pipe.send((False, InvalidImage("The picture needs more memory to decode than is allowed")))
            except Exception as error:
                pipe.send((False, error))


def _ready() -> None:
    return None
