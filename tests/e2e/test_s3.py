"""An installation on several machines that share no disk: the pictures lie in an S3-compatible store."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from photochanger.config import Config
from tests.api import Api
from tests.installation import INGEST_PASSWORD, Installation, result_link, until
from tests.photos import opened, photo
from tests.servers import web
from tests.stores import Bucket


@pytest.fixture
def running(tmp_path: Path, database_url: str, stored: Bucket) -> Iterator[Installation]:
    with Installation(tmp_path / "home", database_url=database_url, env=stored.env) as installation:
        yield installation


def copies(running: Installation) -> list[Path]:
    """The pictures on the machine's own disk beside the store."""
    return [path for path in (running.home / "media" / "copies").rglob("*") if path.is_file()]


def test_a_photo_sent_to_one_machine_is_worked_on_by_another(
    running: Installation, database_url: str, stored: Bucket, tmp_path: Path
) -> None:
    key = (running.home / "master.key").read_text()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "master.key").touch(mode=0o600)
    (tmp_path / "other" / "master.key").write_text(key)
    store_url = stored.env["PHOTOCHANGER_STORE_URL"]
    with web(Config(home=tmp_path / "other", database_url=database_url, store_url=store_url)) as other:
        answer = httpx.post(
            f"{other}/ingest/slot-001",
            data={"password": INGEST_PASSWORD},
            files={"fileToUpload": photo(320, 240)},
            timeout=70,
            trust_env=False,
        )
        assert answer.status_code == 200, answer.text
        assert opened(answer.content).size == (320, 240)
        for at in (other, running.url):
            link = f"{at}/public/{result_link(answer).partition('/public/')[2]}"
            whole = httpx.get(link, trust_env=False)
            assert whole.content == answer.content
            part = httpx.get(link, headers={"Range": "bytes=10-19"}, trust_env=False)
            assert part.content == answer.content[10:20]
            small = httpx.get(f"{link}&size=320", trust_env=False)
            assert small.headers["content-type"] == "image/webp"
    until(lambda: not stored.keys("payloads"), within_s=5, what="the original deleted")
    assert "\n0 differences" in running.done("audit")


def test_what_has_expired_leaves_the_store(running: Installation, database_url: str, stored: Bucket) -> None:
    answer = running.post(photo())
    assert answer.status_code == 200
    assert len(stored.keys("results")) == 1
    running.sql("UPDATE job SET result_expires_at = clock_timestamp() - interval '1 s'")
    assert httpx.get(result_link(answer), trust_env=False).status_code == 410
    with httpx.Client() as client, Api(running.url, database_url, client).signed_in("boss") as boss:
        assert boss.post("/api/media/cache/purge").status_code == 202
    until(lambda: not stored.keys("results"), within_s=20, what="its bytes gone")


def test_while_the_store_is_away_photos_are_refused_with_its_name(running: Installation, stored: Bucket) -> None:
    first = running.post(photo())
    assert first.status_code == 200
    stored.stop()

    def refused() -> httpx.Response | None:
        answer = running.post(photo(90, 60))
        return answer if answer.status_code != 200 else None

    began = time.monotonic()
    answer = until(refused, within_s=15, what="a refusal")
    assert answer is not None
    assert answer.status_code == 503
    assert answer.json()["code"] == "unavailable"
    assert "The store of pictures cannot be used" in answer.json()["detail"]
    assert time.monotonic() - began < 15

    def unready() -> bool:
        ready = httpx.get(f"{running.url}/readyz", trust_env=False)
        return ready.status_code == 503 and "The store of pictures cannot be used" in ready.text

    until(unready, within_s=10, what="not ready")
    stored.start()
    until(lambda: running.post(photo(90, 60)).status_code == 200, within_s=15, what="taken again")


def test_a_store_that_cannot_be_reached_stops_the_first_start_with_one_line(
    tmp_path: Path, database_url: str, stored: Bucket
) -> None:
    env = {**stored.env, "PHOTOCHANGER_STORE_URL": "s3://of-somebody-else"}
    with pytest.raises(AssertionError, match="photochanger: The store of pictures has no such bucket: "):
        Installation(tmp_path / "home", database_url=database_url, env=env).start()
    with Installation(tmp_path / "home", database_url=database_url, env=stored.env) as again:
        assert again.post(photo()).status_code == 200


def test_pictures_move_from_the_disk_into_a_store_by_backup_and_restore(
    tmp_path: Path, database_url: str, stored: Bucket
) -> None:
    home, file = tmp_path / "home", tmp_path / "moving.tar"
    disk = Installation(home, database_url=database_url)
    with disk:
        answer = disk.post(photo())
        assert answer.status_code == 200
    for path in disk.files("results"):
        os.utime(path, (0, 0))  # they have lain there for long
    moved = Installation(home, port=disk.port, database_url=database_url, env=stored.env)
    with pytest.raises(AssertionError, match=r"PHOTOCHANGER_STORE_URL: s3://.* is not where the pictures"):
        moved.start()
    disk.done("backup", str(file))
    moved.done("restore", str(file), "--replace")
    with moved:
        for path in copies(moved):
            path.unlink()
        assert httpx.get(result_link(answer), trust_env=False).content == answer.content
        assert "\n0 differences" in moved.done("audit")
