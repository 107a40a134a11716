"""``/templates``: the pictures that operations work with, and which slots use them."""

from __future__ import annotations

from dataclasses import dataclass

import falcon.asgi

from photochanger import slots, templates
from photochanger.slots import Slot
from web.api.media import view
from web.models import TemplateMedia
from web.pages.frame import Framed, page

_MOST = 1000


@dataclass(frozen=True)
class Card:
    """A template and the slots whose route names it."""

    template: TemplateMedia
    used_by: list[Slot]


class TemplatesPage(Framed):
    """GET: every template, newest first."""

    place = "templates"

    @page("slots:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        rows = await templates.listing(self._its.db, limit=_MOST)
        everything = list((await slots.all_slots(self._its.db)).values())
        cards = [Card(one, [slot for slot in everything if str(one.id) in _named(slot)]) for one in map(view, rows)]
        self.show(req, resp, "templates.html", cards=cards)


def _named(slot: Slot) -> set[str]:
    """The templates that a slot's route names."""
    return {one for rung in slot.route.rungs for group in templates.named(rung.settings).values() for one in group}
