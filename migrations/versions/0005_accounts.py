"""Who may do what: permissions of accounts, sessions, failures to sign in, and the audit."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_ALL = (
    "slots:read,slots:write,settings:read,settings:write,jobs:read,jobs:write,stats:read,media:write,users:write,"
    "audit:read"
)
_NOW = sa.text("clock_timestamp()")
_LANGUAGES = "language IN ('en', 'ru')"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.add_column(
        "account", sa.Column("permissions", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False)
    )
    op.add_column("account", sa.Column("is_active", sa.Boolean(), server_default=sa.text("true"), nullable=False))
    op.add_column("account", sa.Column("language", sa.Text(), nullable=True))
    op.add_column("account", sa.Column("updated_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False))
    op.create_check_constraint(op.f("ck_account_language"), "account", _LANGUAGES)
    op.execute(f"UPDATE account SET permissions = string_to_array('{_ALL}', ',')")  # noqa: S608
    op.create_table(
        "session",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("generation", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("user_agent", sa.Text(), nullable=False),
        sa.CheckConstraint("kind IN ('api', 'browser')", name=op.f("ck_session_kind")),
        sa.ForeignKeyConstraint(["account"], ["account.name"], name=op.f("fk_session_account"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_session")),
    )
    op.create_index(op.f("ix_session_account"), "session", ["account"])
    op.create_index(op.f("ix_session_expires_at"), "session", ["expires_at"])
    op.create_table(
        "login_failure",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_login_failure")),
    )
    op.create_index(op.f("ix_login_failure_account_at"), "login_failure", ["account", "at"])
    op.create_index(op.f("ix_login_failure_address_at"), "login_failure", ["address", "at"])
    op.create_index(op.f("ix_login_failure_at"), "login_failure", ["at"])
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("actor", sa.Text(), nullable=True),
        sa.Column("action", sa.Text(collation="C"), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("detail", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    for column in ("actor", "action", "target"):
        op.create_index(op.f(f"ix_audit_{column}_id"), "audit", [column, "id"])


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    for name in ("audit", "login_failure", "session"):
        op.drop_table(name)
    op.drop_constraint(op.f("ck_account_language"), "account")
    for column in ("updated_at", "language", "is_active", "permissions"):
        op.drop_column("account", column)
