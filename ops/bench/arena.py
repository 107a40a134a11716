"""One bench run's surroundings: the server, a fresh database for each contender, and every process it starts.

Whatever ends the run, ``close`` leaves nothing behind: every process is the leader of a group of its own, and dies
with the bench.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil
import psycopg

from ops.bench import stamps
from ops.bench.contenders import BUILD, FLOOR, QUEUES, Contender, install, prepare
from photochanger.config import PROJECT
from photochanger.embedded import EmbeddedPostgres
from photochanger.process import die_with_parent

T = TypeVar("T")

THREADS = 8
BOOT_S = 30.0

#: A message as dramatiq writes it, for all three tables.
_LOAD = """
INSERT INTO dramatiq.queue (message_id, queue_name, state, message)
SELECT id, 'default', 'queued', jsonb_build_object(
    'queue_name', 'default', 'actor_name', %(actor)s::text, 'args', '[]'::jsonb, 'kwargs', %(kwargs)s::jsonb,
    'options', '{}'::jsonb, 'message_id', id::text, 'message_timestamp', 1700000000000)
FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, %(count)s)) AS one
"""
_UNFINISHED = b"SELECT EXISTS (SELECT FROM dramatiq.queue WHERE state IN ('queued', 'consumed'))"


def wait(condition: Callable[[], T], *, within_s: float, what: str = "", every_s: float = 0.01) -> T:
    """The first true value of ``condition``; its last one after ``within_s``.

    Raises:
        RuntimeError: it did not come true, and ``what`` says that it must.
    """
    end = time.monotonic() + within_s
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(every_s)
    if what and not value:
        raise RuntimeError(f"{what}: not within {within_s:g} s")
    return value


class Workers:
    """One dramatiq master with its worker processes."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, began: float) -> None:
        self.process = process
        self.stamps = folder / "stamps"
        self.log = folder / "log"
        self.began = began

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Sends ``number`` to the master and its processes; nothing when they are gone already."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)
        if number == signal.SIGKILL:
            self.process.wait()


