"""``make up``'s life: first start, later starts, two copies, stopping, and starting after a ``kill -9``."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.installation import Installation, until
from tests.photos import opened, photo


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; a dead process whose new parent has not noticed yet does not."""
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def descendants(pid: int) -> list[psutil.Process]:
    found: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
    return found


def test_a_first_start_needs_nothing_and_its_curl_line_works_as_printed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with Installation(home, env={"PHOTOCHANGER_INGEST_PASSWORD": ""}) as first:
        banner = "".join(first.log)
        assert re.search(r"admin / [a-z0-9]{5}(-[a-z0-9]{5}){3}", banner)
        line = next(line.strip() for line in first.log if line.strip().startswith("curl "))
        ended = subprocess.run(shlex.split(line), cwd=tmp_path, capture_output=True, timeout=60)
        assert ended.returncode == 0, ended.stderr
        changed = (tmp_path / "changed.jpg").read_bytes()
        sample = Path(line.split("fileToUpload=@")[1].split(" ")[0]).read_bytes()
        assert opened(changed).size == opened(sample).size
        assert changed != sample
        password = re.search(r"password=(\S+)", line)
        assert password is not None
        processes = descendants(first.process.pid)
        assert first.sql("SELECT count(*) AS n FROM slot")[0]["n"] == 15
    assert not alive(processes)
    assert list((home / "run").glob("lock")) == []

    with Installation(home, env={"PHOTOCHANGER_INGEST_PASSWORD": ""}) as later:
        banner = "".join(later.log)
        assert password[1] not in banner
        assert "photochanger ingest-password" in banner
        assert "photochanger admin-password" in banner
        assert later.post(photo(), password=password[1]).status_code == 200


def test_two_copies_run_side_by_side_and_one_home_runs_once(tmp_path: Path, database_url: str) -> None:
    with (
        Installation(tmp_path / "a", database_url=database_url) as one,
        Installation(tmp_path / "b") as other,
    ):
        assert one.post(photo()).status_code == 200
        assert other.post(photo()).status_code == 200
        again = subprocess.run(
            one.process.args, env={**one._env, "PORT": "1"}, capture_output=True, text=True, timeout=30
        )
        assert again.returncode == 1
        assert "already runs" in again.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_leaves_no_process_and_no_socket(installation: Installation, number: signal.Signals) -> None:
    assert installation.post(photo()).status_code == 200
    processes = descendants(installation.process.pid)
    assert len(processes) >= 4
    assert installation.stop(number) == 0
    assert not alive(processes)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", installation.port))


def test_after_a_kill_of_the_supervisor_nothing_is_left_and_the_next_start_works(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with Installation(home) as first:
        processes = [one for one in descendants(first.process.pid) if one.name() != "postgres"]
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait(10)
        with Installation(home, port=first.port) as second:
            until(
                lambda: not alive(processes),
                within_s=20,
                what="the killed supervisor's parts are gone",
            )
            assert second.post(photo()).status_code == 200


@pytest.mark.parametrize("part", ["web", "worker", "scheduler"])
def test_what_dies_is_started_again(installation: Installation, part: str) -> None:
    before = installation.part(part)
    before.kill()
    until(lambda: installation.part(part).pid != before.pid, within_s=15, what=f"a new {part}")


def test_a_port_in_use_stops_the_start_with_one_line(tmp_path: Path, database_url: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused = Installation(tmp_path / "home", port=taken.getsockname()[1], database_url=database_url)
        with pytest.raises(AssertionError, match=r"photochanger: PORT: \d+ is in use"):
            refused.start()


def test_another_media_root_for_the_same_database_is_refused(tmp_path: Path, database_url: str) -> None:
    with Installation(tmp_path / "a", database_url=database_url):
        pass
    elsewhere = {"PHOTOCHANGER_MEDIA_ROOT": str(tmp_path / "elsewhere")}
    other = Installation(tmp_path / "a", database_url=database_url, env=elsewhere)
    with pytest.raises(AssertionError, match=r"PHOTOCHANGER_MEDIA_ROOT: .* is not the media root"):
        other.start()


def test_another_homes_master_key_for_the_same_database_is_refused_until_it_begins_anew(
    tmp_path: Path, database_url: str
) -> None:
    with Installation(tmp_path / "a", database_url=database_url):
        pass
    media = {"PHOTOCHANGER_MEDIA_ROOT": str(tmp_path / "a" / "media")}
    other = Installation(tmp_path / "b", database_url=database_url, env=media)
    with pytest.raises(AssertionError, match="The master keys here are not the ones"):
        other.start()
    assert "0 stored keys are forgotten" in other.done("secrets", "reset")
    with other:
        assert other.post(photo(64, 48)).status_code == 200
