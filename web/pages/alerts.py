"""What is wrong tonight, and in which order it matters: decided from how the machinery stands, asking nobody."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from photochanger.slots import Slot
from web.api.providers import ProviderView
from web.api.system import DiskView
from web.live import QueueNews

Level = Literal["failed", "waiting"]

#: Of the time a camera waits: who has stood in the queue for so long will hardly be served.
LONG_WAIT = 0.5
#: Part of a budget, or of a day's calls, that is worth a look.
NEARLY = 0.8
#: The last photos of a slot that are looked at, and of how many seconds.
LATEST, LATELY_S = 20, 900.0
#: So many of them that failed are worth a look; this part of them is the evening's trouble.
SOME, MANY = 3, 0.5


#: Why photos are refused that another alert tells of, with what to do; what else can be done about it than to compare
#: the camera's address and password, and where that is, if not on the slot's page.
_TOLD_OTHERWISE = {"storage_full", "no_workers", "unavailable"}
_ADVICE = {
    "payload_too_large": ".limits",
    "image_too_large": ".limits",
    "rate_limited": ".limits",
    "queue_full": ".queue",
    "slot_disabled": ".off",
    "invalid_image": ".photo",
    "unsupported_media_type": ".photo",
    "invalid_request": ".photo",
}
_INSTEAD = {".limits": "/settings?part=limits", ".queue": "/jobs?status=pending"}


@dataclass(frozen=True)
class Alert:
    """One thing that is wrong. Its words are ``alert.<code>`` and, for what to do, ``alert.<code>.do``, with ``values``
    filled in. ``path``: where it is put right."""

    code: str
    level: Level
    path: str
    values: Mapping[str, Any] = field(default_factory=dict)
    #: An ending of the words for what to do, where that depends on the cause.
    advice: str = ""


@dataclass(frozen=True)
class Spent:
    """What is used of a slot's budget. ``period``: its name; empty: of the day."""

    slot: Slot
    period: str
    used: float
    most: float

    @property
    def share(self) -> float:
        return self.used / self.most if self.most else 1.0


@dataclass(frozen=True)
class Machinery:
    """How everything stands that photos need. ``providers``: those that some slot asks which is switched on.
    ``backup_failed``: why the last one was not made, as the end of a word ``backup.why.…``."""

    queue: QueueNews
    scheduler: str | None
    disk: DiskView
    patience_s: float
    providers: Sequence[ProviderView]
    budgets: Sequence[Spent]
    slots_on: int
    grace_ends_at: datetime | None
    backup_failed: str | None = None
    #: How the last photos of each slot ended (``stats.lately``), and how many were refused, by slot and code.
    endings: Sequence[Mapping[str, Any]] = ()
    refused: Mapping[tuple[str, str], int] = field(default_factory=dict)
    #: Calls of today, by provider.
    calls: Mapping[str, float] = field(default_factory=dict)
    slot_names: Mapping[str, str] = field(default_factory=dict)


def firing(its: Machinery) -> list[Alert]:
    """What is wrong, the worst first.

    >>> disk = DiskView(free_bytes=1, total_bytes=9, reserve_bytes=2, is_there=True)
    >>> queue = QueueNews(queued=0, running=0, dead=3, oldest_s=0, workers=0)
    >>> [one.code for one in firing(Machinery(queue, "host:1", disk, 48, [], [], 1, None))]
    ['no_workers', 'disk_full', 'dead_letters']
    """
    found = [
        *_machines(its),
        *_photos(its),
        *_providers(its.providers),
        *_calls(its),
        *_budgets(its.budgets),
        *_others(its),
    ]
    return sorted(found, key=lambda one: one.level != "failed")


def _machines(its: Machinery) -> Iterator[Alert]:
    queue, disk = its.queue, its.disk
    if not queue.workers:
        yield Alert("no_workers", "failed", "/system")
    if its.scheduler is None:
        yield Alert("no_scheduler", "failed", "/system")
    if not disk.is_there:
        yield Alert("disk_gone", "failed", "/system")
    elif disk.light == "failed":
        yield Alert("disk_full", "failed", "/settings?part=limits", {"free": disk.free_bytes})
    elif disk.light == "waiting":
        yield Alert("disk_low", "waiting", "/settings?part=limits", {"free": disk.free_bytes})
    if queue.queued and queue.oldest_s > its.patience_s * LONG_WAIT:
        yield Alert("queue_long", "failed", "/jobs?status=pending", {"queued": queue.queued})


