"""What an administrator does and the audit's entry are one: neither is there without the other."""

from __future__ import annotations

import pytest

from photochanger import audit, backups, jobs
from photochanger.audit import Deed
from photochanger.db import Database
from tests.integration.jobs_made import submission, submitted

pytestmark = pytest.mark.anyio


@pytest.fixture
async def forgetful(db: Database) -> Database:
    """A database that takes no entry."""
    await db.fetch("ALTER TABLE audit ADD CONSTRAINT never CHECK (false)")
    return db


async def test_a_job_is_cancelled_with_its_entry(db: Database) -> None:
    job_id = await submitted(db)
    assert await jobs.cancel(db, job_id, detail="x", actor="boss") is not None
    assert await jobs.cancel(db, job_id, detail="x", actor="late") is None
    rows, _ = await audit.listing(db)
    assert [(row["actor"], row["action"], row["target"]) for row in rows] == [
        ("boss", "job.cancelled", f"job/{job_id}")
    ]


async def test_without_its_entry_no_job_is_cancelled(forgetful: Database) -> None:
    job_id = await submitted(forgetful)
    with pytest.raises(Exception, match="never"):
        await jobs.cancel(forgetful, job_id, detail="x", actor="boss")
    assert (await forgetful.fetch("SELECT is_finalized FROM job")) == [{"is_finalized": False}]


async def test_without_its_entry_no_job_is_made(forgetful: Database) -> None:
    with pytest.raises(Exception, match="never"):
        await jobs.submit(forgetful, submission(), deed=Deed("boss", "job.rerun", "job/x"))
    assert await forgetful.fetch("SELECT FROM job") == []
    assert await forgetful.fetch("SELECT FROM dramatiq.queue") == []


async def test_without_its_entry_no_backup_begins(forgetful: Database) -> None:
    with pytest.raises(Exception, match="never"):
        await backups.begin(forgetful, actor="boss")
    assert await backups.begin(forgetful) is not None
