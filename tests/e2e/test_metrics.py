"""``/metrics`` of a running installation: what became of photos, the disk, and all that alerts and dashboard name."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ops.simulators import KEY, serving
from ops.simulators.gemini import Gemini
from photochanger import backups
from photochanger.config import PROJECT
from photochanger.failures import BY_CODE
from photochanger.providers import registry
from photochanger.schedules import EVERY_S
from tests.alerts import reading
from tests.conftest import database
from tests.installation import Installation, until
from tests.integration.calls import options
from tests.photos import photo

pytestmark = pytest.mark.xdist_group("metrics")

SLOT = "slot-002"
OPERATIONS = PROJECT / "spec" / "docs" / "operations.md"
#: Labels that Prometheus adds, and ``le`` of its histograms.
PROMETHEUS_OWN = {"job", "instance", "le"}
#: All that a label can be.
VALUES = {
    "outcome": {*BY_CODE, "succeeded", "accepted"},
    "cause": set(BY_CODE),
    "task": {*EVERY_S, backups.TASK},
    "provider": {*registry(), "none"},
}
Labels = frozenset[tuple[str, str]]


@pytest.fixture(scope="module")
def gemini() -> Iterator[Gemini]:
    with serving(Gemini()) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def running(server_url: str, gemini: Gemini, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation that has known everything: a picture from a model about to go, a call tried again, budgets."""
    now = datetime.now(UTC)
    times = {"begins_at": now.isoformat(), "ends_at": (now + timedelta(days=1)).isoformat()}
    budgets = {"budget_per_day": 100, "budget_period": {"name": "Wedding", "amount": 50, **times}}
    rung = {"provider": "gemini", "operation": "image_edit", "settings": {"prompt": "x"}}
    given = options("gemini", gemini.url)
    for url in database(server_url):
        with Installation(tmp_path_factory.mktemp("home"), database_url=url) as its:
            its.done("secrets", "set", "gemini", stdin=KEY)
            its.done("settings", f"providers={json.dumps({'gemini': given})}")
            its.done("slot", "set", SLOT, "--on", "--route", json.dumps({"rungs": [rung]}), "--options",
                     json.dumps({"join_duplicates": False, **budgets}))  # fmt: skip
            until(lambda: its.post(photo(64, 48), slot=SLOT).status_code == 200, within_s=20, what="the slot is on")
            gemini.script.extend(["http_503", "retiring"])
            assert its.post(photo(64, 48), slot=SLOT).status_code == 200
            yield its


def scraped(its: Installation) -> dict[str, dict[Labels, float]]:
    """Every sample, by its name and labels."""
    answer = httpx.get(f"{its.url}/metrics", trust_env=False, timeout=10)
    assert answer.status_code == 200
    found: dict[str, dict[Labels, float]] = defaultdict(dict)
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found[sample.name][frozenset(sample.labels.items())] = sample.value
    return found


def photos(its: Installation) -> dict[tuple[str, str, str], float]:
    """How many were answered, by slot, provider and outcome."""
    samples = scraped(its)["photochanger_ingests_total"]
    return {(of["slot"], of["provider"], of["outcome"]): n for labels, n in samples.items() for of in [dict(labels)]}


@pytest.mark.parametrize(
    ("mode", "outcome"), [("success", "succeeded"), ("no_candidates", "provider_no_image"), ("auth", "provider_auth")]
)
def test_a_photo_is_counted_by_the_provider_asked_last_and_what_became_of_it(
    running: Installation, gemini: Gemini, mode: str, outcome: str
) -> None:
    before, gemini.mode = photos(running), mode
    running.post(photo(64, 48), slot=SLOT)
    gemini.mode = "success"
    counted = (SLOT, "gemini", outcome)
    assert photos(running) == {**before, counted: before.get(counted, 0) + 1}
    running.done("limits", "reset", "gemini")


def test_where_nobody_was_asked_the_provider_is_none_and_unknown_slots_are_not_counted(running: Installation) -> None:
    before = photos(running)
    assert running.post(photo(), password="a wrong one").status_code == 401
    assert running.post(b"no picture").status_code in (400, 415)
    assert running.post(photo(), headers={"Prefer": "respond-async"}).status_code == 202
    assert running.post(photo(), slot="slot-of-a-stranger").status_code == 404
    new = {key for key, count in photos(running).items() if count > before.get(key, 0)}
    assert {outcome for _, _, outcome in new} >= {"invalid_password", "accepted"}
    assert {(slot, provider) for slot, provider, _ in new} == {("slot-001", "none")}


def test_failures_are_told_as_zero_before_the_first(running: Installation) -> None:
    """Prometheus sees no increase in a series that begins with 1."""
    before = photos(running)
    assert before[SLOT, "gemini", "sync_timeout"] == before["slot-001", "none", "internal_error"] == 0
    assert {slot for slot, _, _ in before} == {"slot-001", SLOT}


def test_the_disk_and_what_it_keeps_free_are_told(running: Installation) -> None:
    found = scraped(running)
    free, total, reserve = (
        found[f"photochanger_disk_{name}_bytes"][frozenset()] for name in ("free", "total", "reserve")
    )
    assert 0 < free < total
    assert reserve == 512 * 1024**2


def test_a_budget_is_told_beside_what_is_used_of_it(running: Installation) -> None:
    found = scraped(running)
    for limit, most in {f"budget/{SLOT}/day": 100, f"budget/{SLOT}/period/Wedding": 50}.items():
        assert found["photochanger_limit_max"][frozenset({("limit", limit)})] == most
        assert found["photochanger_limit_used"][frozenset({("limit", limit)})] > 0


@pytest.fixture(scope="module")
def exported(running: Installation, gemini: Gemini) -> dict[str, set[str]]:
    """Every metric and its labels, while a provider is not asked."""
    gemini.mode = "auth"
    running.post(photo(64, 48), slot=SLOT)
    gemini.mode = "success"
    found = {name: {label for labels in of for label, _ in labels} for name, of in scraped(running).items()}
    running.done("limits", "reset", "gemini")
    return found


@pytest.mark.parametrize(("where", "expression"), reading.expressions().items(), ids=reading.expressions())
def test_what_an_alert_or_a_panel_names_is_exported(exported: dict[str, set[str]], where: str, expression: str) -> None:
    named = list(reading.selectors(expression))
    labels = {"up": set(), **exported}
    assert {name for name, _ in named} <= labels.keys()
    for name, matchers in named:
        assert {label for label, _ in matchers} <= labels[name] | PROMETHEUS_OWN
        for label, value in matchers:
            if label in VALUES:
                assert set(value.split("|")) <= VALUES[label], f"{where} waits for a {label} that never comes"
    assert reading.grouped(expression) <= PROMETHEUS_OWN.union(*(labels[name] for name, _ in named))
    assert named


def test_operations_explains_every_metric_with_its_labels_and_no_unknown_one(exported: dict[str, set[str]]) -> None:
    table = re.findall(r"^\| `(photochanger_\w+)` \| ([^|]*) \|", OPERATIONS.read_text(), re.MULTILINE)
    ours: dict[str, set[str]] = {}
    for name, labels in exported.items():
        ours.setdefault(re.sub(r"_(bucket|sum|count)$", "", name), set()).update(labels - {"le"})
    assert {name: set(re.findall(r"\w+", labels)) for name, labels in table} == ours
