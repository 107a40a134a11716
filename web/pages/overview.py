"""``/``: whether tonight is all right, on one screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import falcon.asgi

from photochanger import job_list, jobs, limits, slots, stats, system
from photochanger.settings import Settings
from photochanger.slots import Slot
from photochanger.stats import Today
from web.api import backups, providers
from web.api.providers import ProviderView
from web.api.system import disk
from web.api.views import PictureView, picture
from web.live import QueueNews
from web.pages.alerts import LATELY_S, LATEST, Machinery, calls_today, firing, spent
from web.pages.frame import Framed, may, page

#: Places of the strip: as many as stand in one row of a wide screen.
STRIP = 10
#: Hours of the small line beside today's counts.
HOURS = 12
#: The time zone of settings that nobody has looked at.
UNSET_ZONE = Settings.model_fields["time_zone"].default
_MOST_SLOTS = 500

Light = Literal["good", "waiting", "failed", ""]


@dataclass(frozen=True)
class Tile:
    """A slot at a glance."""

    slot: Slot
    today: Today | None
    picture: PictureView | None
    light: Light

    @property
    def served_by(self) -> str:
        """What its route asks first."""
        rung = self.slot.route.rungs[0]
        return f"{rung.provider}/{rung.operation}"


class OverviewPage(Framed):
    """GET: the overview, as much of it as one may see."""

    place = "overview"

    @page(None)
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        account = req.context.account
        current = await self._its.settings.get()
        everything = list((await slots.all_slots(self._its.db)).values())[:_MOST_SLOTS]
        asked = await self._asked(everything)
        values: dict[str, Any] = dict.fromkeys(("health", "today", "hours", "tiles", "strip"))
        values["alerts"] = []
        if may(account, "settings:read") or may(account, "jobs:read"):
            values["health"] = health = await self._health(current, everything, asked)
            values["alerts"] = firing(health)
        if may(account, "stats:read"):
            values["today"], values["hours"] = await self._today(current)
        if may(account, "jobs:read"):
            values["strip"] = await self._strip(req, current)
        if may(account, "slots:read"):
            values["tiles"] = await self._tiles(req, current, everything, asked)
        names = {slot.id: slot.name for slot in everything}
        offers_zone = current.time_zone == UNSET_ZONE and may(account, "settings:write")
        changed = req.get_param("password") == "changed"
        self.show(
            req, resp, "overview.html", slot_names=names, offers_zone=offers_zone, password_changed=changed, **values
        )

    async def _asked(self, everything: Sequence[Slot]) -> dict[str, ProviderView]:
        """The providers that a slot which is switched on may ask."""
        names = {rung.provider for slot in everything if slot.is_active for rung in slot.route.rungs}
        return {one.name: one for one in await providers.views(self._its) if one.name in names}

    async def _health(
        self, current: Settings, everything: Sequence[Slot], asked: Mapping[str, ProviderView]
    ) -> Machinery:
        db = self._its.db
        on = [slot for slot in everything if slot.is_active]
        graces = [one.valid_until for one in current.ingest_passwords if one.valid_until is not None]
        now = await jobs.now(db)
        failed = await backups.failure(db)
        in_use = await limits.in_use(db)
        return Machinery(
            queue=QueueNews.model_validate(await system.queue(db)),
            scheduler=await system.leader(db),
            disk=await disk(self._its),
            patience_s=current.t_sync_response_s,
            providers=list(asked.values()),
            budgets=spent(on, in_use),
            slots_on=len(on),
            grace_ends_at=max((end for end in graces if end > now), default=None),
            backup_failed=failed.code if failed else None,
            endings=await stats.lately(db, [slot.id for slot in on], since_s=LATELY_S, most=LATEST),
            refused=self._its.refused.lately(),
            calls=calls_today(in_use),
            slot_names={slot.id: slot.name for slot in everything},
        )

    async def _today(self, current: Settings) -> tuple[stats.Summary, list[int]]:
        """The day so far, and the photos of each of the last hours."""
        now: datetime = await jobs.now(self._its.db)
        zone = current.time_zone
        day = await stats.read(self._its.db, slot_id=None, since=now, until=now + _MOMENT, by="day", time_zone=zone)
        since = now - timedelta(hours=HOURS - 1)
        hours = await stats.read(self._its.db, slot_id=None, since=since, until=now, by="hour", time_zone=zone)
        return day.points[-1], [one.jobs for one in hours.points]

    async def _strip(self, req: falcon.asgi.Request, current: Settings) -> list[PictureView | None]:
        """The newest pictures, one for each place."""
        found = await job_list.latest_results(self._its.db, limit=STRIP)
        views: list[PictureView | None] = [picture(self._its, req, current, one) for one in found.pictures]
        return views + [None] * (STRIP - len(views))

    async def _tiles(
        self,
        req: falcon.asgi.Request,
        current: Settings,
        everything: Sequence[Slot],
        asked: Mapping[str, ProviderView],
    ) -> list[Tile]:
        days = await stats.today(self._its.db, current.time_zone)
        latest = await job_list.latest_of_each(self._its.db, [slot.id for slot in everything if slot.is_active])
        return [
            Tile(
                slot=slot,
                today=days.get(slot.id),
                picture=picture(self._its, req, current, latest[slot.id]) if slot.id in latest else None,
                light=light_of(slot, days.get(slot.id), asked),
            )
            for slot in everything
        ]


_MOMENT = timedelta(milliseconds=1)


def light_of(slot: Slot, today: Today | None, asked: Mapping[str, ProviderView]) -> Light:
    """How a slot stands: ``failed`` where none of its providers can be asked, ``waiting`` where some cannot or its
    last job went wrong, none where it is switched off."""
    if not slot.is_active:
        return ""
    well = [name in asked and asked[name].is_healthy for name in (rung.provider for rung in slot.route.rungs)]
    if not any(well):
        return "failed"
    if not all(well) or (today is not None and today.last_job_status in ("failed", "timed_out")):
        return "waiting"
    return "good"
