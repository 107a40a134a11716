"""A whole installation as a user runs it: ``photochanger up`` with a home and a port of its own, over real HTTP."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx
import psutil
import psycopg
from psycopg.rows import dict_row

T = TypeVar("T")

INGEST_PASSWORD = "test-ingest-password"
READY_S = 60.0


def until(condition: Callable[[], T], *, within_s: float, what: str) -> T:
    """Waits for ``condition`` to be true and returns it; fails the test after ``within_s`` seconds. Of a page it asks
    by ``evaluate``: a page's policy forbids the ``eval`` by which Playwright's own ``wait_for_function`` asks again."""
    give_up = time.monotonic() + within_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > give_up:
            raise AssertionError(f"{what}: not within {within_s} s")
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Installation:
    """Runs between ``__enter__`` and ``__exit__``. ``log`` holds what it printed, ``url`` its address."""

    def __init__(
        self,
        home: Path,
        *,
        database_url: str | None = None,
        port: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.home = home
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log: list[str] = []
        self._env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PHOTOCHANGER_")},
            "PORT": str(self.port),
            "PHOTOCHANGER_HOST": "127.0.0.1",
            "PHOTOCHANGER_HOME": str(home),
            "PHOTOCHANGER_INGEST_PASSWORD": INGEST_PASSWORD,
            **({"PHOTOCHANGER_DATABASE_URL": database_url} if database_url else {}),
            **(env or {}),
        }
        self._database_url = database_url
        self.process: subprocess.Popen[str]

    # -- life -------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Installation:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if error is not None:
            print("".join(self.log[-200:]))

    def start(self) -> None:
        """Starts it and returns when its banner is printed."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "photochanger.cli", "up"],
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # under nohup the tests ignore it
        )
        lines: queue.Queue[str | None] = queue.Queue()

        def read() -> None:
            assert self.process.stdout is not None
            with self.process.stdout as output:
                for line in output:
                    self.log.append(line)
                    lines.put(line)
            lines.put(None)

        self._reader = threading.Thread(target=read, daemon=True)
        self._reader.start()
        give_up = time.monotonic() + READY_S
        while (line := lines.get(timeout=max(0.1, give_up - time.monotonic()))) is not None:
            if "Ctrl-C stops everything" in line:
                return
        self.process.wait(10)
        raise AssertionError("it did not start:\n" + "".join(self.log))

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stops it as Ctrl-C or a service manager would; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            status = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
            raise AssertionError("it did not stop within 30 s:\n" + "".join(self.log[-50:])) from None
        self._reader.join(5)
        return status

    def part(self, name: str) -> psutil.Process:
        """The process of ``web``, ``worker`` (dramatiq's master) or ``scheduler``."""
        wanted = {"web": "web.app:app", "worker": "dramatiq", "scheduler": "actors.scheduler"}[name]

        def find() -> psutil.Process | None:
            for child in psutil.Process(self.process.pid).children():
                with contextlib.suppress(psutil.Error):
                    if wanted in child.cmdline():
                        return child
            return None

        found = until(find, within_s=15, what=f"a {name} process")
        assert found is not None
        return found

    def decoders(self) -> list[psutil.Process]:
        """The guarded processes of ``web``, which come from its fork server."""
        web = self.part("web")
        return [one for one in web.children(recursive=True) if one.ppid() != web.pid]

    def worker_pid(self) -> int:
        """The pid of the worker process that holds the queue's lease."""
        row = until(
            lambda: self.sql("SELECT pid FROM dramatiq.worker ORDER BY id DESC LIMIT 1"), within_s=15, what="a worker"
        )
        return int(row[0]["pid"])

    def cli(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Runs ``photochanger`` with this installation's environment, as its administrator would."""
        return subprocess.run(
            [sys.executable, "-m", "photochanger.cli", *arguments],
            env=self._env,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def done(self, *arguments: str, stdin: str = "") -> str:
        """``cli``, which must succeed; what it printed."""
        ran = self.cli(*arguments, stdin=stdin)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    # -- what it holds ----------------------------------------------------------------------------------------------

    def sql(self, statement: str, *parameters: Any) -> list[dict[str, Any]]:
        url = self._database_url or (self.home / "run" / "database_url").read_text().strip()
        with psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection:
            cursor = connection.execute(statement.encode(), parameters or None)
            return cursor.fetchall() if cursor.description is not None else []

    def files(self, kind: str) -> list[Path]:
        return sorted((self.home / "media" / kind).glob("*"))

    def post(
        self,
        photo: bytes,
        *,
        slot: str = "slot-001",
        password: str | None = INGEST_PASSWORD,
        name: str = "IMG_0003.JPG",
        timeout: float = 70,
        headers: Mapping[str, str] | None = None,
        **fields: str,
    ) -> httpx.Response:
        """Sends a photo as a camera would."""
        data = {**fields, **({"password": password} if password is not None else {})}
        return httpx.post(
            f"{self.url}/ingest/{slot}",
            data=data,
            files={"fileToUpload": (name, photo, "image/jpeg")},
            headers=dict(headers or {}),
            timeout=timeout,
            trust_env=False,
        )


_TOKEN = re.compile(r"<([^>]+)>; rel=\"?alternate")


def result_link(response: httpx.Response) -> str:
    """The public link that came with a picture."""
    match = _TOKEN.search(response.headers["link"])
    assert match is not None
    return match[1]
