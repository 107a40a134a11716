"""The admin API as a client meets it: the application on a port of its own, and an account that is signed in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
from argon2 import PasswordHasher

from photochanger.config import Config
from photochanger.permissions import PERMISSIONS
from tests.servers import web

PASSWORD = "a password for tests"
#: Of ``PASSWORD``: made once, a hash takes 0.15 s.
HASHED = PasswordHasher().hash(PASSWORD)


@dataclass
class Api:
    """A client of a running application. ``headers`` go with every request."""

    url: str
    database_url: str
    client: httpx.Client

    def account(
        self, name: str, permissions: Iterable[str] = PERMISSIONS, *, must_change: bool = False, is_active: bool = True
    ) -> None:
        """Writes an account with the password ``PASSWORD``."""
        self.sql(
            "INSERT INTO account (name, password_hash, permissions, must_change, is_active) "
            "VALUES (%s, %s, %s, %s, %s)",
            name,
            HASHED,
            list(permissions),
            must_change,
            is_active,
        )

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), parameters or None)
            return cursor.fetchall() if cursor.description is not None else []

    def login(self, name: str, password: str = PASSWORD) -> httpx.Response:
        """Without a cookie jar: what comes back is sent where a test says so."""
        json = {"name": name, "password": password}
        return httpx.post(f"{self.url}/api/login", json=json, trust_env=False, timeout=30)

    def signed_in(self, name: str, permissions: Iterable[str] = PERMISSIONS, **options: bool) -> httpx.Client:
        """A new account, and a client that sends its access token."""
        self.account(name, permissions, **options)
        answer = self.login(name)
        assert answer.status_code == 200, answer.text
        token = answer.json()["access_token"]
        return httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {token}"}, trust_env=False, timeout=30
        )


@contextmanager
def api(config: Config) -> Iterator[Api]:
    """Runs the application."""
    assert config.database_url is not None
    with web(config) as url, httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
        yield Api(url, config.database_url, client)
