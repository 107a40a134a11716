"""What is deleted when, and that rows and files agree afterwards (G4)."""

from __future__ import annotations

import os
import time
from uuid import uuid4

import pytest

from photochanger import jobs, retention, rollups
from photochanger.broker import messages
from photochanger.db import Database
from photochanger.retention import ORPHAN_AGE_S
from photochanger.storage import PAYLOADS, RESULTS, TEMPLATES, TEMPORARY, THUMBNAILS
from photochanger.storage.local import LocalStorage
from tests.integration.jobs_made import submitted, succeeded

pytestmark = pytest.mark.anyio


async def age(db: Database, job_id: object, seconds: float) -> None:
    """Moves a job's instants into the past."""
    await db.fetch(
        "UPDATE job SET finalized_at = finalized_at - %(s)s * interval '1 second', "
        "result_expires_at = result_expires_at - %(s)s * interval '1 second', "
        "payload_expires_at = payload_expires_at - %(s)s * interval '1 second', "
        "created_at = created_at - %(s)s * interval '1 second' WHERE id = %(id)s",
        {"id": job_id, "s": seconds},
    )


def make_old(storage: LocalStorage, key: str) -> None:
    storage.path(key).write_bytes(b"x")
    long_ago = time.time() - ORPHAN_AGE_S - 5
    os.utime(storage.path(key), (long_ago, long_ago))


async def test_a_result_is_deleted_after_its_time_and_not_before(db: Database, storage: LocalStorage) -> None:
    old, fresh = await succeeded(db, storage), await succeeded(db, storage)
    storage.path(f"{THUMBNAILS}/{old}-320.webp").write_bytes(b"x")
    await age(db, old, 72 * 3600)
    await age(db, fresh, 72 * 3600 - 5)
    assert await retention.clean_results(db, storage) == 1
    assert [key for key, _ in storage.keys(RESULTS)] == [f"{RESULTS}/{fresh}.jpg"]
    assert storage.keys(THUMBNAILS) == []
    assert await retention.clean_results(db, storage) == 0


async def test_a_purge_of_many_goes_in_batches(db: Database, storage: LocalStorage) -> None:
    await succeeded(db, storage)
    await db.fetch(
        "INSERT INTO job (id, slot_id, status, is_finalized, created_at, expires_at, finalized_at, snapshot, "
        "payload_mime, payload_bytes, payload_sha256, result_file_path, result_mime, result_bytes, result_sha256, "
        "result_expires_at) SELECT gen_random_uuid(), slot_id, status, true, created_at, expires_at, finalized_at, "
        "snapshot, payload_mime, 1, 'x', 'results/none-' || n || '.jpg', 'image/jpeg', 1, 'x', "
        "now() - interval '1 hour' FROM job, generate_series(1, 1200) AS n"
    )
    assert await retention.clean_results(db, storage) == 0, "the files were never there"
    left = await db.fetch("SELECT count(*) AS n FROM job WHERE result_file_path IS NOT NULL")
    assert left[0]["n"] == 1


async def test_a_kept_original_is_deleted_after_its_time(db: Database, storage: LocalStorage) -> None:
    job_id = await succeeded(db, storage, original_s=3600)
    assert await retention.clean_originals(db, storage) == 0
    await age(db, job_id, 3600)
    assert await retention.clean_originals(db, storage) == 1
    assert storage.keys(PAYLOADS) == []


async def test_overdue_jobs_lose_their_original_at_once(db: Database, storage: LocalStorage) -> None:
    job_id = await submitted(db, storage)
    await db.fetch("UPDATE job SET expires_at = now() - interval '1 s' WHERE id = %(id)s", {"id": job_id})
    assert await retention.expire_overdue(db, storage) == 1
    assert storage.keys(PAYLOADS) == []


