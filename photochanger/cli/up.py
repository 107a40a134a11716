"""``photochanger up``: PostgreSQL where none is set, migrations, and web, worker and scheduler under one supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil

from photochanger import accounts, logs, metrics, network, schema
from photochanger.cli import certificate
from photochanger.cli.prepare import Shown, prepare
from photochanger.config import PROJECT, Config, ConfigError
from photochanger.embedded import EmbeddedPostgres
from photochanger.process import die_with_parent

#: Seconds a part may take to end by itself: the longest deadline, and time to say so.
STOP_S = 70.0
READY_S = 60.0
#: Connections that may wait to be accepted, where the system's own limit (net.core.somaxconn) lets them.
BACKLOG = 2048
RESTART_PAUSE_S = (0.1, 1.0)
#: Seconds between looks at whether PostgreSQL lives.
DATABASE_LOOK_S = 1.0
SAMPLE = PROJECT / "ops" / "sample" / "photo.jpg"


def up(config: Config) -> None:
    """Runs until SIGINT, SIGTERM or the end of its terminal; leaves no process, lock or socket behind.

    Raises:
        KeyboardInterrupt: it was to stop before everything ran.
    """
    for number in _stops():  # until the loop takes over: whatever was started is stopped again
        signal.signal(number, _interrupt)
    logs.setup(config.log_format, config.log_level)
    try:
        config.home.mkdir(parents=True, exist_ok=True)
        config.run_dir.mkdir(exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"PHOTOCHANGER_HOME: {config.home} cannot be made: {error.strerror}") from None
    with only_one(config):
        certificate.host_of(config)
        listening = _listen(config)
        _end_leftovers(config)
        server = None
        try:
            if config.database_url is None:
                server = EmbeddedPostgres(config.home / "pg")
                config = config.model_copy(update={"database_url": server.start()})
            assert config.database_url is not None
            _write_private(config.run_dir / "database_url", config.database_url)
            schema.migrate(config.database_url)
            asyncio.run(_serve(config, server, listening))
        finally:
            for number in _stops():  # the loop has given them back; what is left is short, and must be done
                signal.signal(number, signal.SIG_IGN)
            listening.close()
            if server is not None:
                server.stop()
            for name in ("database_url", "processes"):
                (config.run_dir / name).unlink(missing_ok=True)


def _stops() -> list[signal.Signals]:
    """What stops us; a terminal's end does not when ``nohup`` has said so."""
    heard = [signal.SIGINT, signal.SIGTERM]
    return heard if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [*heard, signal.SIGHUP]


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def only_one(config: Config) -> Iterator[None]:
    """The right to run this home; the kernel takes it back however the process ends."""
    with (config.run_dir / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"PhotoChanger, or a command of it, already runs for {config.home}: wait for it, or give a second copy "
                "its own PHOTOCHANGER_HOME and PORT"
            ) from None
        try:
            yield
        finally:
            (config.run_dir / "lock").unlink(missing_ok=True)


