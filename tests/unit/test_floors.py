"""The import graph: floors import only downwards, web and actors never each other."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from photochanger.config import PROJECT

FLOORS = {
    0: {"failures", "states", "deadlines", "config", "images", "process", "permissions", "zones"},
    1: {"db", "tables", "storage", "broker", "providers", "tokens", "logs", "metrics", "image_pool", "failpoints",
        "embedded", "image_server", "bearer", "network", "schema", "dumps", "tarball"},
    2: {"jobs", "slots", "settings", "templates", "accounts", "routing", "retention", "leases", "access", "media",
        "outside", "readiness", "vault", "admission", "breakers", "gate", "limits", "rungs", "usual", "audit",
        "galleries", "rerun", "system", "schedules", "sessions", "logins", "stats", "rollups", "job_list",
        "job_search", "backups", "restoring", "agreement"},
    3: {"cli"},
}  # fmt: skip
FLOOR = {module: floor for floor, modules in FLOORS.items() for module in modules}
SOURCES = sorted(path for package in ("photochanger", "actors", "web") for path in (PROJECT / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Every absolute module name a file imports, at any depth."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "photochanger" and len(parts) > 1 else None


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_imports_go_downwards_only(path: Path) -> None:
    package, *rest = path.relative_to(PROJECT).with_suffix("").parts
    if package == "photochanger":
        if rest == ["__init__"]:
            return
        assert rest[0] in FLOOR, f"{rest[0]} has no floor: add it to FLOORS"
        mine = FLOOR[rest[0]]
    else:
        mine = 3
    for module in imports(path):
        other = room(module)
        if other in FLOOR:
            assert FLOOR[other] <= mine, f"{path.name} (floor {mine}) imports {module} (floor {FLOOR[other]})"
        top = module.split(".")[0]
        if package == "photochanger":
            assert top not in ("web", "actors", "falcon", "uvicorn"), f"the core imports {module}"
        if package == "web":
            assert top not in ("actors", "dramatiq"), f"web imports {module}"
        if package == "actors":
            assert top not in ("web", "falcon", "uvicorn"), f"actors import {module}"


@pytest.mark.parametrize("path", sorted((PROJECT / "photochanger" / "providers").glob("*.py")), ids=lambda p: p.name)
def test_a_driver_sees_the_ground_floor_only(path: Path) -> None:
    allowed = FLOORS[0] | {"providers"}
    used = {room(module) for module in imports(path)} - {None}
    assert used <= allowed
