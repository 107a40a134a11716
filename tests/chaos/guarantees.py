"""What must hold after every fault (G1–G6), checked on the rows and files of an installation."""

from __future__ import annotations

import hashlib
from typing import Any

from tests.installation import Installation, until

FINAL = ("succeeded", "failed", "timed_out", "cancelled")
#: Lateness that is still "in time", by the database's clock.
GRACE_S = 1.0


def check(running: Installation, *, within_s: float = 70, max_attempts: int = 2) -> list[dict[str, Any]]:
    """Waits until no job is open, then asserts G1–G6; the jobs."""
    until(
        lambda: not running.sql("SELECT 1 FROM job WHERE NOT is_finalized"), within_s=within_s, what="every job final"
    )
    jobs = running.sql("SELECT * FROM job ORDER BY created_at")
    for job in jobs:
        events = running.sql("SELECT event FROM processing_log WHERE job_id = %s", job["id"])
        finals = [row["event"] for row in events if row["event"] in FINAL]
        assert finals == [job["status"]], f"G1: {job['id']} has the final events {finals}"
        late = (job["finalized_at"] - job["expires_at"]).total_seconds()
        assert late <= GRACE_S, f"G2: {job['id']} was final {late:.1f} s after its deadline"
        if job["status"] == "succeeded":
            digest = hashlib.sha256((running.home / "media" / job["result_file_path"]).read_bytes()).hexdigest()
            assert digest == job["result_sha256"], f"G3: {job['id']}"
    attempts = running.sql("SELECT job_id, count(*) AS n FROM attempt GROUP BY 1 HAVING count(*) > %s", max_attempts)
    assert attempts == [], "G5"
    until(
        lambda: not running.sql("SELECT 1 FROM dramatiq.queue WHERE state IN ('queued', 'consumed')"),
        within_s=5,
        what="G6: the queue empty and every lease back",
    )
    return jobs


def rows_and_files_agree(running: Installation) -> None:
    """G4, after the cleaner: no file without a row, no live row without a file."""
    import asyncio
    import os

    from photochanger import retention
    from photochanger.db import Database
    from photochanger.storage.local import LocalStorage

    for kind in ("results", "payloads", "tmp"):
        for path in running.files(kind):
            os.utime(path, (0, 0))

    async def clean() -> None:
        url = running._database_url or (running.home / "run" / "database_url").read_text().strip()
        db = Database(url, connections=1, application_name="test")
        await retention.clean_orphans(db, LocalStorage(running.home / "media"))
        await db.close()

    asyncio.run(clean())
    known = {
        row["key"]
        for row in running.sql(
            "SELECT result_file_path AS key FROM job WHERE result_file_path IS NOT NULL "
            "UNION ALL SELECT payload_path FROM job WHERE payload_path IS NOT NULL"
        )
    }
    there = {f"{kind}/{path.name}" for kind in ("results", "payloads", "tmp") for path in running.files(kind)}
    assert there == known, "G4"


def matches_row(running: Installation, job_id: str, body: bytes) -> None:
    """G3 for a picture that was answered: body = row = file."""
    row = running.sql("SELECT result_sha256 FROM job WHERE id = %s", job_id)[0]
    assert hashlib.sha256(body).hexdigest() == row["result_sha256"], "G3"
