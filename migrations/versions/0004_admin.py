"""What an administrator's API needs: trial jobs, gallery shares, media of no job; larger amounts of money, when to come
back after a failure; the check of 0003 is looked at."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_AMOUNTS = (("job", "cost"), ("attempt", "cost"), ("limit_use", "amount"), ("usual_time", "mean_cost"))


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("job", sa.Column("retry_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("job", sa.Column("is_test", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.alter_column("media_object", "job_id", nullable=True)
    op.create_table(
        "gallery_share",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("slot_id", sa.Text(), nullable=True),
        sa.Column("opened_by", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["slot_id"], ["slot.id"], name=op.f("fk_gallery_share_slot_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gallery_share")),
    )
    op.create_index(op.f("ix_gallery_share_expires_at"), "gallery_share", ["expires_at"])
    for table, column in _AMOUNTS:  # a wider precision rewrites nothing
        op.alter_column(table, column, type_=sa.Numeric(precision=18, scale=6))
    with op.get_context().autocommit_block():  # it reads every job, and keeps nobody out
        op.execute("ALTER TABLE job VALIDATE CONSTRAINT ck_job_final_is_whole")


def downgrade() -> None:
    op.drop_table("gallery_share")
    op.execute("DELETE FROM media_object WHERE job_id IS NULL")
    op.alter_column("media_object", "job_id", nullable=False)
    op.drop_column("job", "is_test")
    for table, column in _AMOUNTS:
        op.alter_column(table, column, type_=sa.Numeric(precision=12, scale=6))
    op.drop_column("job", "retry_at")
