"""``make up``'s life: first start, later starts, two copies, stopping, and starting after a ``kill -9``."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from tests.api import Api
from tests.installation import Installation, result_link, until
from tests.photos import big_png, opened, photo


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; a dead process whose new parent has not noticed yet does not."""
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def descendants(pid: int) -> list[psutil.Process]:
    found: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
    return found


def bring(installation: Installation, database_url: str, picture: bytes) -> int:
    """Has the web process decode a template; the answer's status."""
    with httpx.Client() as client, Api(installation.url, database_url, client).signed_in("boss") as boss:
        return boss.post("/api/template-media/register", files={"file": picture}).status_code


def test_a_first_start_needs_nothing_and_its_curl_line_works_as_printed(tmp_path: Path) -> None:
    home = tmp_path / "a home"
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
        assert "photochanger admin-password" in banner
        assert later.post(photo(), password=password[1]).status_code == 200
        command = next(line.partition("a new one: ")[2] for line in later.log if "ingest-password" in line)
        bare = {name: value for name, value in os.environ.items() if not name.startswith("PHOTOCHANGER_")}
        made = subprocess.run(["sh", "-c", command], env=bare, capture_output=True, text=True, timeout=60)
        assert made.returncode == 0, made.stderr


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopping_leaves_no_process_and_no_socket(
    installation: Installation, database_url: str, number: signal.Signals
) -> None:
    assert installation.post(photo()).status_code == 200
    web = installation.part("web")
    assert web.children() == [], "who brings no picture pays for no process"
    assert bring(installation, database_url, photo(64, 48)) == 201
    assert web.children() != []
    assert installation.decoders() == [], "it gave its memory back"
    processes = descendants(installation.process.pid)
    assert len(processes) >= 4
    assert installation.stop(number) == 0
    assert installation.log[-1] == "PhotoChanger has stopped.\n"
    assert not alive(processes)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", installation.port))


