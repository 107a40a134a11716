"""The four durations on real rows: a setting that changes in between changes nothing for a job that exists."""

from __future__ import annotations

from datetime import timedelta

import pytest
from psycopg.types.json import Jsonb

from photochanger import jobs, settings
from photochanger.db import Database
from photochanger.deadlines import temporary_expires_at
from photochanger.failures import InvalidSettings
from photochanger.storage.local import LocalStorage
from tests.integration.jobs_made import claimed, dispatched, picture, submitted, succeeded

pytestmark = pytest.mark.anyio


async def finish(db: Database, job_id: object) -> dict[str, object]:
    claim = await claimed(db, job_id)  # type: ignore[arg-type]
    attempt = await dispatched(db, claim)
    await jobs.succeed(db, claim, picture(), key="results/a.jpg", served_by="x", attempt=attempt, since_response_s=0)
    return (await db.fetch("SELECT * FROM job WHERE id = %(id)s", {"id": job_id}))[0]


async def test_t_sync_response_is_fixed_when_the_job_is_made(db: Database) -> None:
    job_id = await submitted(db, t_sync_s=20)
    await settings.save(db, {"t_sync_response_s": 60})
    row = await finish(db, job_id)
    assert row["expires_at"] - row["created_at"] == timedelta(seconds=20)  # type: ignore[operator]


async def test_t_public_link_ttl_ends_with_the_job_whatever_the_setting_says_later(db: Database) -> None:
    job_id = await submitted(db, t_sync_s=20)
    await settings.save(db, {"t_sync_response_s": 60})
    row = (await db.fetch("SELECT * FROM job WHERE id = %(id)s", {"id": job_id}))[0]
    end = temporary_expires_at(row["expires_at"], row["created_at"], timedelta(seconds=60))
    assert end == row["expires_at"]


async def test_t_result_retention_is_the_one_the_result_was_made_with(db: Database) -> None:
    job_id = await submitted(db, result_s=72 * 3600)
    await settings.save(db, {"t_result_retention_h": 720})
    row = await finish(db, job_id)
    assert row["result_expires_at"] - row["finalized_at"] == timedelta(hours=72)  # type: ignore[operator]


async def test_t_original_retention_zero_lets_go_of_the_original_with_the_final_state(
    db: Database, storage: LocalStorage
) -> None:
    job_id = await submitted(db, storage, original_s=0)
    await settings.save(db, {"t_original_retention_h": 24})
    assert (await finish(db, job_id))["payload_path"] is None


async def test_t_original_retention_keeps_the_original_but_never_past_the_result(db: Database) -> None:
    job_id = await submitted(db, original_s=100 * 3600, result_s=72 * 3600)
    await settings.save(db, {"t_original_retention_h": 0})
    row = await finish(db, job_id)
    assert row["payload_path"] is not None
    assert row["payload_expires_at"] == row["result_expires_at"]


async def test_every_way_to_end_keeps_the_original_as_its_snapshot_says(db: Database) -> None:
    kept, dropped = await submitted(db, original_s=3600), await submitted(db)
    for job_id in (kept, dropped):
        final = await jobs.cancel(db, job_id, detail="x")
        assert final is not None
        assert (final.drop_payload is None) == (job_id == kept)


async def test_settings_out_of_bounds_are_refused_and_nothing_is_saved(db: Database) -> None:
    before = await settings.load(db)
    for change in ({"t_sync_response_s": 9}, {"t_result_retention_h": 721}, {"colour": 1},
                   {"t_sync_response_s": 30, "public_base_url": "https://https://x"}):  # fmt: skip
        with pytest.raises(InvalidSettings):
            await settings.save(db, change)
    assert await settings.load(db) == before


async def test_what_an_earlier_version_took_and_this_one_refuses_counts_as_not_set(db: Database) -> None:
    for name, value in {"time_zone": "localtime", "public_base_url": "http://a b"}.items():
        row = {"name": name, "value": Jsonb(value)}
        await db.fetch("INSERT INTO app_settings (key, value) VALUES (%(name)s, %(value)s)", row)
    current = await settings.load(db)
    assert (current.time_zone, current.public_base_url) == ("UTC", None)
    await settings.save(db, {"t_job_history_d": 30})


async def test_a_result_says_when_it_ends_from_the_moment_it_is_final(db: Database) -> None:
    row = (await db.fetch("SELECT * FROM job WHERE id = %(id)s", {"id": await succeeded(db)}))[0]
    assert row["result_expires_at"] == row["finalized_at"] + timedelta(hours=72)
