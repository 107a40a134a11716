"""Web processes that are replaced while photos come: an update, and a crash."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.installation import INGEST_PASSWORD, Installation, until
from tests.photos import photo

SENDERS = 4


class Senders:
    """Cameras that each send one photo after the other to a port; ``failures``: what was no picture."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stopped = threading.Event()
        self.pictures = 0
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._send, args=[number]) for number in range(SENDERS)]

    def _send(self, number: int) -> None:
        size = 64 + number * 500
        while not self._stopped.is_set():
            size += 1  # another photo each time
            try:
                answer = httpx.post(
                    f"http://127.0.0.1:{self._port}/ingest/slot-001",
                    data={"password": INGEST_PASSWORD},
                    files={"fileToUpload": photo(size, 48)},
                    timeout=70,
                    trust_env=False,
                )
            except httpx.HTTPError as error:
                self.failures.append(repr(error))
                continue
            if answer.status_code == 200:
                self.pictures += 1
            else:
                self.failures.append(answer.text)

    def more(self) -> None:
        """Waits for pictures that were all sent from now on."""
        enough = self.pictures + 3 * SENDERS
        until(lambda: self.pictures >= enough or self.failures, within_s=60, what="pictures")

    def __enter__(self) -> Senders:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(75)


@contextmanager
def listening() -> Iterator[socket.socket]:
    """A port as systemd's socket unit keeps it."""
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        port.listen(2048)
        yield port


def web(installation: Installation, database_url: str, port: socket.socket) -> subprocess.Popen[bytes]:
    """A web process of the unit's command, on a socket that it shares."""
    number = port.fileno()
    command = "uvicorn web.app:app --http web.protocol:Protocol --no-proxy-headers --no-access-log --log-level warning"
    env = {
        **os.environ,
        "PHOTOCHANGER_HOME": str(installation.home),
        "PHOTOCHANGER_DATABASE_URL": database_url,
    }
    return subprocess.Popen([sys.executable, "-m", *command.split(), "--fd", str(number)], env=env, pass_fds=[number])


def test_web_processes_on_a_shared_socket_are_replaced_and_no_photo_is_lost(tmp_path: Path, database_url: str) -> None:
    with Installation(tmp_path / "home", database_url=database_url) as running, listening() as port:
        running.done("settings", "t_sync_response_s=30")
        processes = [web(running, database_url, port) for _ in range(2)]
        try:
            with Senders(port.getsockname()[1]) as senders:
                senders.more()
                for number in (0, 1, 0, 1):
                    processes[number].send_signal(signal.SIGTERM)
                    assert processes[number].wait(60) in (0, -signal.SIGTERM)
                    senders.more()
                    processes[number] = web(running, database_url, port)
            assert senders.failures == []
        finally:
            for process in processes:
                process.kill()
                process.wait(10)


def test_a_web_process_that_dies_refuses_nobody_who_comes_meanwhile(installation: Installation) -> None:
    assert installation.post(photo()).status_code == 200
    for number in range(3):
        dead = installation.part("web")
        dead.kill()
        dead.wait(10)
        began = time.monotonic()
        answer = installation.post(photo(70 + number, 48))
        assert answer.status_code == 200
        assert time.monotonic() - began < 30


def test_who_comes_while_it_finishes_what_it_has_in_hand_is_refused_at_once(installation: Installation) -> None:
    with socket.create_connection(("127.0.0.1", installation.port)) as slow:
        slow.sendall(b"POST /ingest/slot-001 HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n")
        slow.sendall(b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n")
        until(lambda: installation.post(photo()).status_code == 200, within_s=30, what="a picture beside it")
        installation.process.send_signal(signal.SIGTERM)

        def refused() -> bool:
            with socket.socket() as camera:
                return camera.connect_ex(("127.0.0.1", installation.port)) != 0

        until(refused, within_s=5, what="a refused connection")
        assert installation.process.poll() is None  # it waits for the slow one
