"""How a load run is shown: times and shares of every kind of answer, and what it cost the server and the provider."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ops.bench.report import percentile
from ops.load.cameras import Answer
from ops.load.watch import Sample

Table = list[list[str]]

_SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
_BARS = "▁▂▃▄▅▆▇█"
_COLUMNS = 60


def answers(found: Sequence[Answer]) -> Table:
    """One line for the pictures and one for all refusals; below each, what it is made of."""
    pictures = [one for one in found if one.status == 200]
    refusals = [one for one in found if one.status != 200]
    table = [["what became of them", "photos", "share", *(f"{name} s" for name in _SHARES)]]
    for title, group, kind in (
        ("200, a picture", pictures, lambda one: one.served_by),
        ("refused or failed", refusals, _refusal),
    ):
        table.append(_line(title, group, len(found)))
        table += _parts(group, kind, len(found))
    return table


def _refusal(one: Answer) -> str:
    return f"{one.status} {one.code}" if one.status else f"no answer: {one.code}"


def _parts(group: Sequence[Answer], kind: Callable[[Answer], str], of: int) -> Table:
    counted = Counter(map(kind, group))
    return [_line(f"- {name}", [one for one in group if kind(one) == name], of) for name, _ in counted.most_common()]


def _line(title: str, group: Sequence[Answer], of: int) -> list[str]:
    seconds = [one.seconds for one in group]
    times = [f"{percentile(seconds, share):.3f}" if seconds else "–" for share in _SHARES.values()]
    return [title, str(len(group)), f"{len(group) / of:.1%}" if of else "–", *times]


def figures(found: Sequence[Answer], samples: Sequence[Sample], counted: Mapping[str, Any]) -> Table:
    """The rest, a figure a line. ``counted``: by the provider, during the run."""
    span_s = max((one.at_s + one.seconds for one in found), default=0.0)
    pictures = sum(one.status == 200 for one in found)
    calls = counted["calls"]
    return [
        ["figure", "value"],
        ["photos answered", f"{len(found)} in {span_s:.1f} s: {len(found) / span_s:.1f}/s" if found else "none"],
        ["pictures", f"{pictures / span_s:.1f}/s" if found else "none"],
        ["Retry-After of refusals", hints([one for one in found if one.status != 200])],
        ["provider's paid calls", f"{calls} ({calls / pictures:.2f} a picture)" if pictures else str(calls)],
        ["provider's calls at once", f"{counted['most_flying']} at most"],
        ["provider's clients hung up", str(counted["hang_ups"])],
        *([name, over_time([getattr(one, field) for one in samples])] for name, field in _OVER_TIME.items()),
        ["looked at", f"{len(samples)} times in {samples[-1].at_s:.1f} s" if samples else "never"],
        ["web process, resident", f"{max((one.web_mb for one in samples), default=0):.0f} MB at most"],
        ["database connections", f"{max((one.connections for one in samples), default=0)} at most"],
        ["cameras behind their time", f"{max((one.late_s for one in found), default=0) * 1000:.0f} ms at most"],
    ]


_OVER_TIME = {"messages waiting": "waiting", "messages running": "running", "provider's calls in hand": "flying"}


def hints(refusals: Sequence[Answer]) -> str:
    """How the seconds of ``Retry-After`` are spread.

    >>> hints([Answer(0, 0, 0, 503, retry_after_s=hint) for hint in (4, 1, 4, None)])
    '1 to 4 s, median 4, 2 different; 1 without: 1×1 4×2'
    """
    given = [one.retry_after_s for one in refusals if one.retry_after_s is not None]
    if not given:
        return f"{len(refusals)} without" if refusals else "none was refused"
    words = f"{min(given):g} to {max(given):g} s, median {percentile(given, 0.5):g}, {len(set(given))} different"
    without = f"; {len(refusals) - len(given)} without" if len(given) < len(refusals) else ""
    return f"{words}{without}: {' '.join(f'{hint:g}×{count}' for hint, count in sorted(Counter(given).items()))}"


def over_time(values: Sequence[int]) -> str:
    """The largest value and a line of bars.

    >>> over_time([0, 4, 8, 2])
    '▁▅█▃  8 at most, 2 at the end'
    """
    if not values:
        return "–"
    step = -(-len(values) // _COLUMNS)
    columns = [max(values[at : at + step]) for at in range(0, len(values), step)]
    top = max(values)
    bars = "".join(_BARS[round(value / top * (len(_BARS) - 1)) if top else 0] for value in columns)
    return f"{bars}  {top} at most, {values[-1]} at the end"


def text(table: Table) -> str:
    """For a terminal: the numbers behind the first column to the right, where there is more than one."""
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]

    def cells(line: Sequence[str]) -> str:
        first, *others = (
            cell.rjust(width) if column and len(line) > 2 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        return "  ".join([first, *others]).rstrip()

    return "\n".join(map(cells, [table[0], ["-" * width for width in widths], *table[1:]]))


def markdown(head: Sequence[str], tables: Sequence[Table]) -> str:
    """The head as a list, and the tables."""
    lines = ["# Load", "", *(f"- {line}" for line in head)]
    for table in tables:
        rows = [table[0], ["---"] * len(table[0]), *table[1:]]
        lines += ["", *("| " + " | ".join(row) + " |" for row in rows)]
    return "\n".join([*lines, ""])
