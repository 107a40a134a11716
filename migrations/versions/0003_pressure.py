"""Under pressure: lanes of the queue, limits, circuit breakers, measured times, and photos that come twice."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_WHOLE = (
    "is_finalized = (status NOT IN ('pending', 'processing'))"
    " AND is_finalized = (finalized_at IS NOT NULL)"
    " AND {results}"
    " AND (status IN ('failed', 'timed_out', 'cancelled')) = (failure_reason IS NOT NULL)"
)


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("job", sa.Column("waiters", sa.Integer(), server_default=sa.text("1"), nullable=False))
    op.add_column(
        "job", sa.Column("cost", sa.Numeric(precision=12, scale=6), server_default=sa.text("0"), nullable=False)
    )
    _final_is_whole(
        "CASE status WHEN 'succeeded' THEN result_sha256 IS NOT NULL"
        " WHEN 'timed_out' THEN true ELSE result_sha256 IS NULL END"
    )
    op.add_column(
        "queue", sa.Column("lane", sa.Text(), server_default=sa.text("''"), nullable=False), schema="dramatiq"
    )
    op.add_column("queue", sa.Column("lane_until", sa.DateTime(timezone=True), nullable=True), schema="dramatiq")
    op.add_column(
        "queue", sa.Column("work_s", sa.Float(), server_default=sa.text("0"), nullable=False), schema="dramatiq"
    )
    op.create_table(
        "lane",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_lane")),
        schema="dramatiq",
    )
    op.create_table(
        "limit_use",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("amount", sa.Numeric(precision=12, scale=6), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("worker_id", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["worker_id"], ["dramatiq.worker.id"], name=op.f("fk_limit_use_worker_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("key", "holder", name=op.f("pk_limit_use")),
    )
    op.create_index(
        op.f("ix_limit_use_worker_id"), "limit_use", ["worker_id"], postgresql_where=sa.text("worker_id IS NOT NULL")
    )
    op.create_index(op.f("ix_limit_use_expires_at"), "limit_use", ["expires_at"])
    op.create_table(
        "breaker",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("openings", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("open_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("probe_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("provider", name=op.f("pk_breaker")),
    )
    op.create_table(
        "usual_time",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("calls", sa.Integer(), nullable=False),
        sa.Column("p50_s", sa.Float(), nullable=False),
        sa.Column("p90_s", sa.Float(), nullable=False),
        sa.Column("mean_s", sa.Float(), nullable=False),
        sa.Column("mean_cost", sa.Numeric(precision=12, scale=6), nullable=False),
        sa.Column(
            "measured_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("provider", "operation", "model", name=op.f("pk_usual_time")),
    )
    op.create_table(
        "request_key",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("payload_sha256", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_request_key")),
    )
    op.create_index(op.f("ix_request_key_expires_at"), "request_key", ["expires_at"])


def downgrade() -> None:
    for name in ("request_key", "usual_time", "breaker", "limit_use"):
        op.drop_table(name)
    op.drop_table("lane", schema="dramatiq")
    for column in ("work_s", "lane_until", "lane"):
        op.drop_column("queue", column, schema="dramatiq")
    op.execute("UPDATE job SET result_sha256 = NULL, result_file_path = NULL WHERE status = 'timed_out'")
    _final_is_whole("(status = 'succeeded') = (result_sha256 IS NOT NULL)")
    op.drop_column("job", "cost")
    op.drop_column("job", "waiters")


def _final_is_whole(results: str) -> None:
    op.drop_constraint(op.f("ck_job_final_is_whole"), "job")
    # Not checked against the rows here: the lock that it is added under would be held as long as that takes.
    name, check = op.f("ck_job_final_is_whole"), _WHOLE.format(results=results)
    op.create_check_constraint(name, "job", check, postgresql_not_valid=True)
