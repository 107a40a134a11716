"""The alert rules and the dashboard as tests read them: what they say, and which names and labels they use."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from photochanger.config import PROJECT

RULES = PROJECT / "ops" / "prometheus" / "photochanger.rules.yml"
DASHBOARD = PROJECT / "ops" / "grafana" / "photochanger.json"

#: Every alert rule by its name, in order.
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
}

_SELECTOR = re.compile(r"\b(up|photochanger_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
_GROUPED = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")


def expressions() -> dict[str, str]:
    """Every expression of the rules and the dashboard, by alert or panel and target."""
    found = {name: rule["expr"] for name, rule in ALERTS.items()}
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", []):
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    return found


def selectors(expression: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The metrics an expression names, each with its matchers' labels and values.

    >>> list(selectors('rate(photochanger_ingests_total{outcome=~"a|b", job="x"}[5m]) > on (job) up'))
    [('photochanger_ingests_total', [('outcome', 'a|b'), ('job', 'x')]), ('up', [])]
    """
    for name, matchers in _SELECTOR.findall(expression):
        yield name, _MATCHER.findall(matchers)


def grouped(expression: str) -> set[str]:
    """The labels an expression groups or joins by.

    >>> sorted(grouped("sum by (job, slot) (x) / on (job) y"))
    ['job', 'slot']
    """
    return {label.strip() for labels in _GROUPED.findall(expression) for label in labels.split(",")}