def test_after_a_kill_of_the_supervisor_nothing_is_left_and_the_next_start_works(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with Installation(home) as first, ThreadPoolExecutor(1) as administrator:
        administrator.submit(bring, first, (home / "run" / "database_url").read_text(), big_png())
        until(first.decoders, within_s=20, what="the web process decodes")
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


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """With a PostgreSQL of its own."""
    with Installation(tmp_path_factory.mktemp("embedded") / "home") as running:
        yield running


@pytest.mark.parametrize(
    "command",
    [
        "settings t_sync_response_s",
        "settings nosuch=1",
        "secrets set nosuch",
        "cancel nonsense",
        "cancel 00000000-0000-4000-8000-000000000000",
        "backup /nowhere/a.tar",
        "admin password nosuch",
        "slot set slot-001 --options {",
    ],
)
def test_a_command_that_fails_says_so_in_a_line_and_leaves_the_database_alone(
    embedded: Installation, command: str
) -> None:
    before = database_pid(embedded)
    ended = embedded.cli(*command.split())
    assert ended.returncode == 1
    assert re.fullmatch(r"photochanger: .+\n", ended.stderr)
    assert database_pid(embedded) == before
    assert embedded.post(photo()).status_code == 200


def test_what_a_command_does_is_in_the_audit(embedded: Installation) -> None:
    embedded.sql(
        "INSERT INTO dramatiq.queue (message_id, state, message) "
        "VALUES (gen_random_uuid(), 'rejected', '{\"actor_name\": \"no_such\"}')"
    )
    waits = embedded.sql(
        "INSERT INTO job (id, slot_id, status, created_at, expires_at, snapshot, payload_mime, payload_bytes, "
        "payload_sha256) VALUES (gen_random_uuid(), 'slot-001', 'pending', now(), now() + interval '48 s', '{}', "
        "'image/jpeg', 1, 'x') RETURNING id"
    )[0]["id"]
    embedded.done("cancel", str(waits))
    embedded.done("queue", "requeue")
    embedded.cli("public-url", "http://127.0.0.1:9")
    embedded.done("settings", "public_base_url=null")
    embedded.done("secrets", "set", "openai", stdin="a-key-of-openai")
    embedded.done("secrets", "reset")
    done = embedded.sql("SELECT action FROM audit WHERE actor = '(command)' ORDER BY id")
    assert [row["action"] for row in done][-6:] == [
        "job.cancelled",
        "dead_letter.requeued",
        "settings.changed",
        "settings.changed",
        "provider_key.set",
        "provider_key.deleted",
    ]


def database_pid(embedded: Installation) -> int:
    return int((embedded.home / "pg" / "postmaster.pid").read_text().split()[0])


def test_a_database_that_dies_is_started_again(embedded: Installation) -> None:
    embedded.done("settings", "t_sync_response_s=10")  # what was in hand when it died is answered within this
    before = database_pid(embedded)
    os.kill(before, signal.SIGKILL)
    until(
        lambda: (embedded.home / "pg" / "postmaster.pid").exists() and database_pid(embedded) != before,
        within_s=30,
        what="another PostgreSQL",
    )
    sizes = itertools.count(64)  # another photo each time: the same one would wait for what became of the first
    until(lambda: embedded.post(photo(next(sizes), 48)).status_code == 200, within_s=30, what="a picture")


def test_a_first_start_that_was_killed_while_it_made_the_database_is_begun_anew(tmp_path: Path) -> None:
    home = tmp_path / "home"
    killed = Installation(home)
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(killed.start)
        until(lambda: (home / "pg" / "PG_VERSION").exists(), within_s=30, what="a database begun")
        killed.process.kill()
        with pytest.raises(AssertionError, match="it did not start"):
            starting.result(60)
    with Installation(home) as running:
        assert running.post(photo()).status_code == 200
        assert (home / "pg.unfinished").is_dir()


def test_after_a_power_cut_a_command_starts_a_server_for_itself(tmp_path: Path) -> None:
    with Installation(tmp_path / "home") as running:
        recorded = running.home / "pg" / "postmaster.pid"
        processes = descendants(running.process.pid)
        os.kill(running.process.pid, signal.SIGKILL)
        os.kill(int(recorded.read_text().split()[0]), signal.SIGKILL)
        running.process.wait(10)
        until(lambda: not alive(processes), within_s=20, what="all gone")
        assert (running.home / "run" / "database_url").exists()
        assert json.loads(running.done("settings"))["t_sync_response_s"] == 48
        assert not recorded.exists()
        with subprocess.Popen(["sleep", "60"]) as stranger:  # the number of the dead server is another program's now
            recorded.write_text(f"{stranger.pid}\n")
            with Installation(running.home, port=running.port) as again:
                assert again.post(photo()).status_code == 200
            assert stranger.poll() is None
            stranger.kill()


def test_a_media_root_whose_disk_is_gone_takes_no_photos_and_makes_nothing(tmp_path: Path, database_url: str) -> None:
    root = tmp_path / "disk"
    given = {"PHOTOCHANGER_MEDIA_ROOT": str(root)}
    with Installation(tmp_path / "home", database_url=database_url, env=given) as running:
        made = running.post(photo())
        assert made.status_code == 200
        away = root.rename(tmp_path / "unmounted")
        root.mkdir()
        refused = until(
            lambda: (answer := running.post(photo(90, 60))).status_code == 503 and answer, within_s=5, what="refused"
        )
        assert refused
        assert "is not there" in refused.json()["detail"]
        assert httpx.get(f"{running.url}/readyz", trust_env=False).status_code == 503
        assert list(root.iterdir()) == []
        root.rmdir()  # not even the mount point
        assert httpx.get(result_link(made), trust_env=False).status_code == 503  # 410 would say that it is over
        assert httpx.get(f"{running.url}/metrics", trust_env=False).status_code == 200
        with httpx.Client() as client, Api(running.url, database_url, client).signed_in("boss") as boss:
            assert boss.get("/api/system").json()["disk"]["is_there"] is False
            assert "not there" in boss.get("/", headers={"Accept": "text/html"}).text
            tried = boss.post("/api/slots/slot-001/test-run", files={"file": photo(64, 48)})
            assert tried.status_code == 503, tried.text
        away.rename(root)
        until(lambda: running.post(photo(90, 60)).status_code == 200, within_s=5, what="taken again")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("PHOTOCHANGER_HOME", "/dev/null/home", "cannot be made"),
        ("PHOTOCHANGER_MEDIA_ROOT", "/dev/null", "cannot be used"),
        ("PHOTOCHANGER_MEDIA_ROOT", "~nobody-of-that-name/x", "home directory"),
        ("PHOTOCHANGER_DATABASE_URL", "postgresql://u@127.0.0.1:abc/db", "port"),
        ("PHOTOCHANGER_DATABASE_URL", "postgresql://127.0.0.1/db?foo=1", "foo"),
        ("PHOTOCHANGER_TRUSTED_PROXIES", "notanip", "notanip"),
    ],
)
def test_a_wrong_setting_stops_the_start_with_one_line(
    tmp_path: Path, database_url: str, name: str, value: str, words: str
) -> None:
    refused = Installation(tmp_path / "home", database_url=database_url, env={name: value})
    with pytest.raises(AssertionError) as told:
        refused.start()
    [line] = [one for one in refused.log if not one.startswith("{")]
    assert line.startswith(f"photochanger: {name}: ")
    assert words in line
    assert "Traceback" not in str(told.value)


