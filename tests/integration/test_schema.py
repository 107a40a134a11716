"""Migrations: up, down, up again, and in step with the row classes."""

from __future__ import annotations

import threading

import psycopg
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from photochanger import schema
from photochanger.permissions import PERMISSIONS
from photochanger.tables import Row


def tables(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname IN ('public', 'dramatiq')"
        )
        return {name for (name,) in rows}


def test_up_down_up(empty_database: str) -> None:
    schema.migrate(empty_database)
    up = tables(empty_database)
    assert {"public.job", "public.app_settings", "dramatiq.queue", "dramatiq.worker"} <= up
    schema.migrate(empty_database, "base")
    assert tables(empty_database) == {"public.alembic_version"}
    schema.migrate(empty_database)
    assert tables(empty_database) == up


def test_the_row_classes_match_the_migrations(database_url: str) -> None:
    engine = sqlalchemy.create_engine(database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "compare_server_default": True,
                "include_name": lambda name, kind, parents: kind != "schema" or name in (None, "dramatiq"),
            },
        )
        assert compare_metadata(context, Row.metadata) == []
    engine.dispose()


def test_the_first_administrator_of_an_older_version_may_do_everything(empty_database: str) -> None:
    schema.migrate(empty_database, "0003")
    with psycopg.connect(empty_database) as connection:
        connection.execute("INSERT INTO account (name, password_hash) VALUES ('admin', '')")
    schema.migrate(empty_database)
    with psycopg.connect(empty_database) as connection:
        [row] = connection.execute("SELECT permissions, is_active FROM account").fetchall()
    assert row == (list(PERMISSIONS), True)


def test_several_processes_may_migrate_at_once(empty_database: str) -> None:
    failures: list[BaseException] = []

    def migrate() -> None:
        try:
            schema.migrate(empty_database)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=migrate) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert "public.job" in tables(empty_database)
