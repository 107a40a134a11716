"""What the documents must name, so that they say what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from photochanger import logs
from photochanger.config import PREFIX, PROJECT, Config
from photochanger.settings import SERVERS_OWN, Settings

DOCS = PROJECT / "spec" / "docs"
ADRS = sorted((PROJECT / "spec" / "adr").glob("*.md"))
PAGES = sorted([*PROJECT.glob("*.md"), *(PROJECT / "spec").rglob("*.md"), *(PROJECT / "ops").rglob("*.md")])
#: Settings that commands of their own write.
NOT_BY_HAND = set(SERVERS_OWN)
#: Every name the roadmap's phases use, phase by phase.
ROADMAP_NAMES = (
    "spec/docs",
    "spec/contracts",
    "vision",
    "context",
    "domain-model",
    "test-plan",
    "checklist",
    "spec/contracts/openapi.yaml",
    "Slot",
    "Job",
    "MediaObject",
    "TemplateMedia",
    "Result",
    "Settings",
    "AuthToken",
    "Error",
    "spec/contracts/providers",
    "JobService",
    "SlotService",
    "SettingsService",
    "MediaService",
    "StatsService",
    "JobRepository",
    "QueueWorker",
    "expires_at",
    "T_sync_response",
    "T_public_link_ttl",
    "T_result_retention",
    "MEDIA_ROOT/results",
    "ProcessingLog",
    "recent_results",
    "/api/stats/global",
    "/api/stats/{slot_id}",
    "settings:write",
    "slots:write",
    "models.generateContent",
    "media_object",
    "queueid",
    "app_settings",
    "provider_secret",
    "payload",
    "result_file_path",
    "Prometheus",
    "README",
)

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_PATH = re.compile(
    r"`((?:photochanger|actors|web|migrations|spec|tests|ops)/[\w./-]*\w\.(?:py|md|yaml|json|sh|js|txt))`"
)


def _name(page: Path) -> str:
    return str(page.relative_to(PROJECT))


def _anchors(page: Path) -> set[str]:
    """The fragments a page's headings can be linked by."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_deployment_names_every_environment_variable_and_no_unknown_one() -> None:
    named = set(re.findall(rf"\b(?:{PREFIX}[A-Z_]+|PORT)\b", (DOCS / "deployment.md").read_text()))
    assert named == {"PORT" if field == "port" else PREFIX + field.upper() for field in Config.model_fields}


def test_operations_explains_every_log_event_and_no_unknown_one() -> None:
    table = re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \| (\w+) \|", (DOCS / "operations.md").read_text(), re.MULTILINE)
    levels = {"debug": 10, "info": 20, "warning": 30, "error": 40}
    assert {event: levels[level] for event, level in table} == {event: at for event, (at, _) in logs.EVENTS.items()}


def test_operations_explains_every_setting_with_its_default() -> None:
    table = dict(
        re.findall(r"^\| `((?!photochanger_)[a-z_]+)` \| ([^|]+?) \|", (DOCS / "operations.md").read_text(), re.M)
    )
    defaults = Settings().model_dump(mode="json", exclude=NOT_BY_HAND)
    assert {name: json.loads(value) for name, value in table.items()} == defaults


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    wrong = []
    for link in _LINK.findall(page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (fragment and fragment not in _anchors(target)):
            wrong.append(link)
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_file_a_document_names_is_there(page: Path) -> None:
    assert [path for path in _PATH.findall(page.read_text()) if not (PROJECT / path).exists()] == []


@pytest.mark.parametrize("adr", ADRS, ids=_name)
def test_every_decision_has_context_decision_and_consequences(adr: Path) -> None:
    text = adr.read_text()
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]
    assert text.startswith(f"# {adr.name[:4]}. ")


def test_decisions_are_numbered_without_a_gap() -> None:
    assert [adr.name[:4] for adr in ADRS] == [f"{number:04}" for number in range(1, len(ADRS) + 1)]
    assert len(ADRS) >= 10


@pytest.mark.parametrize("name", ROADMAP_NAMES)
def test_the_roadmap_says_what_became_of_every_name(name: str) -> None:
    assert re.search(rf"`{re.escape(name)}[/`.*]", (DOCS / "roadmap.md").read_text())


def test_every_line_of_the_roadmap_is_there() -> None:
    rows = re.findall(r"^\| (\d\.\d+) \|.*\| (.+) \|$", (DOCS / "roadmap.md").read_text(), re.MULTILINE)
    lines = {0: 2, 1: 4, 2: 4, 3: 9, 4: 7, 5: 4, 6: 4, 7: 4, 8: 3}
    assert [number for number, _ in rows] == [
        f"{phase}.{line}" for phase, count in lines.items() for line in range(1, count + 1)
    ]
    unclear = [number for number, state in rows if not re.search(r"`(?:tests|spec|web|photochanger)/", state)]
    assert unclear == []


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_a_document_holds_no_machine_path_and_no_address_of_a_registry(page: Path) -> None:
    assert re.findall(r"(?<![\w.])/(?:root|home|Users|tmp)/\S*|\bindex-url\b", page.read_text()) == []
