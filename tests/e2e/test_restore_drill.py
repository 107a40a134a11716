"""The restore drill: a backup made while photos come, brought back in a new home with nothing but the key file."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from ops.simulators import KEY
from tests.conftest import database
from tests.installation import Installation, result_link
from tests.integration.calls import options, simulated
from tests.photos import photo

ADMIN_PASSWORD = "the owner's own password"
PAID = "slot-002"
ROUTE = {"rungs": [{"provider": "openai", "operation": "image_edit", "settings": {"prompt": "x"}}]}


@pytest.fixture
def urls(server_url: str, database_url: str) -> Any:
    """The URLs of a migrated database and of an empty one."""
    for other in database(server_url, "template1"):
        yield database_url, other


def test_a_new_home_with_the_key_file_is_the_old_one(tmp_path: Path, urls: tuple[str, str]) -> None:
    env = {"PHOTOCHANGER_ADMIN_PASSWORD": ADMIN_PASSWORD}
    copy = tmp_path / "copy.tar"
    with simulated("openai") as vendor:
        assert vendor is not None
        with Installation(tmp_path / "old", database_url=urls[0], env=env) as old:
            old.done("secrets", "set", "openai", stdin=KEY)
            given = {"openai": options("openai", vendor.url, models={"gpt-image-1-mini": {"usual_s": 0.3}})}
            old.done("settings", f"providers={json.dumps(given)}")
            old.done("slot", "set", PAID, "--on", "--route", json.dumps(ROUTE))
            picture = old.post(photo(64, 48))
            link = result_link(picture)
            assert _answered_while(old, "backup", str(copy)) > 0
            assert "stop it first" in old.cli("restore", str(copy), "--replace").stderr
        new = Installation(tmp_path / "new", database_url=urls[1])
        assert "is whole" in new.done("restore", "--check", str(copy))
        (tmp_path / "new").mkdir(exist_ok=True)
        shutil.copy2(tmp_path / "old" / "master.key", tmp_path / "new")
        assert "master.key" not in new.done("restore", str(copy))
        audit = json.loads(new.done("audit", "--json"))
        assert audit["differences"] == 0
        assert audit["kinds"]["results"]["rows"] >= 1
        with new:
            again = httpx.get(link.replace(old.url, new.url), trust_env=False)
            assert (again.status_code, again.content) == (200, picture.content)
            who = {"name": "admin", "password": ADMIN_PASSWORD}
            assert httpx.post(f"{new.url}/api/login", json=who, trust_env=False, timeout=30).status_code == 200
            assert new.post(photo(64, 48), slot=PAID).status_code == 200, "the stored key is accepted"


def _answered_while(running: Installation, *command: str) -> int:
    """Runs a command while photos come; how many were answered with their picture, which all must be."""
    statuses: list[int] = []
    stop = threading.Event()

    def send() -> None:
        while not stop.is_set():
            statuses.append(running.post(photo(640, 480)).status_code)

    sending = threading.Thread(target=send)
    sending.start()
    try:
        running.done(*command)
    finally:
        stop.set()
        sending.join()
    assert set(statuses) == {200}
    return len(statuses)
