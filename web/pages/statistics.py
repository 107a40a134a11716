"""``/statistics``: how many photos, how quickly, at what cost, over the time that its address names."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, get_args
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import falcon.asgi
from markupsafe import Markup

from photochanger import jobs, slots, stats
from photochanger.failures import InvalidRequest
from photochanger.stats import By, Point, Stats, Summary
from web.pages import charts, formats, language_of, say
from web.pages.charts import Series
from web.pages.frame import Framed, page

#: Ranges one may choose by name: how far back, and the step they are best read in.
RANGES: dict[str, tuple[timedelta, By]] = {
    "day": (timedelta(days=1), "hour"),
    "week": (timedelta(days=7), "day"),
    "month": (timedelta(days=30), "day"),
    "quarter": (timedelta(days=84), "week"),
    "year": (timedelta(days=365), "month"),
}
USUAL = "month"
#: As the jobs' filter has instants.
_MINUTE = "%Y-%m-%dT%H:%M"
_FIRST_DAY, _LAST_DAY = date(2000, 1, 2), date(2199, 12, 30)


@dataclass(frozen=True)
class Asked:
    """What is shown: of which slot (empty: all), in which steps, from when to when (exclusive), of which named range
    (empty: of own dates), and whether beside the time before."""

    slot: str
    by: By
    since: datetime
    until: datetime
    range: str
    compare: bool

    @property
    def first_day(self) -> date:
        return self.since.date()

    @property
    def last_day(self) -> date:
        return (self.until - timedelta(microseconds=1)).date()


@dataclass(frozen=True)
class Chart:
    """One picture and the numbers behind it. ``rows``: a label and a cell for each of ``heads``."""

    name: str
    drawing: Markup
    keys: Sequence[Series]
    heads: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True)
class Figure:
    """One number of the whole time. ``change``: beside the time before, as a part of it; ``better``: whether that is
    good news, where it is news."""

    name: str
    value: str
    change: str | None
    better: bool | None


class StatisticsPage(Framed):
    """GET: the statistics."""

    place = "statistics"

    @page("stats:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        zone = (await self._its.settings.get()).time_zone
        now: datetime = await jobs.now(self._its.db)
        asked, wrong = asked_of(req.params, now.astimezone(ZoneInfo(zone)))
        everything = await slots.all_slots(self._its.db)
        if asked.slot and asked.slot not in everything:
            everything[asked.slot], _ = await slots.get_any(self._its.db, asked.slot)  # archived: its numbers stay
        try:
            found, before = await self._read(asked, zone)
        except InvalidRequest:
            wrong = "too_many"
            asked = Asked(asked.slot, "month", asked.since, asked.until, asked.range, asked.compare)
            found, before = await self._read(asked, zone)
        view = Drawn(language_of(req), req.context.currency, found, before)
        values: dict[str, Any] = {"asked": asked, "wrong": wrong, "zone": zone, "found": found, "before": before}
        self.show(
            req,
            resp,
            "statistics.html",
            **values,
            slots=sorted(everything.values(), key=lambda one: one.id),
            steps=get_args(By),
            ranges=list(RANGES),
            figures=view.figures(),
            charts=view.charts() if found.whole.jobs else [],
            address=lambda **changes: address(asked, **changes),
            csv=csv_address(asked, zone),
            jobs_address=functools.partial(jobs_address, found),
        )

    async def _read(self, asked: Asked, zone: str) -> tuple[Stats, Stats | None]:
        """What was asked for, and as many steps before it."""
        whose, by = asked.slot or None, asked.by
        found = await stats.read(
            self._its.db, slot_id=whose, since=asked.since, until=asked.until, by=by, time_zone=zone
        )
        if not asked.compare:
            return found, None
        since = found.since - (found.until - found.since)
        before = await stats.read(self._its.db, slot_id=whose, since=since, until=found.since, by=by, time_zone=zone)
        return found, before


def asked_of(params: Mapping[str, Any], now: datetime) -> tuple[Asked, str | None]:
    """What an address asks for; what it does not say, or says wrongly, is as usual. With it the word for what is wrong.

    >>> now = datetime(2026, 11, 25, 18, tzinfo=UTC)
    >>> asked, wrong = asked_of({"range": "week"}, now)
    >>> asked.by, str(asked.first_day), str(asked.last_day), asked.range, wrong
    ('day', '2026-11-19', '2026-11-25', 'week', None)
    >>> asked, wrong = asked_of({"range": "week", "since": "2026-11-01", "until": "2026-11-03", "by": "hour"}, now)
    >>> asked.by, str(asked.since), str(asked.until), asked.range
    ('hour', '2026-11-01 00:00:00+00:00', '2026-11-04 00:00:00+00:00', '')
    >>> asked_of({"since": "soon", "until": "2026-11-03"}, now)[1]
    'date'
    """
    given = {name: str(value[-1] if isinstance(value, list) else value) for name, value in params.items()}
    name = given["range"] if given.get("range") in RANGES else USUAL
    back, by = RANGES[name]
    if given.get("by") in get_args(By):
        by = given["by"]  # type: ignore[assignment]
    since, until = now - back + (timedelta(days=1) if back.days > 1 else timedelta()), now
    named = Asked(given.get("slot", ""), by, since, until, name, bool(given.get("compare")))
    first, last = given.get("since", ""), given.get("until", "")
    if (first, last) in (("", ""), (str(named.first_day), str(named.last_day))):
        return named, None
    try:
        begin, end = date.fromisoformat(first), date.fromisoformat(last)
    except ValueError:
        return named, "date"
    if not _FIRST_DAY <= begin <= end <= _LAST_DAY:
        return named, "date"
    midnight = [datetime.combine(day, time(), now.tzinfo) for day in (begin, end + timedelta(days=1))]
    ends = min(midnight[1], now) if midnight[0] < now else midnight[1]
    return Asked(named.slot, by, midnight[0], ends, "", named.compare), None


def address(asked: Asked, **changes: str) -> str:
    """The page's address with something else asked for; another range brings its own steps."""
    kept = {"slot": asked.slot, "compare": "1" if asked.compare else "", "range": asked.range}
    if "range" not in changes:
        kept |= {"by": asked.by}
    if not asked.range and "range" not in changes:
        kept |= {"since": str(asked.first_day), "until": str(asked.last_day)}
    return "/statistics?" + urlencode({name: value for name, value in (kept | changes).items() if value})