def _photos(its: Machinery) -> Iterator[Alert]:
    for one in its.endings:
        values = {**one, "slot": its.slot_names.get(one["slot_id"], one["slot_id"])}
        if one["failed"] >= SOME:
            level: Level = "failed" if one["failed"] >= MANY * one["jobs"] else "waiting"
            yield Alert("photos_fail", level, f"/jobs?slot_id={one['slot_id']}&status=failed&status=timed_out", values)
        elif one["fell_back"] >= max(SOME, MANY * one["jobs"]):
            yield Alert("photos_fall_back", "waiting", f"/jobs?slot_id={one['slot_id']}", values)
    strangers = {slot_id: count for (slot_id, _), count in its.refused.items() if slot_id not in its.slot_names}
    if (count := sum(strangers.values())) >= SOME:  # anybody can make them up: they are one line
        names = ", ".join(sorted(strangers)[:SOME]) + (", …" if len(strangers) > SOME else "")
        yield _refused("/#slots", names, count, "slot_not_found")
    for (slot_id, code), count in its.refused.items():
        if count >= SOME and slot_id in its.slot_names and code not in _TOLD_OTHERWISE:
            yield _refused(f"/slots/{slot_id}", its.slot_names[slot_id], count, code)


def _refused(path: str, slot: str, count: int, cause: str) -> Alert:
    advice = _ADVICE.get(cause, "")
    values = {"slot": slot, "count": count, "cause": cause}
    return Alert("photos_refused", "waiting", _INSTEAD.get(advice, path), values, advice)


def _calls(its: Machinery) -> Iterator[Alert]:
    for one in its.providers:
        most, used = one.options.get("calls_per_day"), its.calls.get(one.name, 0)
        if most is not None and used >= NEARLY * most:
            level: Level = "failed" if used >= most else "waiting"
            yield Alert(
                "calls_nearly", level, _settings_of(one.name), {"provider": one.name, "used": used, "most": most}
            )


def _providers(providers: Iterable[ProviderView]) -> Iterator[Alert]:
    for one in providers:
        if not one.is_configured:
            yield Alert("key_missing", "failed", _settings_of(one.name), {"provider": one.name})
        elif one.breaker and one.breaker.is_open:
            values = {"provider": one.name, "cause": one.breaker.code}
            yield Alert("breaker_open", "failed", _settings_of(one.name), values)


def _settings_of(provider: str) -> str:
    return f"/settings?part=providers#provider-{provider}"


def _budgets(budgets: Iterable[Spent]) -> Iterator[Alert]:
    for one in budgets:
        path, values = f"/slots/{one.slot.id}", {"slot": one.slot.name}
        if one.share >= 1:
            yield Alert("budget_spent", "failed", path, values)
        elif one.share >= NEARLY:
            yield Alert("budget_nearly", "waiting", path, values)


def _others(its: Machinery) -> Iterator[Alert]:
    if not its.slots_on:
        yield Alert("no_slots", "waiting", "/#slots")
    if its.queue.dead:
        yield Alert("dead_letters", "waiting", "/system", {"count": its.queue.dead})
    if its.backup_failed is not None:
        yield Alert("backup_failed", "waiting", "/system#backups", {"why": its.backup_failed})
    if its.grace_ends_at is not None:
        yield Alert("grace", "waiting", "/settings?part=cameras", {"until": its.grace_ends_at})


def spent(slots: Iterable[Slot], in_use: Iterable[Mapping[str, Any]]) -> list[Spent]:
    """The budgets of ``slots`` and what is used of them (``limits.in_use``)."""
    used = {str(row["key"]): float(row["used"]) for row in in_use}
    found = []
    for slot in slots:
        day, period = slot.options.budget_per_day, slot.options.budget_period
        if day is not None:
            found.append(Spent(slot, "", used.get(f"budget/{slot.id}/day", 0.0), day))
        if period is not None:
            key = f"budget/{slot.id}/period/{period.name}"
            found.append(Spent(slot, period.name, used.get(key, 0.0), period.amount))
    return found


def calls_today(in_use: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The calls of today by provider, of those that are counted (``limits.in_use``)."""
    keys = [(str(row["key"]).split("/"), float(row["used"])) for row in in_use]
    return {parts[1]: used for parts, used in keys if parts[0] == "calls" and parts[2:] == ["day"]}
