"""``/system``: the machinery as it stands: workers, queue, scheduled tasks, what has failed, disk, limits, versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

import falcon.asgi

from photochanger import jobs, schedules, slots, system
from photochanger import providers as drivers
from photochanger.providers import CallOptions
from photochanger.settings import Settings
from photochanger.slots import Slot
from web.api import backups, cursor, position
from web.api.media import PURGED
from web.api.system import DeadLetter, LimitView, standing
from web.pages import language_of
from web.pages.frame import Framed, page
from web.pages.names import provider_name

#: Dead letters on a page.
LETTERS = 20
#: Seconds without a sign of life after which a worker is taken for lost, and within which one is certainly well.
LOST_S, WELL_S = 5.0, 2.0
#: Limits of requests a minute, by the first two parts of their keys.
REQUESTS = ("ingest.server", "ingest.slot", "ingest.address", "api.address", "gallery.address")
#: Intervals that a task may be late before that is worth a look.
LATE = 3


@dataclass(frozen=True)
class InUse:
    """What is used of one limit. ``kind``: its word is ``limit.<kind>``; ``of``: whose it is; ``most``: where known."""

    #: Of a day or an evening: all of it comes back when that ends.
    WHOLE: ClassVar = ("calls.day", "budget.day", "budget.period")

    kind: str
    of: str
    used: float
    most: float | None
    is_money: bool
    frees_at: datetime

    @property
    def ends_whole(self) -> bool:
        return self.kind in self.WHOLE


class SystemPage(Framed):
    """GET: the machinery."""

    place = "system"

    @page("settings:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        view = await standing(self._its)
        now: datetime = await jobs.now(self._its.db)
        place = position(req.get_param("after"), datetime, UUID)
        rows = await system.dead_letters(self._its.db, after=(place[0], place[1]) if place else None, limit=LETTERS + 1)
        letters = [DeadLetter.model_validate(row) for row in rows[:LETTERS]]
        current = await self._its.settings.get()
        everything = await slots.all_slots(self._its.db)
        self.show(
            req,
            resp,
            "system.html",
            its=view,
            backups=await backups.standing(self._its),
            key_file=None if self._its.config.master_key else self._its.config.home / "master.key",
            patience_s=current.t_sync_response_s,
            letters=letters,
            next=cursor(letters[-1].failed_at, letters[-1].id) if len(rows) > LETTERS else None,
            limits=[in_use(language_of(req), one, current, everything) for one in view.limits],
            own=list(schedules.OWN_EVERY_S),
            late=[one.name for one in view.schedules if _is_late(one.last_run_at, one.every_s, now)],
            purged=PURGED,
            lost_s=LOST_S,
            well_s=WELL_S,
        )


def _is_late(ran_at: datetime | None, every_s: float, now: datetime) -> bool:
    return ran_at is not None and (now - ran_at).total_seconds() > LATE * every_s + LOST_S


def in_use(language: str, one: LimitView, current: Settings, everything: Mapping[str, Slot]) -> InUse:
    """A limit by its key, such as ``calls/gemini/at-once`` or ``budget/slot-001/period/evening``."""
    kind, name, span, *rest = [*one.key.split("/", 3), "", "", ""]
    if f"{kind}.{name}" in REQUESTS:
        slot = everything.get(span)
        return InUse(f"{kind}.{name}", slot.name if slot else span, one.used, _most_requests(kind, name, current),
                     False, one.frees_at)  # fmt: skip
    if kind == "calls":
        span_kind = f"calls.{span}" if span in ("at-once", "minute", "day") else "other"
        of = provider_name(language, name)
        return InUse(span_kind, of, one.used, _most_calls(name, span, current), False, one.frees_at)
    if kind == "budget":
        slot = everything.get(name)
        budget = _budget(slot, span)
        of = " · ".join(filter(None, (slot.name if slot else name, rest[0] if span == "period" else "")))
        return InUse(f"budget.{span}", of, one.used, budget, True, one.frees_at)
    return InUse("other", one.key, one.used, None, False, one.frees_at)


def _most_requests(kind: str, whose: str, current: Settings) -> float | None:
    most: float | None = getattr(current, f"{kind}_per_minute" if whose == "server" else f"{kind}_per_minute_{whose}")
    return most


def _most_calls(provider: str, span: str, current: Settings) -> float | None:
    driver = drivers.registry().get(provider)
    if driver is None:
        return None
    given: dict[str, Any] = current.providers.get(provider, {})
    name = {"at-once": "max_concurrent", "minute": "calls_per_minute", "day": "calls_per_day"}.get(span, "")
    usual = driver.options()
    return given.get(name, getattr(usual, name, None)) if isinstance(usual, CallOptions) else None


def _budget(slot: Slot | None, span: str) -> float | None:
    if slot is None:
        return None
    if span == "day":
        return slot.options.budget_per_day
    return slot.options.budget_period.amount if slot.options.budget_period else None