def _listen(config: Config) -> socket.socket:
    """The socket that every web process is given: while none is there, who comes waits for the next one."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        listening = socket.create_server(
            (config.host, config.port), family=family, backlog=BACKLOG, dualstack_ipv6=config.host == "::"
        )
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what it accepts has it too
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"PORT: {config.port} is in use; choose another, like PORT={config.port + 1}") from None
        raise ConfigError(f"PHOTOCHANGER_HOST: cannot listen on {config.host}: {error.strerror}") from None
    return listening


def _end_leftovers(config: Config) -> None:
    """Ends processes of an earlier supervisor that was killed: the kernel has told them, this makes sure."""
    try:
        recorded = (config.run_dir / "processes").read_text().split()
    except FileNotFoundError:
        return
    for entry in recorded:
        pid, _, started = entry.partition(":")
        with contextlib.suppress(psutil.Error, ValueError):
            process = psutil.Process(int(pid))
            if abs(process.create_time() - float(started)) < 0.05:
                for one in (*process.children(recursive=True), process):
                    with contextlib.suppress(psutil.Error):
                        one.kill()


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


async def _serve(config: Config, server: EmbeddedPostgres | None, listening: socket.socket) -> None:
    shown = await prepare(config)
    supervisor = Supervisor(config, server, listening)
    loop = asyncio.get_running_loop()
    for number in _stops():
        loop.add_signal_handler(number, supervisor.stop)
    running = asyncio.create_task(supervisor.run())
    ready = asyncio.create_task(_ready(config))
    await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
    if ready.done() and not supervisor.stopping.is_set():
        if not ready.result():
            print(f"PhotoChanger is not ready after {READY_S:.0f} s; the log says why.", flush=True)
        print(_banner(config, shown), flush=True)
    ready.cancel()
    await running


class Supervisor:
    """Starts the parts, restarts what dies; stops web first, while the workers still answer it."""

    def __init__(self, config: Config, server: EmbeddedPostgres | None, listening: socket.socket) -> None:
        self._config = config
        self._server = server
        self._listening = listening
        self.stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        metrics_dir = config.run_dir / "metrics"
        metrics.prepare_dir(metrics_dir)
        assert config.database_url is not None
        self._env = {
            **os.environ,
            "PHOTOCHANGER_DATABASE_URL": config.database_url,
            "PHOTOCHANGER_HOME": str(config.home),
            "PHOTOCHANGER_LOG_FORMAT": logs.chosen(config.log_format),  # a worker's stderr is a pipe of Dramatiq's
            "PROMETHEUS_MULTIPROC_DIR": str(metrics_dir),
        }

    def stop(self) -> None:
        """Once: gently. Twice: now."""
        (self._hurry if self.stopping.is_set() else self.stopping).set()

    async def run(self) -> None:
        keepers = {name: asyncio.create_task(self._keep(name, argv)) for name, argv in self._parts().items()}
        if self._server is not None:
            keepers["postgresql"] = asyncio.create_task(self._keep_database(self._server))
        await self.stopping.wait()
        ending = asyncio.create_task(self._end("web"))
        await asyncio.sleep(0)  # it is told first
        self._listening.shutdown(socket.SHUT_RDWR)  # nobody will come for those who come now
        await ending
        with contextlib.suppress(OSError):  # one that was just starting would have opened it again
            self._listening.shutdown(socket.SHUT_RDWR)
        await asyncio.gather(self._end("worker"), self._end("scheduler"))
        await asyncio.gather(*keepers.values())

    def _parts(self) -> dict[str, list[str]]:
        config = self._config
        listen = f"--fd {self._listening.fileno()} --http web.protocol:Protocol --no-proxy-headers"
        quiet = "--no-access-log --no-server-header --log-level warning"
        stop = f"--timeout-graceful-shutdown {STOP_S:.0f}"
        tls = []
        if config.tls_certificate and config.tls_key:
            tls = ["--ssl-certfile", str(config.tls_certificate), "--ssl-keyfile", str(config.tls_key)]
        threads = f"--processes 1 --threads {config.worker_threads}"
        return {
            "web": [*f"uvicorn web.app:app {listen} {quiet} {stop}".split(), *tls],
            "worker": f"dramatiq actors {threads} --skip-logging --worker-shutdown-timeout {STOP_S * 1000:.0f}".split(),
            "scheduler": ["actors.scheduler"],
        }

    async def _keep(self, name: str, argv: list[str]) -> None:
        pause = RESTART_PAUSE_S[0]
        while not self.stopping.is_set():
            began = time.monotonic()
            try:
                process = await self._start(argv)
            except OSError as error:  # no memory or descriptors just now
                logs.event("process.ended", process=name, pid=None, status=error.strerror, restart_in_s=pause)
                await asyncio.sleep(pause)
                continue
            self._processes[name] = process
            if self.stopping.is_set():  # it was asked for while we stopped
                process.terminate()
            self._record()
            logs.event("process.started", process=name, pid=process.pid)
            status = await process.wait()
            if self.stopping.is_set():
                return
            pause = RESTART_PAUSE_S[0] if time.monotonic() - began > 10 else min(pause * 2, RESTART_PAUSE_S[1])
            logs.event("process.ended", process=name, pid=process.pid, status=status, restart_in_s=pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), pause)

    async def _keep_database(self, server: EmbeddedPostgres) -> None:
        """PostgreSQL is nobody's child: whether it lives is looked at every second."""
        while not self.stopping.is_set():
            if not server.is_running():
                logs.event("process.ended", process="postgresql", pid=None, status=None, restart_in_s=0)
                with contextlib.suppress(subprocess.CalledProcessError):  # its log says why; it is tried again
                    await asyncio.to_thread(server.restart, "fast")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), DATABASE_LOOK_S)

    async def _start(self, argv: list[str]) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            *argv,
            cwd=PROJECT,
            env=self._env,
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=die_with_parent,
            pass_fds=[self._listening.fileno()] if argv[0] == "uvicorn" else [],
        )

    def _record(self) -> None:
        entries = []
        for process in self._processes.values():
            with contextlib.suppress(psutil.Error):
                entries.append(f"{process.pid}:{psutil.Process(process.pid).create_time()}")
        (self._config.run_dir / "processes").write_text("\n".join(entries))

    async def _end(self, name: str) -> None:
        process = self._processes.get(name)
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        ended = asyncio.ensure_future(process.wait())
        hurry = asyncio.ensure_future(self._hurry.wait())
        await asyncio.wait({ended, hurry}, timeout=STOP_S + 5, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not ended.done():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        await ended


async def _ready(config: Config) -> bool:
    """Whether ``/readyz`` says yes within ``READY_S``."""
    until = time.monotonic() + READY_S
    host = _reachable(config.host)
    async with httpx.AsyncClient(trust_env=False, verify=False) as client:  # noqa: S501 - this machine asks itself
        while time.monotonic() < until:
            with contextlib.suppress(httpx.HTTPError):
                if (await client.get(f"{config.scheme}://{host}:{config.port}/readyz", timeout=2)).status_code == 200:
                    return True
            await asyncio.sleep(0.05)
    return False


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104


def _banner(config: Config, shown: Shown) -> str:
    named, in_network = certificate.host_of(config), network.address_of(config.host)
    address = f"{config.scheme}://{named or _reachable(config.host)}:{config.port}"
    home = f"PHOTOCHANGER_HOME={shlex.quote(str(config.home))} " if config.has_own_home else ""
    command = f"{home}{shlex.quote(str(Path(sys.executable).parent / 'photochanger'))}"
    elsewhere = (
        f"   (in this network: {config.scheme}://{in_network}:{config.port})" if in_network and not named else ""
    )
    # What the environment has brought may be nobody's to read here.
    if config.ingest_password:
        ingest, send = "as set by PHOTOCHANGER_INGEST_PASSWORD", '"password=$PHOTOCHANGER_INGEST_PASSWORD"'
    elif shown.ingest_password:
        ingest, send = f"{shown.ingest_password}   (shown only now)", shlex.quote(f"password={shown.ingest_password}")
    else:
        ingest, send = f"a new one: {command} ingest-password", "password=YOUR-INGEST-PASSWORD"
    if not shown.admin_password:
        admin = f"{accounts.FIRST_ADMIN}; a new password: {command} admin-password"
    elif config.admin_password:
        admin = f"{accounts.FIRST_ADMIN}, with the password that PHOTOCHANGER_ADMIN_PASSWORD has set"
    else:
        admin = f"{accounts.FIRST_ADMIN} / {shown.admin_password}   (shown only now)"
    curl = f"curl -f -F {send} -F {shlex.quote(f'fileToUpload=@{SAMPLE}')} {address}/ingest/slot-001 -o changed.jpg"
    return (
        f"\nPhotoChanger is ready.\n\n"
        f"  Address          {address}{elsewhere}\n"
        f"  Administrator    {admin}\n"
        f"  Ingest password  {ingest}\n\n"
        f"  Send a photo, get it back changed:\n\n"
        f"    {curl}\n\n"
        f"  Ctrl-C stops everything.\n"
    )
