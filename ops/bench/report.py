"""How the figures are shown: ours beside the others, medians with the spread, ratios, and each goal met or missed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from ops.bench.contenders import FLOOR, OURS, POSTGRES, QUEUES, STOCK, Contender

_COLUMNS = (*QUEUES, FLOOR)
_RATIOS = (STOCK, POSTGRES, FLOOR)


@dataclass
class Row:
    """One figure. ``values``: by contender's name, one number a round; infinite: not within ``cap``.

    ``goals``: (words, met). ``ratios``: whether dividing ours by the others says anything.
    """

    name: str
    unit: str
    values: dict[str, list[float]] = field(default_factory=dict)
    digits: int = 0
    cap: float = math.inf
    goals: list[tuple[str, bool]] = field(default_factory=list)
    ratios: bool = True

    def add(self, contender: Contender, value: float) -> None:
        self.values.setdefault(contender.name, []).append(value)

    def median(self, contender: Contender) -> float:
        """The median over the rounds; not a number where nothing was measured."""
        values = self.values.get(contender.name)
        return median(values) if values else math.nan

    def goal(self, words: str, met: bool) -> None:
        self.goals.append((words, met))

    def compared(self, contender: Contender) -> float:
        """Ours divided by the other: the median of the rounds' own ratios, whose halves were measured side by side."""
        ours, other = self.values.get(OURS.name, []), self.values.get(contender.name, [])
        if len(ours) == len(other) and ours:
            return median(a / b for a, b in zip(ours, other, strict=True))
        return self.median(OURS) / self.median(contender)

    def times(self, contender: Contender, factor: float, *, at_least: bool) -> None:
        """Adds the goal that ours is at least (or at most) ``factor`` times the other."""
        ratio = self.compared(contender)
        sign = "≥" if at_least else "≤"
        self.goal(f"{sign}{factor:g}× {contender.title}", ratio >= factor if at_least else ratio <= factor)

    # -- cells ------------------------------------------------------------------------------------------------------

    def cell(self, contender: Contender) -> str:
        values = self.values.get(contender.name)
        if not values:
            return "–"
        shown = self._number(median(values))
        if len(values) > 1:
            shown += f" ({self._number(min(values))}–{self._number(max(values))})"
        return shown

    def _number(self, value: float) -> str:
        return f">{self.cap:g}" if math.isinf(value) else f"{value:.{self.digits}f}"

    def ratio(self, contender: Contender) -> str:
        if not self.ratios or not {OURS.name, contender.name} <= self.values.keys():
            return "–"
        if math.isinf(self.median(contender)):
            return f"<{self.median(OURS) / self.cap:.2f}"
        return f"{self.compared(contender):.2f}"

    def verdict(self) -> str:
        return "; ".join(f"{words} {'PASS' if met else 'MISS'}" for words, met in self.goals) or "–"


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of the values do not exceed.

    >>> percentile([3.0, 1.0, 2.0, 4.0], 0.5), percentile([3.0, 1.0, 2.0, 4.0], 0.95)
    (2.0, 4.0)
    """
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def table(rows: Sequence[Row]) -> list[list[str]]:
    """The head and one line a row."""
    ratios = [f"÷ {contender.title}" for contender in _RATIOS]
    head = ["figure", "unit", *(contender.title for contender in _COLUMNS), *ratios, "goal"]
    body = [
        [
            row.name,
            row.unit,
            *(row.cell(contender) for contender in _COLUMNS),
            *(row.ratio(contender) for contender in _RATIOS),
            row.verdict(),
        ]
        for row in rows
    ]
    return [head, *body]


def text(rows: Sequence[Row]) -> str:
    """The table for a terminal."""
    lines = table(rows)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def markdown(rows: Sequence[Row], head: Sequence[str]) -> str:
    """The head as a list and the table in Markdown."""
    lines = table(rows)
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(
        ["# Bench", "", *(f"- {line}" for line in head), "", *("| " + " | ".join(line) + " |" for line in lines), ""]
    )
