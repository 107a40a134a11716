"""Every alert rule fires in the state it is for, and in no other: Prometheus' own promtool says so."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from tests.alerts.reading import ALERTS, RULES

#: Minutes after the begin at which is looked; by then every ``for`` and every window of ten minutes is over.
AT_MIN = 20
#: A sample every half minute: what stands ``x40`` lasts as long.
INTERVAL = "30s"

State = Mapping[str, str]


def one(name: str, **labels: str) -> str:
    """A series of the scrape job in Prometheus's notation.

    >>> one("up", instance="a")
    'up{job="photochanger", instance="a"}'
    """
    held = ", ".join(f'{key}="{value}"' for key, value in {"job": "photochanger", **labels}.items())
    return f"{name}{{{held}}}"


def ours(name: str, **labels: str) -> str:
    return one(f"photochanger_{name}", **{"instance": "a", **labels})


def always(value: float, name: str, **labels: str) -> dict[str, str]:
    """A gauge that stays the same; seen on two machines, as what the database says is."""
    return {ours(name, instance=host, **labels): f"{value}x40" for host in ("a", "b")}


def photos(outcome: str, every_half_minute: float, *, provider: str = "none") -> dict[str, str]:
    labels = {"slot": "slot-001", "provider": provider, "outcome": outcome}
    return {ours("ingests_total", **labels): f"0+{every_half_minute}x40"}


def ran(task: str, ago_s: float) -> dict[str, str]:
    """A task that ran ``ago_s`` seconds before every sample."""
    return {ours("last_run_timestamp_seconds", task=task): f"{-ago_s}+30x40"}


def disk(free: float) -> State:
    return {ours("disk_free_bytes"): f"{free}x40", ours("disk_reserve_bytes"): "100x40"}


def breaker(cause: str, *, is_open: int = 1) -> State:
    return always(is_open, "breaker_open", provider="gemini", cause=cause)


def budget(used: float) -> State:
    limit = "budget/slot-001/day"
    return {**always(used, "limit_used", limit=limit), **always(10, "limit_max", limit=limit)}


@dataclass(frozen=True)
class Case:
    """``fires``: states in each of which this alert fires, alone, with ``labels``; ``quiet``: in which none does."""

    alert: str
    fires: Sequence[State]
    quiet: Sequence[State]
    labels: Mapping[str, str] = field(default_factory=dict)


_UP = one("up", instance="a")
CASES = [
    Case("PhotoChangerDown", [{_UP: "0x40"}], [{_UP: "1x40"}, {_UP: "1x38 0x1"}], {"instance": "a"}),
    Case(
        "PhotoChangerDatabaseDown",
        [always(0, "database_up")],
        [{**always(1, "database_up"), **ran("expire", 1)}],
    ),
    Case("PhotoChangerNoWorkers", [always(0, "workers")], [always(1, "workers")]),
    Case(
        "PhotoChangerSchedulerStopped",
        [ran("expire", 90), always(1, "database_up")],
        [ran("expire", 20)],
    ),
    Case(
        "PhotoChangerCleanupLate",
        [{**ran("results", 1000), **ran("media", 10)}],
        [{**ran("results", 800), **ran("history", 3000)}],
        {"task": "results"},
    ),
    Case("PhotoChangerDeadLetters", [always(1, "queue_dead_letters")], [always(0, "queue_dead_letters")]),
    Case(
        "PhotoChangerBackupFailed",
        [always(1, "last_run_failed", task="backup")],
        [always(0, "last_run_failed", task="backup")],
    ),
    Case("PhotoChangerDiskFull", [disk(99)], [disk(300)], {"instance": "a"}),
    Case("PhotoChangerDiskLow", [disk(100), disk(299)], [disk(300)], {"instance": "a"}),
    Case(
        "PhotoChangerInternalErrors",
        [photos("internal_error", 0.1)],
        [photos("internal_error", 0), photos("invalid_image", 1)],
    ),
    Case("PhotoChangerQueueOld", [always(25, "queue_oldest_seconds")], [always(23, "queue_oldest_seconds")]),
    Case(
        "PhotoChangerQueueFull",
        [{**photos("queue_full", 0.6), **photos("succeeded", 10, provider="local")}],
        [{**photos("queue_full", 0.4), **photos("succeeded", 10, provider="local")}, photos("queue_full", 0.05)],
    ),
    Case(
        "PhotoChangerTimeouts",
        [
            {**photos("sync_timeout", 0.6), **photos("succeeded", 10, provider="local")},
            # whoever guesses passwords does not hide it
            {**photos("sync_timeout", 1), **photos("succeeded", 10, provider="local"), **photos("rate_limited", 50)},
        ],
        [{**photos("sync_timeout", 0.4), **photos("succeeded", 10, provider="local")}, photos("sync_timeout", 0.05)],
    ),
    Case(
        "PhotoChangerWrongPasswords",
        [photos("invalid_password", 0.3)],
        [photos("invalid_password", 0.2)],
        {"slot": "slot-001"},
    ),
    Case(
        "PhotoChangerProviderFailing",
        [{**photos("provider_no_image", 3, provider="gemini"), **photos("succeeded", 10, provider="gemini")}],
        [
            {**photos("provider_no_image", 2, provider="gemini"), **photos("succeeded", 10, provider="gemini")},
            {**photos("cancelled", 9, provider="gemini"), **photos("succeeded", 1, provider="gemini")},
            {**photos("provider_error", 0.05, provider="gemini")},
        ],
        {"provider": "gemini"},
    ),
    Case(
        "PhotoChangerProviderKey",
        [breaker("provider_auth")],
        [breaker("provider_auth", is_open=0)],
        {"provider": "gemini"},
    ),
    Case(
        "PhotoChangerProviderQuota",
        # photos that are not tried meanwhile tell nothing new
        [breaker("provider_quota"), {**breaker("provider_quota"), **photos("provider_quota", 5)}],
        [breaker("provider_quota", is_open=0)],
        {"provider": "gemini"},
    ),
    Case(
        "PhotoChangerProviderOut",
        [breaker("provider_error")],
        [breaker("provider_error", is_open=0)],
        {"provider": "gemini", "cause": "provider_error"},
    ),
    Case(
        "PhotoChangerNobodyAsked",
        [photos("provider_quota", 1)],
        [photos("provider_quota", 0.05), photos("provider_quota", 0)],
        {"outcome": "provider_quota"},
    ),
    Case(
        "PhotoChangerModelRetires",
        [always(13 * 86400, "model_retires_timestamp_seconds", provider="gemini", model="m-1")],
        [always(15 * 86400, "model_retires_timestamp_seconds", provider="gemini", model="m-1")],
        {"provider": "gemini", "model": "m-1"},
    ),
    Case("PhotoChangerBudgetNearly", [budget(8)], [budget(7.9)], {"limit": "budget/slot-001/day"}),
    Case(
        "PhotoChangerBudgetSpent",
        [budget(10)],
        [always(99, "limit_used", limit="calls/gemini/minute")],
        {"limit": "budget/slot-001/day"},
    ),
]


@pytest.fixture(scope="session")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.fail("promtool is not on the PATH: it comes with Debian's package prometheus; .ci/run shows how")
    return found


def run(*command: str | Path) -> None:
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def judge(promtool: str, folder: Path, states: Sequence[State], firing: str | None) -> None:
    """Has promtool compare what fires at ``AT_MIN``, in each of ``states``."""
    expected = {
        "expr": 'ALERTS{alertstate="firing"}',
        "eval_time": f"{AT_MIN}m",
        "exp_samples": [{"labels": firing, "value": 1}] if firing else [],
    }
    tests = [
        {
            "interval": INTERVAL,
            "input_series": [{"series": name, "values": values} for name, values in state.items()],
            "promql_expr_test": [expected],
        }
        for state in states
    ]
    file = folder / "alerts.yml"
    file.write_text(
        yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": INTERVAL, "tests": tests}, sort_keys=False)
    )
    run(promtool, "test", "rules", file)


def test_prometheus_takes_the_rules(promtool: str) -> None:
    run(promtool, "check", "rules", "--lint=all", "--lint-fatal", RULES)


def test_every_alert_is_tried_and_says_what_to_do() -> None:
    assert [case.alert for case in CASES] == list(ALERTS)
    for case in CASES:
        rule = ALERTS[case.alert]
        assert set(rule["annotations"]) == {"summary", "description"}
        assert rule["labels"]["severity"] in ("critical", "warning")
        used = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        assert used <= set(case.labels), f"{case.alert} names labels that it does not have"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_an_alert_fires_in_its_state_alone(case: Case, promtool: str, tmp_path: Path) -> None:
    labels = {**ALERTS[case.alert]["labels"], **case.labels}
    judge(promtool, tmp_path, case.fires, one("ALERTS", alertname=case.alert, alertstate="firing", **labels))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_nothing_fires_beside_its_state(case: Case, promtool: str, tmp_path: Path) -> None:
    judge(promtool, tmp_path, case.quiet, None)