def test_a_database_of_a_newer_version_is_told_in_one_line(tmp_path: Path, database_url: str) -> None:
    with Installation(tmp_path / "home", database_url=database_url) as running:
        running.sql("UPDATE alembic_version SET version_num = '9999'")
    later = Installation(tmp_path / "home", database_url=database_url)
    with pytest.raises(AssertionError):
        later.start()
    [line] = [one for one in later.log if not one.startswith("{")]
    assert re.match("photochanger: The database is of a newer version than this one", line)


def test_a_command_without_a_server_starts_one_for_itself_alone(tmp_path: Path) -> None:
    with Installation(tmp_path / "home") as running:
        pass
    assert running.cli("settings", "t_sync_response_s=20").returncode == 0
    assert running.cli("settings", "nosuch=1").returncode == 1
    assert not (running.home / "pg" / "postmaster.pid").exists()
    assert not (running.home / "run" / "lock").exists()
    with Installation(running.home) as again:
        assert json.loads(again.done("settings"))["t_sync_response_s"] == 20


def test_a_password_of_the_environment_is_not_printed(tmp_path: Path, database_url: str) -> None:
    given = {"PHOTOCHANGER_ADMIN_PASSWORD": "canary-of-the-admin", "PHOTOCHANGER_INGEST_PASSWORD": "canary-of-cameras"}
    for _ in range(2):
        with Installation(tmp_path / "home", database_url=database_url, env=given) as running:
            banner = "".join(running.log)
            assert "canary" not in banner
            line = next(line.strip() for line in running.log if line.strip().startswith("curl "))
            ended = subprocess.run(
                ["sh", "-c", line], cwd=tmp_path, env={**os.environ, **given}, capture_output=True, timeout=60
            )
            assert ended.returncode == 0, ended.stderr


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
    with pytest.raises(AssertionError, match=r"PHOTOCHANGER_MEDIA_ROOT: .* is not where the pictures"):
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


def test_every_network_is_that_of_both_kinds_of_addresses(tmp_path: Path, database_url: str) -> None:
    with Installation(tmp_path / "home", database_url=database_url, env={"PHOTOCHANGER_HOST": "::"}) as running:
        for host in ("127.0.0.1", "[::1]"):
            wrong = httpx.post(
                f"http://{host}:{running.port}/api/login",
                json={"name": "nobody", "password": "x" * 12},
                trust_env=False,
            )
            assert wrong.status_code == 401
        told = running.sql("SELECT address FROM audit WHERE action = 'login.failed' ORDER BY id")
        assert [one["address"] for one in told] == ["127.0.0.1", "::1"]
