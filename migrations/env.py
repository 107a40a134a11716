"""Alembic's environment: runs on the connection that ``photochanger.schema`` hands over."""

from __future__ import annotations

from alembic import context

from photochanger.tables import Row

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Row.metadata,
    include_schemas=True,
    include_name=lambda name, kind, parents: kind != "schema" or name in (None, "public", "dramatiq"),
    compare_server_default=True,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