def csv_address(asked: Asked, zone: str) -> str:
    """Where the same numbers are as CSV."""
    times = {name: at.astimezone(UTC).isoformat() for name, at in (("since", asked.since), ("until", asked.until))}
    return f"/api/stats/{asked.slot or 'global'}?" + urlencode(
        {"by": asked.by, **times, "time_zone": zone, "format": "csv"}
    )


def jobs_address(found: Stats, **which: str) -> str:
    """Where the jobs of ``which`` are that these numbers count: of the same time and slot."""
    zone = ZoneInfo(found.time_zone)
    times = {name: f"{at.astimezone(zone):{_MINUTE}}" for name, at in (("since", found.since), ("until", found.until))}
    return "/jobs?" + urlencode({**which, **({"slot_id": found.slot_id} if found.slot_id else {}), **times})


class Drawn:
    """Statistics as a reader of ``language`` is shown them, costs in ``currency``; beside ``before``, where it is."""

    def __init__(self, language: str, currency: str, found: Stats, before: Stats | None) -> None:
        self._language = language
        self._currency = currency
        self._points = found.points
        self._whole = found.whole
        self._before = before
        self._labels = [label(language, one.began_at, found.by) for one in found.points]
        self._full = [label(language, one.began_at, found.by, full=True) for one in found.points]

    # -- numbers in words

    def _seconds(self, value: float) -> str:
        return say(self._language, "unit.s", n=formats.seconds(self._language, value) if value else "0")

    def _count(self, value: float) -> str:
        return formats.number(self._language, value)

    def _money(self, value: float) -> str:
        return formats.money(self._language, self._currency, value)

    def _share(self, value: float) -> str:
        digits = 0 if value in (0, 1) else 1
        return f"{formats.number(self._language, value * 100, digits)}\N{NO-BREAK SPACE}%"

    # -- the whole time

    def figures(self) -> list[Figure]:
        """The numbers of the whole time."""
        return [
            self._figure("made", made, self._count, more_is=True),
            self._figure("failed", failed, self._count, more_is=False),
            self._figure("late", late_share, self._share, more_is=False),
            self._figure("p50", lambda one: one.total.p50_s, self._seconds, more_is=False),
            self._figure("p95", lambda one: one.total.p95_s, self._seconds, more_is=False),
            self._figure("cost", lambda one: one.cost, self._money, more_is=None),
        ]

    def _figure(
        self,
        name: str,
        of: Callable[[Summary], float | None],
        shown: Callable[[float], str],
        *,
        more_is: bool | None,
    ) -> Figure:
        now, was = of(self._whole), of(self._before.whole) if self._before else None
        value = "–" if now is None else shown(now)
        if self._before is None or now is None or was is None:
            return Figure(name, value, None, None)
        change = say(self._language, "statistics.was", value=shown(was))
        better = None if now == was or more_is is None else (now > was) == more_is
        return Figure(name, value, change, better)

    # -- the charts

    def charts(self) -> list[Chart]:
        """All of them, each with its numbers."""
        return [self._volume(), self._latency(), self._parts(), self._late(), self._cost()]

    def _word(self, name: str) -> str:
        return say(self._language, f"statistics.{name}")

    def _values(self, of: Callable[[Point], float | None]) -> list[float | None]:
        return [of(one) for one in self._points]

    def _earlier(self, of: Callable[[Point], float | None]) -> list[float | None]:
        """Of the time before, step by step: the last of it lies under the last of ours."""
        count = len(self._points)
        there = [of(one) for one in self._before.points][-count:] if self._before else []
        return [None] * (count - len(there)) + there

    def _series(self, name: str, kind: str, of: Callable[[Point], float | None]) -> Series:
        return Series(self._word(name), kind, self._values(of))

    def _was(self, of: Callable[[Point], float | None]) -> list[Series]:
        return [Series(self._word("before"), "before", self._earlier(of))] if self._before else []

    def _volume(self) -> Chart:
        series = [
            self._series("made", "good", made),
            self._series("timed_out", "late", lambda one: one.outcomes.get("timed_out", 0)),
            self._series("broken", "failed", broken),
            self._series("cancelled", "quiet", lambda one: one.outcomes.get("cancelled", 0)),
        ]
        was = self._was(lambda one: one.jobs)
        drawing = charts.stacked_bars(
            self._labels,
            series,
            title=self._word("volume"),
            value=self._count,
            behind=was[0] if was else None,
            whole=True,
        )
        return self._chart("volume", drawing, [*series, *was], self._count)

    def _latency(self) -> Chart:
        series = [
            self._series("p50", "p50", lambda one: one.total.p50_s),
            self._series("p95", "p95", lambda one: one.total.p95_s),
            *self._was(lambda one: one.total.p95_s),
        ]
        return self._lines("latency", series, self._seconds)

    def _parts(self) -> Chart:
        series = [
            self._series("queue_p50", "queue light", lambda one: one.queue_wait.p50_s),
            self._series("queue_p95", "queue", lambda one: one.queue_wait.p95_s),
            self._series("provider_p50", "provider light", lambda one: one.provider.p50_s),
            self._series("provider_p95", "provider", lambda one: one.provider.p95_s),
        ]
        return self._lines("parts", series, self._seconds)

    def _late(self) -> Chart:
        share = [self._series("late", "failed", late_share), *self._was(late_share)]
        return self._lines("late", share, self._share)

    def _cost(self) -> Chart:
        series = [self._series("cost", "provider", lambda one: one.cost)]
        was = self._was(lambda one: one.cost)
        drawing = charts.stacked_bars(
            self._labels,
            series,
            title=self._word("cost"),
            value=self._money,
            axis=lambda value: formats.number(self._language, value, len(f"{value:g}".partition(".")[2])),
            behind=was[0] if was else None,
        )
        return self._chart("cost", drawing, [*series, *was], self._money)

    def _lines(self, name: str, series: Sequence[Series], shown: Callable[[float], str]) -> Chart:
        drawing = charts.lines(self._labels, series, title=self._word(name), value=shown)
        return self._chart(name, drawing, series, shown)

    def _chart(self, name: str, drawing: Markup, series: Sequence[Series], shown: Callable[[float], str]) -> Chart:
        cells = [["–" if value is None else shown(value) for value in one.values] for one in series]
        rows = [(at, [column[number] for column in cells]) for number, at in enumerate(self._full)]
        return Chart(name, drawing, series, [one.label for one in series], rows)


def made(one: Summary) -> float:
    return one.outcomes.get("succeeded", 0)


def failed(one: Summary) -> float:
    return one.jobs - made(one) - one.outcomes.get("cancelled", 0)


def broken(one: Summary) -> float:
    return failed(one) - one.outcomes.get("timed_out", 0)


def late_share(one: Summary) -> float | None:
    return one.sync_timeout_share


def label(language: str, at: datetime, by: By, *, full: bool = False) -> str:
    """When a step began, short enough for an axis, or in ``full``.

    >>> at = datetime(2026, 11, 3, 18, tzinfo=UTC)
    >>> label("en", at, "hour"), label("en", at, "day"), label("en", at, "month"), label("en", at, "hour", full=True)
    ('18:00', '3 Nov', 'Nov 2026', '3 Nov 2026, 18:00')
    """
    month = say(language, f"month.{at.month}")
    if by == "month":
        return f"{month} {at.year}"
    day = f"{at.day} {month}"
    if not full:
        return f"{at:%H:%M}" if by == "hour" else day
    return f"{day} {at.year}, {at:%H:%M}" if by == "hour" else f"{day} {at.year}"