class Arena:
    """``rounds``: how often every contender has its turn; ``quick``: smaller figures, to try the bench itself."""

    def __init__(self, *, quick: bool, full: bool, rounds: int) -> None:
        self.quick = quick
        self.full = full
        self.rounds = rounds
        self.scratch = Path()
        #: Medians that later figures compare with.
        self.found: dict[str, float] = {}
        self._server = EmbeddedPostgres(BUILD / "pg")
        self._server_url = ""
        self._urls: dict[str, str] = {}
        self._admin: dict[str, psycopg.Connection[Any]] = {}
        self._processes: list[subprocess.Popen[bytes]] = []

    # -- life ---------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        for contender in QUEUES:
            install(contender)
        self.scratch = Path(tempfile.mkdtemp(prefix="run-", dir=BUILD))
        self._server_url = self._server.start()
        for contender in (*QUEUES, FLOOR):
            self._urls[contender.name] = self.database(f"bench_{contender.name}")
            prepare(contender, self._urls[contender.name])

    def close(self) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for connection in self._admin.values():
            connection.close()
        try:
            if self._server_url:
                for name in self._databases():
                    self._drop(name)
        finally:
            self._server.stop()
            if self.scratch != Path():
                shutil.rmtree(self.scratch, ignore_errors=True)

    def turns(self, contenders: Sequence[Contender], rounds: int | None = None) -> Iterator[Contender]:
        """Every contender once a round, each round beginning with another one."""
        for number in range(rounds or self.rounds):
            first = number % len(contenders)
            yield from (*contenders[first:], *contenders[:first])

    # -- databases ----------------------------------------------------------------------------------------------------

    def database(self, name: str) -> str:
        """The URL of a database made anew."""
        self._drop(name)
        with psycopg.connect(self._server_url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        head, _, query = self._server_url.partition("?")
        return f"{head.rsplit('/', 1)[0]}/{name}?{query}"

    def _drop(self, name: str) -> None:
        with psycopg.connect(self._server_url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())

    def _databases(self) -> list[str]:
        with psycopg.connect(self._server_url, autocommit=True) as connection:
            return [
                name for (name,) in connection.execute(b"SELECT datname FROM pg_database WHERE datname ~ '^bench_'")
            ]

    def url(self, contender: Contender) -> str:
        return self._urls[contender.name]

    def sql(self, contender: Contender, statement: str, params: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Runs one statement on the bench's own connection to the contender's database."""
        if contender.name not in self._admin:
            self._admin[contender.name] = psycopg.connect(self.url(contender), autocommit=True)
        cursor = self._admin[contender.name].execute(statement.encode(), params)
        return cursor.fetchall() if cursor.description is not None else []

    def version(self) -> str:
        return str(self.sql(FLOOR, "SELECT split_part(version(), ' on ', 1)")[0][0])

    def clear(self, contender: Contender) -> None:
        """Ends what is left of the contender's connections and empties its tables."""
        others = (
            "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND backend_type = 'client backend'"
        )
        self.sql(contender, f"SELECT pg_terminate_backend(pid) {others}")
        wait(
            lambda: self.sql(contender, f"SELECT count(*) = 0 {others}")[0][0],
            within_s=10,
            what="old connections are gone",
        )
        tables = {"ours": "dramatiq.queue, dramatiq.worker", "postgres": "dramatiq.queue, dramatiq.worker"}
        default = "message" if contender is FLOOR else "dramatiq.queue"
        self.sql(contender, f"TRUNCATE {tables.get(contender.name, default)} CASCADE")

    def load(self, contender: Contender, count: int, actor: str, *, ring: bool, **kwargs: Any) -> None:
        """Puts ``count`` messages into the queue at once, and says so as the contender's producer would."""
        params = {"actor": actor, "kwargs": json.dumps(kwargs), "count": count}
        self.sql(contender, "BEGIN")
        self.sql(contender, _LOAD, params)
        if ring:
            self.sql(contender, contender.ring)
        self.sql(contender, "COMMIT")

    def unfinished(self, contender: Contender) -> bool:
        return bool(self.sql(contender, _UNFINISHED.decode())[0][0])

    # -- processes ----------------------------------------------------------------------------------------------------

    def spawn(self, argv: Sequence[Any], *, env: dict[str, str], **options: Any) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [str(part) for part in argv],
            cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": str(PROJECT), **env},
            start_new_session=True,
            preexec_fn=die_with_parent,
            **options,
        )
        self._processes.append(process)
        return process

    def workers(self, contender: Contender, processes: int, *, folder: Path | None = None) -> Workers:
        """Starts the contender's workers with the real dramatiq CLI; ``folder`` joins those of an earlier call."""
        folder = folder or Path(tempfile.mkdtemp(dir=self.scratch))
        argv = [contender.python, "-m", "dramatiq", f"ops.bench.workers.{contender.name}", "--path", PROJECT]
        argv += ["--processes", processes, "--threads", THREADS, "--skip-logging"]
        env = {
            "BENCH_URL": self.url(contender),
            "BENCH_STAMPS": str(folder / "stamps"),
            "BENCH_RELEASE": str(folder / "release"),
        }
        began = time.monotonic()
        with (folder / "log").open("ab") as log:
            options = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            return Workers(self.spawn(argv, env=env, **options), folder, began)

    def ready(self, contender: Contender, processes: int) -> None:
        """Waits until ``processes`` worker processes listen."""
        count = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND state = 'idle' AND query <> ''"
        )
        wanted = contender.connections * processes
        wait(
            lambda: self.sql(contender, count)[0][0] >= wanted,
            within_s=BOOT_S,
            what=f"{processes} processes of {contender.title} listen",
        )
        time.sleep(0.3)

    def python(self, module: str, argv: Sequence[Any], env: dict[str, str]) -> subprocess.Popen[bytes]:
        """Starts a module of ours whose answer is read with ``answer``."""
        return self.spawn(
            [sys.executable, "-m", module, *argv], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )

    def send(self, contender: Contender, **options: float) -> subprocess.Popen[bytes]:
        """Starts ``ops.bench.send`` in the contender's environment."""
        argv: list[Any] = [contender.python, "-m", "ops.bench.send", contender.name]
        for name, value in options.items():
            argv += [f"--{name}", value]
        return self.spawn(argv, env={"BENCH_URL": self.url(contender)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def answer(process: subprocess.Popen[bytes], *, within_s: float) -> Any:
    """What a process of ours printed as JSON when it ended."""
    output, _ = process.communicate(timeout=within_s)
    if process.returncode:
        raise RuntimeError(f"{process.args!r} ended with status {process.returncode}")
    return json.loads(output)


def turn(process: subprocess.Popen[bytes]) -> Any:
    """The next line of JSON from a process of ours."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{process.args!r} ended early")
    return json.loads(line)


def wait_for(path: Path, count: int, *, within_s: float) -> list[stamps.Stamp]:
    """The records in ``path`` once there are ``count``, or as many as there are after ``within_s``."""
    wait(lambda: stamps.count(path) >= count, within_s=within_s)
    return stamps.read(path)


def resident(pid: float) -> float:
    """MB of memory a process holds."""
    return float(psutil.Process(int(pid)).memory_info().rss) / 1e6
