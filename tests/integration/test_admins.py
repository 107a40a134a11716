"""``photochanger admin``: accounts from a shell."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from photochanger import cli
from photochanger.permissions import PERMISSIONS


@pytest.fixture(autouse=True)
def installed(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOTOCHANGER_DATABASE_URL", database_url)
    monkeypatch.setenv("PHOTOCHANGER_HOME", str(tmp_path))


def said(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    assert cli.main(["admin", *arguments]) == status
    printed = capsys.readouterr()
    return (printed.err if status else printed.out).strip()


def test_an_account_is_made_listed_changed_and_disabled(capsys: pytest.CaptureFixture[str], database_url: str) -> None:
    first = said(capsys, "create", "keeper", "all")
    assert len(first) == 23
    assert said(capsys, "create", "anna", "slots:write", "slots:read") != first
    assert said(capsys, "permissions", "anna", "jobs:read") == "jobs:read"
    assert said(capsys, "disable", "anna") == "anna is disabled"
    assert said(capsys, "list").splitlines() == [f"{'anna':<24} off  jobs:read", f"{'keeper':<24} on   all"]
    assert said(capsys, "enable", "anna") == "anna is enabled"
    assert said(capsys, "permissions", "anna") == "–"
    assert len(said(capsys, "password", "anna")) == 23
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT DISTINCT actor, address FROM audit").fetchall()
        assert connection.execute("SELECT count(*) FROM audit").fetchone() == (7,)
    assert rows == [("(command)", None)]


def test_what_cannot_be_is_said_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "create", "keeper", *PERMISSIONS)
    assert "last active account" in said(capsys, "disable", "keeper", status=1)
    assert "There is no account nobody" in said(capsys, "password", "nobody", status=1)
    assert "is not a permission" in said(capsys, "create", "anna", "everything", status=1)
    assert "already" in said(capsys, "create", "keeper", status=1)


def test_the_first_administrators_password_has_a_short_word(capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "create", "admin", "all")
    assert cli.main(["admin-password"]) == 0
    assert len(capsys.readouterr().out.strip()) == 23


def test_the_help_explains_every_permission(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["admin", "--help"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in PERMISSIONS)
