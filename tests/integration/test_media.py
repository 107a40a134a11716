"""Temporary public media: of one job, while it runs, and not a moment longer."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from photochanger import jobs, media, retention
from photochanger.config import Config
from photochanger.db import Database
from photochanger.storage.local import LocalStorage
from tests.integration.jobs_made import submitted
from tests.photos import photo
from tests.servers import web

pytestmark = pytest.mark.anyio


async def published(db: Database, storage: LocalStorage, **how: float) -> tuple[str, bytes]:
    """A running job's photo, public; its id and bytes."""
    job_id = await submitted(db, storage, **how)  # type: ignore[arg-type]
    data = photo(64, 48)
    temporary = storage.temporary()
    temporary.write_bytes(data)
    media_id = await media.publish(db, storage, job_id, temporary, "image/jpeg")
    assert media_id is not None
    return media_id, data


async def get(url: str, media_id: str, method: str = "GET") -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as http:
        return await http.request(method, f"{url}/public/media/{media_id}")


async def test_it_is_served_while_the_job_runs_and_gone_when_it_ends(
    db: Database, storage: LocalStorage, config: Config
) -> None:
    media_id, data = await published(db, storage)
    with web(config) as url:
        answer = await get(url, media_id)
        assert (answer.status_code, answer.content) == (200, data)
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.headers["cache-control"] == "private, no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in answer.headers["content-security-policy"]
        assert (await get(url, media_id, "HEAD")).status_code == 200
        job_id = (await db.fetch("SELECT job_id FROM media_object"))[0]["job_id"]
        await jobs.cancel(db, job_id, detail="enough")
        answer = await get(url, media_id)
        assert (answer.status_code, answer.json()["code"]) == (410, "media_expired")


async def test_it_is_gone_at_the_jobs_deadline(db: Database, storage: LocalStorage, config: Config) -> None:
    media_id, _ = await published(db, storage)
    (row,) = await db.fetch("SELECT m.expires_at = job.expires_at AS same FROM media_object m JOIN job ON true")
    assert row["same"]
    await db.fetch("UPDATE media_object SET expires_at = clock_timestamp()")
    with web(config) as url:
        assert (await get(url, media_id)).status_code == 410


async def test_a_guessed_id_is_not_found(db: Database, storage: LocalStorage, config: Config) -> None:
    media_id, _ = await published(db, storage)
    assert len(media_id) == 40
    with web(config) as url:
        for guess in ("x", media_id[:-1] + "x", media_id.upper() + "0", "%00", "..%2F..%2Fmaster.key", "a" * 5000):
            answer = await get(url, guess)
            assert (answer.status_code, answer.json()["code"]) in ((404, "media_not_found"), (404, "not_found")), guess


async def test_revoking_ends_the_link_and_deletes_the_file(db: Database, storage: LocalStorage, config: Config) -> None:
    media_id, _ = await published(db, storage)
    other, data = await published(db, storage)
    assert await media.revoke(db, storage, [media_id]) == 1
    assert await media.revoke(db, storage, [media_id]) == 0
    with web(config) as url:
        assert (await get(url, media_id)).status_code == 410
        assert (await get(url, other)).content == data
    assert len(storage.keys("media")) == 1


async def test_nothing_is_published_for_a_job_that_has_ended(db: Database, storage: LocalStorage) -> None:
    job_id = await submitted(db, storage)
    await jobs.cancel(db, job_id, detail="enough")
    temporary = storage.temporary()
    temporary.write_bytes(photo(64, 48))
    assert await media.publish(db, storage, job_id, temporary, "image/jpeg") is None
    assert storage.keys("media") == []
    assert not temporary.exists()


async def test_what_a_dead_worker_left_is_swept(db: Database, storage: LocalStorage) -> None:
    ended, _ = await published(db, storage)
    overdue, _ = await published(db, storage)
    running, _ = await published(db, storage)
    job_id = (await db.fetch("SELECT job_id FROM media_object WHERE id = %(id)s", {"id": ended}))[0]["job_id"]
    await jobs.cancel(db, job_id, detail="enough")
    await db.fetch("UPDATE media_object SET expires_at = clock_timestamp() WHERE id = %(id)s", {"id": overdue})
    assert await retention.clean_media(db, storage) == 2
    (left,) = storage.keys("media")
    rows = await db.fetch("SELECT id FROM media_object WHERE storage_key = %(key)s", {"key": left[0]})
    assert [row["id"] for row in rows] == [running]


async def test_a_file_without_a_row_is_swept_by_age(db: Database, storage: LocalStorage) -> None:
    import os

    running, _ = await published(db, storage)
    stray = Path(storage.root / "media" / "00000000-0000-4000-8000-000000000000-1234abcd.jpg")
    stray.write_bytes(b"x")
    for path in (storage.root / "media").iterdir():
        os.utime(path, (0, 0))
    await retention.clean_orphans(db, storage)
    assert not stray.exists()
    assert len(storage.keys("media")) == 1, running
