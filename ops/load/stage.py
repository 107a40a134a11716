"""What a load run stands on: a database, a simulated provider and an installation of its own, and their end."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg

from ops.simulators import KEY
from photochanger.config import PROJECT
from photochanger.embedded import EmbeddedPostgres
from photochanger.process import die_with_parent
from tests.installation import Installation, free_port, until
from tests.photos import photo

BUILD = PROJECT / "build" / "load"
DATABASE = "photochanger_load"
SLOT = "slot-001"
MODEL = "gpt-image-1-mini"
BOOT_S = 30.0
#: Seconds for an installation to end gently, and then in a hurry: photos nobody waits for are not waited for.
END_S = (3.0, 20.0)
WARM_UP = 4


class Simulated:
    """The simulated provider, in a process of its own at ``url``."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._http = httpx.Client(base_url=self.url, timeout=10, trust_env=False)

    def answers(self) -> bool:
        try:
            return self._http.get("/_/calls").status_code == 200
        except httpx.TransportError:
            return False

    def counted(self) -> dict[str, Any]:
        """What it has counted: ``calls`` by verb, ``flying``, ``most_flying``, ``hang_ups``."""
        found: dict[str, Any] = self._http.get("/_/calls").raise_for_status().json()
        return found

    def behave(self, **settings: Any) -> None:
        """Sets how paid calls go from now on."""
        self._http.post("/_/mode", json=settings).raise_for_status()


def spawn(argv: Sequence[Any], **options: Any) -> subprocess.Popen[bytes]:
    """A process of ours, in a group of its own, that dies with us."""
    return subprocess.Popen(
        [sys.executable, "-m", *(str(part) for part in argv)],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=die_with_parent,
        **options,
    )


def kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def database(server_url: str | None) -> Iterator[str]:
    """The URL of a database made anew on that server, else on an embedded one of ours; dropped at the end."""
    embedded = EmbeddedPostgres(BUILD / "pg")
    try:
        url = server_url or embedded.start()
        _run(url, f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)", f"CREATE DATABASE {DATABASE}")
        try:
            yield urlsplit(url)._replace(path=f"/{DATABASE}").geturl()
        finally:
            _run(url, f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
    finally:
        if server_url is None:
            embedded.stop()


def _run(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


@contextmanager
def simulated() -> Iterator[Simulated]:
    """The OpenAI simulator, answering at once and well until it is told otherwise."""
    port = free_port()
    with (BUILD / "simulator.log").open("wb") as log:
        process = spawn(["ops.simulators.openai", "--port", port], stdout=log, stderr=log)
    try:
        provider = Simulated(port)
        until(provider.answers, within_s=BOOT_S, what="the simulator answers")
        yield provider
    finally:
        kill(process)


@contextmanager
def installed(database_url: str, provider: Simulated, options: argparse.Namespace) -> Iterator[Installation]:
    """An installation whose first slot leads to ``provider`` and has made its first pictures.

    Raises:
        RuntimeError: it did not come so far; the end of its log is printed.
    """
    home = BUILD / "home"
    shutil.rmtree(home, ignore_errors=True)
    env = {"PHOTOCHANGER_WORKER_THREADS": str(options.threads)} if options.threads else {}
    installation = Installation(home, database_url=database_url, env=env)
    try:
        try:
            installation.start()
            _configure(installation, provider, options)
            _warm_up(installation)
        except (AssertionError, queue.Empty) as error:
            print("".join(installation.log[-20:]), file=sys.stderr)
            raise RuntimeError(f"the installation does not serve: {error or 'it was not ready in time'}") from None
        yield installation
    finally:
        if hasattr(installation, "process"):
            _end(installation.process)
        shutil.rmtree(home, ignore_errors=True)


def _configure(installation: Installation, provider: Simulated, options: argparse.Namespace) -> None:
    usual_s = options.usual or max(0.05, options.latency_s + options.jitter_s / 2)
    openai = {"base_url": f"{provider.url}/v1", "models": {MODEL: {"usual_s": usual_s}}}
    if options.permits:
        openai["max_concurrent"] = options.permits
    installation.done(
        "settings",
        f"providers={json.dumps({'openai': openai})}",
        f"allowed_private_hosts={json.dumps([provider.url.removeprefix('http://')])}",
        f"t_sync_response_s={options.t_sync}",
        *options.set,
    )
    rungs: list[dict[str, Any]] = [
        {"provider": "openai", "operation": "image_edit", "settings": {"prompt": "x", "model": MODEL}}
    ]
    if options.fallback:
        rungs.append({"provider": "local", "operation": "original"})
    installation.done("secrets", "set", "openai", stdin=KEY)
    installation.done("slot", "set", SLOT, "--on", "--route", json.dumps({"rungs": rungs}))


def _warm_up(installation: Installation) -> None:
    def served_by() -> str:
        return str(installation.post(photo(640, 480), slot=SLOT).headers.get("PhotoChanger-Served-By"))

    for _ in range(WARM_UP):
        until(lambda: served_by().startswith("openai"), within_s=BOOT_S, what="a first picture of the provider")


def _end(process: subprocess.Popen[str]) -> None:
    for patience_s in END_S:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
            return
    process.kill()
    process.wait()
