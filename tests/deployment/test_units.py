"""The units for systemd that ``ops`` ships, read by systemd's own verifier."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from photochanger.config import PROJECT

UNITS = sorted((PROJECT / "ops" / "systemd").iterdir())


def verified(folder: Path, text: dict[str, str]) -> str:
    """What the verifier says of these units, installed where this project lies."""
    assert shutil.which("systemd-analyze") is not None, "systemd-analyze is not installed (Debian's package systemd)"
    for name, content in text.items():
        (folder / name).write_text(content.replace("/opt/photochanger", str(PROJECT)))
    ran = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *sorted(folder.iterdir())], capture_output=True, text=True, timeout=60
    )
    return ran.stdout + ran.stderr


def test_systemd_finds_nothing_to_say(tmp_path: Path) -> None:
    assert verified(tmp_path, {unit.name: unit.read_text() for unit in UNITS}) == ""


@pytest.mark.parametrize(
    ("right", "wrong"), [("Restart=always", "Restrat=always"), ("bin/photochanger up", "bin/photochangr up")]
)
def test_it_would_say_what_is_wrong(tmp_path: Path, right: str, wrong: str) -> None:
    service = (PROJECT / "ops" / "systemd" / "photochanger.service").read_text()
    assert wrong.split("=")[0].split(" ")[0] in verified(tmp_path, {"wrong.service": service.replace(right, wrong)})