async def test_files_without_a_row_go_by_age_and_files_with_a_row_stay(db: Database, storage: LocalStorage) -> None:
    kept = await succeeded(db, storage)
    waiting = await submitted(db, storage)
    os.utime(storage.path(f"{RESULTS}/{kept}.jpg"), (0, 0))
    os.utime(storage.path(f"{PAYLOADS}/{waiting}.jpg"), (0, 0))
    unknown = ("tmp/abc", f"{RESULTS}/{uuid4()}.jpg", f"{RESULTS}/{kept}-2.jpg", f"{RESULTS}/not-ours.txt")
    for key in (*unknown, f"{PAYLOADS}/{uuid4()}.png", f"{THUMBNAILS}/{uuid4()}-320.webp",
                f"{TEMPLATES}/{uuid4()}.png"):  # fmt: skip
        make_old(storage, key)
    young = f"{TEMPORARY}/{uuid4().hex}"
    storage.path(young).write_bytes(b"x")
    assert await retention.clean_orphans(db, storage) == 7
    left = {key for kind in (TEMPORARY, RESULTS, PAYLOADS, THUMBNAILS) for key, _ in storage.keys(kind)}
    assert left == {young, f"{RESULTS}/{kept}.jpg", f"{PAYLOADS}/{waiting}.jpg"}


async def test_dead_letters_go_by_age_and_messages_of_final_jobs_at_once(db: Database, storage: LocalStorage) -> None:
    waiting, final = await submitted(db, storage), await succeeded(db, storage)
    async with db.transaction() as connection:
        for _ in range(2):
            await messages.enqueue(connection, messages.message("sweep"))
    await db.fetch("UPDATE dramatiq.queue SET state = 'rejected' WHERE message->>'actor_name' = 'sweep'")
    await db.fetch(
        "UPDATE dramatiq.queue SET mtime = now() - interval '31 days' WHERE message_id = "
        "(SELECT message_id FROM dramatiq.queue WHERE state = 'rejected' LIMIT 1)"
    )
    left = await db.fetch("SELECT message_id FROM dramatiq.queue WHERE message_id = %(id)s", {"id": final})
    assert len(left) == 1, "this test's worker never acknowledged it"
    assert await retention.clean_queue(db) == 2
    rows = await db.fetch("SELECT message_id, state::text AS state FROM dramatiq.queue ORDER BY state")
    assert [row["state"] for row in rows] == ["queued", "rejected"]
    assert rows[0]["message_id"] == waiting


async def test_history_goes_with_its_attempts_and_log_but_never_before_its_files(
    db: Database, storage: LocalStorage
) -> None:
    old, with_file = await succeeded(db, storage), await succeeded(db, storage)
    for job_id in (old, with_file):
        await age(db, job_id, 400 * 86400)
    await db.fetch("UPDATE job SET result_file_path = NULL WHERE id = %(id)s", {"id": old})
    assert await rollups.roll(db) == 2
    assert await retention.clean_history(db) == 1
    assert await jobs.find(db, old) is None
    assert await jobs.find(db, with_file) is not None
    assert (await db.fetch("SELECT count(*) AS n FROM attempt"))[0]["n"] == 1


async def test_registered_media_go_with_the_history_in_batches_but_never_before_their_files(
    db: Database, storage: LocalStorage
) -> None:
    job_id = await submitted(db, storage)
    await db.fetch(
        "INSERT INTO media_object (id, job_id, storage_key, mime, bytes, expires_at) "
        "SELECT id, job_id, storage_key, 'image/jpeg', 1, now() - days * interval '1 day' FROM (VALUES "
        "('young', NULL::uuid, NULL, 364), ('with-file', NULL, 'media/x.jpg', 366), ('of-a-job', %(job)s, NULL, 366)"
        ") AS kept (id, job_id, storage_key, days) "
        "UNION ALL SELECT 'old-' || n, NULL, NULL, 'image/jpeg', 1, now() - interval '366 days' "
        "FROM generate_series(1, %(many)s) AS n",
        {"job": job_id, "many": retention.BATCH * 2 + 1},
    )
    assert await retention.clean_history(db) == retention.BATCH * 2 + 1
    left = await db.fetch("SELECT id FROM media_object")
    assert {row["id"] for row in left} == {"young", "with-file", "of-a-job"}
