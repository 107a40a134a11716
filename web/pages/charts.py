"""Draws charts as SVG: classes of ``app.css`` colour them, no script and no style is in them.

A chart's ``title`` and ``description`` are what a screen reader says of it; beside it there is always a table with its
numbers, which the page writes itself. Labels and units come from the caller, in the reader's language.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

#: Pixels at the size it is drawn for; the page scales it.
WIDTH, HEIGHT = 720, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 8, 10, 40
#: Labels along the bottom: as many as can be read.
_MOST_LABELS = 8


class Series(NamedTuple):
    """One kind of number. ``kind``: the class that colours it: ``good``, ``failed``, ``late``, ``quiet``, ``p50``,
    ``p95``, ``queue``, ``provider``, ``storage``, ``before`` (another period)."""

    label: str
    kind: str
    values: Sequence[float | None]


class Segment(NamedTuple):
    """A stretch of time on a bar. ``kind`` as in ``Series``."""

    label: str
    kind: str
    begin_s: float
    end_s: float


def plain(value: float) -> str:
    """
    >>> plain(3.0), plain(0.25)
    ('3', '0.25')
    """
    return f"{value:g}"


def ticks(most: float, count: int = 4) -> list[float]:
    """Round numbers from zero to at least ``most``.

    >>> ticks(7), ticks(0.9), ticks(0), ticks(1300)
    ([0.0, 2.0, 4.0, 6.0, 8.0], [0.0, 0.25, 0.5, 0.75, 1.0], [0.0, 1.0], [0.0, 500.0, 1000.0, 1500.0])
    """
    if most <= 0:
        return [0.0, 1.0]
    rough = most / count
    unit: float = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * part for part in (1, 2, 2.5, 5, 10) if unit * part >= rough * 0.999)
    return [round(step * n, 10) for n in range(math.ceil(most / step - 1e-9) + 1)]


def stacked_bars(
    points: Sequence[str],
    series: Sequence[Series],
    *,
    title: str,
    description: str = "",
    value: Callable[[float], str] = plain,
    axis: Callable[[float], str] | None = None,
    behind: Series | None = None,
    whole: bool = False,
) -> Markup:
    """Bars, one for each of ``points`` (their labels), each made of the ``series`` from below; ``behind`` is a line
    over them, such as their sums at another time; ``axis``: how the axis' numbers are written, which have room for few
    letters, where not as ``value``; ``whole``: they count things, and no line stands at half a thing.

    >>> chart = stacked_bars(["Mon", "Tue"], [Series("done", "good", [3, 1]), Series("failed", "failed", [1, 0])],
    ...     title="Photos")
    >>> chart.count('<rect class="bar'), "Mon: done 3, failed 1" in chart, "style=" in chart
    (3, True, False)
    """
    sums = [sum(one.values[at] or 0 for one in series) for at in range(len(points))]
    most = max([*sums, *(one for one in (behind.values if behind else ()) if one is not None)], default=0)
    plot = _Plot(len(points), [one for one in ticks(most) if one == int(one)] if whole else ticks(most))
    parts = [plot.grid(axis or value), plot.labels(points)]
    for at, label in enumerate(points):
        told = [*series, behind] if behind else series
        words = ", ".join(f"{one.label} {value(one.values[at] or 0)}" for one in told if one.values[at])
        parts.append(f"<g><title>{escape(label)}: {escape(words or value(0))}</title>{plot.reach(at)}")
        below = 0.0
        for one in series:
            if above := one.values[at] or 0:
                parts.append(plot.bar(at, below, below + above, one.kind))
                below += above
        parts.append("</g>")
    if behind:
        parts.append(f'<path class="line {escape(behind.kind)}" d="{plot.path(behind.values)}"/>')
    return _drawn(parts, title, description)


def lines(
    points: Sequence[str],
    series: Sequence[Series],
    *,
    title: str,
    description: str = "",
    value: Callable[[float], str] = plain,
) -> Markup:
    """A line for each of ``series`` over ``points`` (their labels); ``None`` leaves a gap.

    >>> chart = lines(["1", "2", "3"], [Series("p50", "p50", [1.5, None, 2])], title="Seconds")
    >>> chart.count("<circle"), chart.count('<path class="line')
    (2, 1)
    """
    plot = _Plot(len(points), ticks(max((v for one in series for v in one.values if v is not None), default=0)))
    parts = [plot.grid(value), plot.labels(points)]
    parts += [f'<path class="line {escape(one.kind)}" d="{plot.path(one.values)}"/>' for one in series]
    for at, label in enumerate(points):
        known = [(one, number) for one in series if (number := one.values[at]) is not None]
        words = ", ".join(f"{one.label} {value(number)}" for one, number in known)
        parts.append(f"<g><title>{escape(label)}: {escape(words or '–')}</title>{plot.reach(at)}")
        parts += [plot.dot(at, number, one.kind) for one, number in known]
        parts.append("</g>")
    return _drawn(parts, title, description)


def sparkline(values: Sequence[float | None], *, title: str, kind: str = "good") -> Markup:
    """A small line without axes, for the inside of a tile.

    >>> "sparkline" in sparkline([1, 4, 2], title="Photos an hour")
    True
    """
    width, height = 120, 28
    most = max((one for one in values if one is not None), default=0) or 1
    step = width / max(1, len(values) - 1)
    places = [
        None if one is None else (at * step, height - 2 - one / most * (height - 4)) for at, one in enumerate(values)
    ]
    return Markup(  # noqa: S704 - numbers, and what is escaped
        f'<svg class="chart sparkline" viewBox="0 0 {width} {height}" preserveAspectRatio="none" role="img">'
        f'<title>{escape(title)}</title><path class="line {escape(kind)}" d="{_path(places)}"/></svg>'
    )


def time_bar(segments: Sequence[Segment], *, whole_s: float, title: str, description: str = "") -> Markup:
    """One bar of ``whole_s`` seconds with the stretches in it; what is longer is drawn as the whole.

    >>> bar = time_bar([Segment("queue 2 s", "queue", 0, 2), Segment("at work 6 s", "provider", 2, 8)], whole_s=48,
    ...     title="8 of 48 seconds")
    >>> bar.count('class="span')
    2
    """
    most = max([whole_s, *(one.end_s for one in segments)]) or 1.0
    width, height = 1000.0, 20
    parts = [f'<rect class="track" width="{width:g}" height="{height}" rx="4"/>']
    for one in segments:
        begin, length = one.begin_s / most * width, max(2.0, (one.end_s - one.begin_s) / most * width)
        parts.append(
            f'<rect class="span {escape(one.kind)}" x="{begin:.1f}" width="{length:.1f}" height="{height}">'
            f"<title>{escape(one.label)}</title></rect>"
        )
    if whole_s < most:
        parts.append(f'<rect class="limit" x="{whole_s / most * width - 1:.1f}" width="2" height="{height}"/>')
    return Markup(  # noqa: S704 - numbers, and what is escaped
        f'<svg class="chart time-bar" viewBox="0 0 {width:g} {height}" preserveAspectRatio="none" role="img">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{''.join(parts)}</svg>"
    )


class _Plot:
    """Where things lie in a chart with axes."""

    def __init__(self, count: int, axis: Sequence[float]) -> None:
        self._count = max(1, count)
        self._axis = axis
        self._step = (WIDTH - _LEFT - _RIGHT) / self._count

    def _x(self, at: float) -> float:
        return _LEFT + self._step * at

    def _y(self, value: float) -> float:
        return HEIGHT - _BOTTOM - value / self._axis[-1] * (HEIGHT - _TOP - _BOTTOM)

    def grid(self, value: Callable[[float], str]) -> str:
        return "".join(
            f'<path class="grid" d="M{_LEFT} {self._y(tick):.1f}H{WIDTH - _RIGHT}"/>'
            f'<text class="tick" x="{_LEFT - 8}" y="{self._y(tick):.1f}" text-anchor="end">'
            f"{escape(value(tick))}</text>"
            for tick in self._axis
        )

    def labels(self, points: Sequence[str]) -> str:
        """Every ``second`` of them gives way where the chart is narrow."""
        every = max(1, math.ceil(len(points) / _MOST_LABELS))
        return "".join(
            f'<text class="tick below{" second" if at // every % 2 else ""}" x="{self._x(at + 0.5):.1f}" '
            f'y="{HEIGHT - _BOTTOM + 14}" text-anchor="middle">'
            f"{escape(label)}</text>"
            for at, label in enumerate(points)
            if at % every == 0
        )

    def reach(self, at: int) -> str:
        """What the pointer finds, over the whole height."""
        return (
            f'<rect class="reach" x="{self._x(at):.1f}" y="{_TOP}" width="{self._step:.1f}" '
            f'height="{HEIGHT - _TOP - _BOTTOM}"/>'
        )

    def bar(self, at: int, below: float, above: float, kind: str) -> str:
        width = min(48.0, self._step * 0.72)
        x = self._x(at + 0.5) - width / 2
        top, foot = self._y(above), self._y(below)
        box = f'x="{x:.1f}" y="{top:.1f}" width="{width:.1f}" height="{foot - top:.1f}"'
        return f'<rect class="bar {escape(kind)}" {box}/>'

    def dot(self, at: int, value: float, kind: str) -> str:
        return f'<circle class="dot {escape(kind)}" cx="{self._x(at + 0.5):.1f}" cy="{self._y(value):.1f}" r="3"/>'

    def path(self, values: Sequence[float | None]) -> str:
        return _path([None if one is None else (self._x(at + 0.5), self._y(one)) for at, one in enumerate(values)])


def _path(places: Sequence[tuple[float, float] | None]) -> str:
    """
    >>> _path([(0, 1), (2, 3), None, (4, 5)])
    'M0.0 1.0L2.0 3.0M4.0 5.0'
    """
    parts, pen = [], "M"
    for place in places:
        if place is None:
            pen = "M"
            continue
        parts.append(f"{pen}{place[0]:.1f} {place[1]:.1f}")
        pen = "L"
    return "".join(parts)


def _drawn(parts: Sequence[str], title: str, description: str) -> Markup:
    return Markup(  # noqa: S704 - numbers, and what is escaped
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>{escape(title)}</title>'
        f"<desc>{escape(description)}</desc>{''.join(parts)}</svg>"
    )
