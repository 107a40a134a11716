"""Real providers: their sealed keys, temporary public media, and the provider's own id of a paid call."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "provider_secret",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column(
            "updated_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_provider_secret")),
        sa.UniqueConstraint("provider", name=op.f("uq_provider_secret_provider")),
    )
    op.create_table(
        "media_object",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("storage_key", sa.Text(), nullable=True),
        sa.Column("mime", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_media_object_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_media_object")),
    )
    op.create_index(op.f("ix_media_object_job_id"), "media_object", ["job_id"])
    op.create_index(
        "ix_media_object_live_expires_at",
        "media_object",
        ["expires_at"],
        postgresql_where=sa.text("storage_key IS NOT NULL"),
    )
    op.add_column("job", sa.Column("provider_job_reference", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("job", "provider_job_reference")
    op.drop_table("media_object")
    op.drop_table("provider_secret")
