"""Pictures in an S3-compatible store, for machines that share no disk. A folder of the media root is this machine's own
then: it holds what is being written, and copies of what was lately stored or fetched here.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import threading
import time
import uuid
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from photochanger import logs
from photochanger.config import ConfigError
from photochanger.storage import KINDS, TEMPORARY, StorageAway
from photochanger.storage.local import MARKER, LocalStorage

if TYPE_CHECKING:
    from obstore.store import S3Store

#: Seconds for which a copy is given out, and after which it is deleted. Between the two, whoever was given it reads it:
#: a job lasts at most two minutes. A picture's bytes are gone from every machine that long after the store's cleaning.
COPY_GIVEN_S, COPY_KEPT_S = 120.0, 300.0
#: Seconds until what a process that was killed has begun to write is deleted; a restored dump may take hours.
BEGUN_KEPT_S = 6 * 3600.0
#: A request's time is that of a part of 5 MiB, two at a time: 1.4 Mbit/s up are enough.
CONNECT_S, REQUEST_S, RETRIES, PARTS = 3.0, 60.0, 2, 2
#: Of a process: while the store hangs they wait, and nothing else does.
THREADS = 16
#: Those that delete, apart: nobody's photo waits for them.
CLEANERS = 4
COPIES = "copies"
#: Seconds between looks at whether the store is there, and in which it must answer one: photos are refused by the last.
LOOK_S, LOOK_ANSWERED_S = 2.0, 1.5
_CLOCK = ".photochanger-clock"


class S3Storage(LocalStorage):
    """Objects under ``url`` (``s3://bucket/prefix``), copies in a folder of ``media_root``, apart from what a store on
    this disk may have left there. Who may read it, and where it is, say the ``AWS_…`` variables that every S3 program
    reads; see ``spec/docs/deployment.md``."""

    def __init__(self, media_root: Path, url: str) -> None:
        super().__init__(media_root / COPIES)
        self.name = f"PHOTOCHANGER_STORE_URL: {url}"
        self._store = _open(url, connect_s=CONNECT_S, request_s=REQUEST_S, retries=RETRIES)
        self._quick = _open(url, connect_s=LOOK_ANSWERED_S, request_s=LOOK_ANSWERED_S, retries=0)
        self._seen: str | StorageAway = ""
        try:
            self.make_folders()
        except OSError as error:
            raise ConfigError(f"PHOTOCHANGER_MEDIA_ROOT: {media_root} cannot be used: {error.strerror}") from None
        self._threads = ThreadPoolExecutor(THREADS, "store")
        self._cleaners = ThreadPoolExecutor(CLEANERS, "store-cleaner")
        threading.Thread(target=_watch, args=[weakref.ref(self)], name="store", daemon=True).start()

    # -- the store --------------------------------------------------------------------------------------------------

    def prepare(self) -> str:
        if not self.marker():
            from obstore.exceptions import AlreadyExistsError

            with contextlib.suppress(AlreadyExistsError), _reached():  # another process was quicker
                self._upload(MARKER, uuid.uuid4().hex.encode(), mode="create")
        return self.marker()

    def marker(self) -> str:
        """As it was at the last look."""
        if self._seen == "":
            self.look()
        if isinstance(self._seen, StorageAway):
            raise StorageAway(self._seen.detail)
        return self._seen

    def look(self) -> None:
        """Asks whether the store is there, and whose it is.

        Raises nothing: what went wrong is what was seen.
        """
        try:
            with _reached():
                self._seen = bytes(self._quick.get(MARKER).bytes()).decode()
        except FileNotFoundError:
            self._seen = ""
        except StorageAway as error:
            self._seen = error
        except Exception as error:  # of a library: the next look must come
            logs.event("loop.failed", loop="store", exc_info=True)
            self._seen = StorageAway(f"The store of pictures cannot be used: {type(error).__name__}")

    def away(self) -> str | None:
        return self._seen.detail if isinstance(self._seen, StorageAway) else None

    def adopt(self, temporary: Path, key: str, *, durable: bool) -> None:
        """The store keeps what it has acknowledged, ``durable`` or not."""
        copy = self.path(key)
        with _reached():
            self._upload(key, temporary)
        os.utime(temporary)
        os.replace(temporary, copy)

    async def put(self, temporary: Path, key: str, *, durable: bool) -> None:
        adopt = functools.partial(self.adopt, temporary, key, durable=durable)
        await asyncio.get_running_loop().run_in_executor(self._threads, adopt)

    async def here(self, key: str) -> Path:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._fetched, key)

    def read(self, key: str) -> Iterator[bytes]:
        self.path(key)
        return self._chunks(key)

    def holds(self, key: str) -> bool:
        self.path(key)
        try:
            with _reached():
                self._store.head(key)
        except FileNotFoundError:
            return False
        return True

    def delete(self, *keys: str) -> int:
        """The store does not tell what was there: all are counted."""
        super().delete(*keys)
        if stored := [key for key in keys if not key.startswith(f"{TEMPORARY}/")]:
            with _reached():
                self._store.delete(stored)
        return len(keys)

    async def remove(self, *keys: str) -> int:
        return await asyncio.get_running_loop().run_in_executor(self._cleaners, functools.partial(self.delete, *keys))

    def keys(self, kind: str) -> list[tuple[str, float]]:
        if kind == TEMPORARY:
            return super().keys(kind)
        with _reached():
            self._upload(_CLOCK, b"")
            now = self._store.head(_CLOCK)["last_modified"]
            listed = [one for page in self._store.list(prefix=f"{kind}/") for one in page]
        return [(one["path"], (now - one["last_modified"]).total_seconds()) for one in listed]

    def _upload(self, key: str, what: Path | bytes, *, mode: Literal["create", "overwrite"] = "overwrite") -> None:
        try:
            self._store.put(key, what, mode=mode, max_concurrency=PARTS)
        except FileNotFoundError as error:
            if isinstance(what, Path) and not what.exists():
                raise
            raise StorageAway(f"The store of pictures has no such bucket: {_words(error)}") from None

    def _chunks(self, key: str) -> Iterator[bytes]:
        with _reached():
            for chunk in self._store.get(key).stream():
                yield bytes(chunk)

    # -- this machine's copies ---------------------------------------------------------------------------------------

    def _fetched(self, key: str) -> Path:
        copy = self.path(key)
        with contextlib.suppress(FileNotFoundError):
            if time.time() - copy.stat().st_mtime < COPY_GIVEN_S:
                return copy
        temporary = self.temporary()
        try:
            with temporary.open("xb") as file:
                file.writelines(self._chunks(key))
            os.replace(temporary, copy)
        finally:
            temporary.unlink(missing_ok=True)
        return copy

    def sweep(self) -> None:
        """Deletes this machine's copies that are ``COPY_KEPT_S`` old, and what was begun ``BEGUN_KEPT_S`` ago."""
        for kind in KINDS:
            kept_s = BEGUN_KEPT_S if kind == TEMPORARY else COPY_KEPT_S
            super().delete(*(key for key, age_s in super().keys(kind) if age_s > kept_s))


def _watch(its: weakref.ref[S3Storage]) -> None:
    """For as long as anybody uses it."""
    while (store := its()) is not None:
        store.look()
        with contextlib.suppress(OSError):  # its disk is gone
            store.make_folders()
            store.sweep()
        del store
        time.sleep(LOOK_S)


def _open(url: str, *, connect_s: float, request_s: float, retries: int) -> S3Store:
    try:
        from obstore.exceptions import BaseError
        from obstore.store import S3Store
    except ImportError:
        raise ConfigError("PHOTOCHANGER_STORE_URL: an S3 store needs the package obstore (extra s3)") from None
    plain = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
    try:
        return S3Store.from_url(
            url,
            client_options={
                "allow_http": plain,
                "connect_timeout": timedelta(seconds=connect_s),
                "timeout": timedelta(seconds=request_s),
            },
            retry_config={"max_retries": retries, "retry_timeout": timedelta(seconds=request_s)},
        )
    except BaseError as error:
        raise ConfigError(f"PHOTOCHANGER_STORE_URL: {_words(error)}") from None


@contextlib.contextmanager
def _reached() -> Iterator[None]:
    """
    Raises:
        StorageAway: the store cannot be reached, or says no.
        FileNotFoundError: it does not have the object.
    """
    from obstore.exceptions import AlreadyExistsError, BaseError

    try:
        yield
    except AlreadyExistsError:
        raise
    except BaseError as error:
        raise StorageAway(f"The store of pictures cannot be used: {_words(error)}") from None


def _words(error: Exception) -> str:
    """What obstore says before its XML and traces, without the address: guests may read it."""
    return re.sub(r"\w+ https?://\S+", "a request", str(error).partition("\n")[0])[:200]
