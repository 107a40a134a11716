"""The audit is read by time, and asked which jobs were done again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_COLUMNS = ("actor", "action", "target")


def upgrade() -> None:
    op.create_index("ix_audit_at", "audit", ["at", "id"])
    for column in _COLUMNS:
        op.create_index(f"ix_audit_{column}_at", "audit", [column, "at", "id"])
        op.drop_index(f"ix_audit_{column}_id", "audit")
    op.create_index(
        "ix_audit_rerun_of", "audit", [sa.text("(detail->>'of')")], postgresql_where=sa.text("action = 'job.rerun'")
    )


def downgrade() -> None:
    op.drop_index("ix_audit_rerun_of", "audit")
    for column in _COLUMNS:
        op.create_index(f"ix_audit_{column}_id", "audit", [column, "id"])
        op.drop_index(f"ix_audit_{column}_at", "audit")
    op.drop_index("ix_audit_at", "audit")
