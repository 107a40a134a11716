"""History: rollups, which jobs are in none yet, and what finished jobs are found by."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "job_ended",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_job_ended")),
    )
    # Rows live for seconds: vacuum by count, not by share.
    op.execute(
        "ALTER TABLE job_ended SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, "
        "autovacuum_vacuum_cost_delay = 0)"
    )
    _rollups()
    op.create_table(
        "stats_reset",
        sa.Column("slot_id", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["slot_id"], ["slot.id"], name=op.f("fk_stats_reset_slot_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("slot_id", name=op.f("pk_stats_reset")),
    )
    _search()
    op.create_index(
        "ix_job_pictures", "job", ["slot_id", "created_at"], postgresql_where=sa.text("result_file_path IS NOT NULL")
    )
    op.create_index(
        "ix_job_failures", "job", ["slot_id", "created_at"], postgresql_where=sa.text("failure_reason IS NOT NULL")
    )
    op.execute("INSERT INTO job_ended (job_id) SELECT id FROM job WHERE is_finalized ORDER BY finalized_at")


def _rollups() -> None:
    op.create_table(
        "job_rollup",
        sa.Column("zone", sa.Text(), nullable=False),
        sa.Column("slot_id", sa.Text(), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("jobs", sa.BigInteger(), nullable=False),
        sa.Column("cost", sa.Numeric(precision=16, scale=6), nullable=False),
        # With everything in the index a year is read from pages that lie side by side.
        sa.PrimaryKeyConstraint(
            "zone",
            "slot_id",
            "began_at",
            "provider",
            "outcome",
            name=op.f("pk_job_rollup"),
            postgresql_include=["jobs", "cost"],
        ),
    )
    op.create_table(
        "time_rollup",
        sa.Column("zone", sa.Text(), nullable=False),
        sa.Column("slot_id", sa.Text(), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("bucket", sa.SmallInteger(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("queue_wait", sa.BigInteger(), nullable=False),
        sa.Column("provider", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "zone",
            "slot_id",
            "began_at",
            "bucket",
            name=op.f("pk_time_rollup"),
            postgresql_include=["total", "queue_wait", "provider"],
        ),
    )


def _search() -> None:
    op.create_table(
        "job_search",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("slot_id", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("providers", sa.Text(), nullable=False),
        sa.Column("words", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_job_search_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_job_search")),
    )
    op.create_index("ix_job_search_kind", "job_search", ["slot_id", "outcome", "providers", "created_at", "job_id"])
    op.create_index("ix_job_search_created_at", "job_search", ["created_at", "job_id"])
    op.create_index("ix_job_search_words", "job_search", ["words"], postgresql_using="gin")


def downgrade() -> None:
    op.drop_index("ix_job_failures", "job")
    op.drop_index("ix_job_pictures", "job")
    for name in ("job_search", "stats_reset", "time_rollup", "job_rollup", "job_ended"):
        op.drop_table(name)
