"""``/slots`` and ``/slots/{slot_id}``: all slots, and one with its route, its link, a place to try it, its pictures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote
from uuid import UUID

import falcon.asgi
import orjson
import segno
from markupsafe import Markup

from photochanger import audit, job_list, providers, slots, stats, templates
from photochanger.failures import Failure, FieldError
from photochanger.providers import Operation
from photochanger.settings import Settings
from photochanger.slots import Options, Route, Rung, Slot
from photochanger.stats import Today
from web.api.providers import views
from web.api.views import PictureView, picture
from web.pages import formats, language_of, only_here, say, words
from web.pages.details import told
from web.pages.frame import Framed, may, page
from web.pages.names import provider_name
from web.uploads import FILE_FIELDS, PASSWORD_FIELD

#: Pictures of a slot's gallery.
RECENT = 24
_MOST_SLOTS = 500
#: The settings of a call, and of a slot, whose forms are drawn from their schemas.
CALL = ("timeout_s", "max_tries", "pause_s", "on_refusal")
OPTIONS = ("keep_late_result", "join_duplicates", "on_disconnect", "answer", "budget_per_day")
#: The settings of an operation that come first in its form, and last.
FIRST = ("prompt", "template", "templates", "filter", "strength", "model")
LAST = ("send_edge", "output")

#: Where a problem of a route is: the rung's number, and the field.
_IN_RUNG = re.compile(r"route\.rungs\.(\d+)\.(?:settings\.)?(\w+)")

State = Literal["all", "on", "off", "archived"]


@dataclass(frozen=True)
class Line:
    """A slot in the list."""

    slot: Slot
    today: Today | None
    picture: PictureView | None


@dataclass(frozen=True)
class Setting:
    """One setting of a rung, as it is read: its title, its value, the templates it names."""

    title: str
    value: str
    templates: Sequence[str]


@dataclass(frozen=True)
class Step:
    """A rung, as it is read."""

    rung: Rung
    title: str
    settings: Sequence[Setting]


class SlotsPage(Framed):
    """GET: the slots that fit, by id."""

    place = "slots"

    @page("slots:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        state = _state(req.get_param("state"))
        search = (req.get_param("search") or "").strip()[:80].replace("\0", "")
        provider = req.get_param("provider") or ""
        found = await slots.listing(
            self._its.db,
            provider=provider or None,
            search=search or None,
            is_active={"on": True, "off": False}.get(state),
            is_archived=state == "archived",
            limit=_MOST_SLOTS,
        )
        current = await self._its.settings.get()
        days = await stats.today(self._its.db, current.time_zone)
        sees = may(req.context.account, "jobs:read")
        latest = await job_list.latest_of_each(self._its.db, [slot.id for slot in found]) if sees else {}
        lines = [
            Line(
                slot=slot,
                today=days.get(slot.id),
                picture=picture(self._its, req, current, latest[slot.id]) if slot.id in latest else None,
            )
            for slot in found
        ]
        archived = await slots.listing(self._its.db, is_archived=True, limit=_MOST_SLOTS)
        self.show(
            req,
            resp,
            "slots.html",
            lines=lines,
            state=state,
            search=search,
            provider=provider,
            providers=list(providers.registry()),
            archived=len(archived),
            next_id=await slots.next_id(self._its.db),
        )


class SlotPage(Framed):
    """GET: one slot."""

    place = "slots"

    @page("slots:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, slot_id: str) -> None:
        slot, is_archived = await slots.get_any(self._its.db, slot_id)
        current = await self._its.settings.get()
        account = req.context.account
        language = language_of(req)
        recent: list[PictureView] | None = None
        redoable: set[UUID] = set()
        if may(account, "jobs:read"):
            latest = await job_list.latest_results(self._its.db, slot_id, limit=RECENT)
            recent = [picture(self._its, req, current, one) for one in latest.pictures]
            redoable = {one.job_id for one in latest.pictures if one.has_original}
        ingest_url = f"{self._its.base(req, current)}/ingest/{quote(slot_id)}"
        self.show(
            req,
            resp,
            "slot.html",
            slot=slot,
            is_archived=is_archived,
            steps=[_step(rung, language) for rung in slot.route.rungs],
            warnings=_warnings(slot.route, current, language),
            today=(await stats.today(self._its.db, current.time_zone)).get(slot_id),
            recent=recent,
            redoable=redoable,
            ingest_url=ingest_url,
            reach=_reach(req, ingest_url, is_set=current.public_base_url is not None),
            qr=_qr(ingest_url, words(language)["slot.qr_title"]),
            file_field=FILE_FIELDS[0],
            password_field=PASSWORD_FIELD,
            patience_s=current.t_sync_response_s,
            edits=may(account, "slots:write") and not is_archived,
            data=await self._data(slot, language, account),
        )

    async def _data(self, slot: Slot, language: str, account: Any) -> Markup:
        """What the editor is built from, as a data block."""
        known = [
            {
                "name": one.name,
                "title": provider_name(language, one.name),
                "is_configured": one.is_configured,
                "is_healthy": one.is_healthy,
                "models": one.options.get("models") or {},
                "operations": [
                    {
                        "name": operation.name,
                        "title": operation.title.get(language, operation.name),
                        "schema": _ordered(operation.settings_schema),
                    }
                    for operation in one.operations
                ],
            }
            for one in await views(self._its)
        ]
        return _block(
            "slot-data",
            {
                "slot": slot.model_dump(mode="json"),
                "saved": await self._saved(slot, language),
                "providers": known,
                "call": _part(Rung.model_json_schema(), CALL),
                "options": _part(Options.model_json_schema(), OPTIONS),
                "most_rungs": 5,
                "may_set_keys": may(account, "settings:read"),
                "may_upload": may(account, "media:write"),
                "may_watch": may(account, "jobs:read"),
            },
        )

    async def _saved(self, slot: Slot, language: str) -> dict[str, Any] | None:
        """Who has saved a slot's newest version, and when; ``None`` for one that nobody has changed."""
        rows, _ = await audit.listing(self._its.db, target=f"slot/{slot.id}", action="slot.saved", limit=1)
        if not rows:
            return None
        by = rows[0]["actor"]
        name = say(language, "audit.command") if by == audit.COMMAND_LINE else by
        return {"by": name, "at": rows[0]["at"], "version": rows[0]["detail"].get("version")}


def _state(given: str | None) -> State:
    return given if given in ("on", "off", "archived") else "all"  # type: ignore[return-value]


def _part(schema: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """A schema of only some of its properties, in this order."""
    return {**schema, "description": "", "properties": {name: schema["properties"][name] for name in names}}


def _reach(req: falcon.asgi.Request, link: str, *, is_set: bool) -> Literal["here", "network"] | None:
    """What there is to say of where cameras' link works: it leads nowhere from another machine, or it is our own guess
    of this machine's address in the network. ``is_set``: somebody has said how others reach us."""
    if only_here(link):
        return "here"
    return "network" if only_here(f"//{req.netloc}") and not is_set else None


def _ordered(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema with what one chooses first before the rest, and what one seldom touches behind it."""
    places = {**{name: at - len(FIRST) for at, name in enumerate(FIRST)}, **dict.fromkeys(LAST, 1)}
    properties = schema["properties"]
    return {
        **schema,
        "properties": {name: properties[name] for name in sorted(properties, key=lambda one: places.get(one, 0))},
    }


def _block(name: str, value: object) -> Markup:
    data = orjson.dumps(value).decode().replace("<", "\\u003c")
    return Markup('<script type="application/json" id="{}">').format(name) + Markup(data + "</script>")  # noqa: S704


def _qr(link: str, title: str) -> Markup:
    return Markup(segno.make(link, error="m").svg_inline(border=4, omitsize=True, title=title))  # noqa: S704


def _step(rung: Rung, language: str) -> Step:
    provider = providers.registry().get(rung.provider)
    operation = provider.operations.get(rung.operation) if provider else None
    title = operation.name.get(language, rung.operation) if operation else rung.operation
    return Step(rung, title, _settings(rung, operation, language))


def _settings(rung: Rung, operation: Operation | None, language: str) -> list[Setting]:
    """What is set, without what is empty or off."""
    named = templates.named(rung.settings)
    properties = operation.settings.model_json_schema()["properties"] if operation else {}
    known = words(language)
    read = []
    for name, value in rung.settings.items():
        if value in (None, "", [], False):
            continue
        title = _title(rung, name, language, properties.get(name, {}).get("title", name))
        shown = "✓" if value is True else "" if name in named else known.get(f"option.{value}", str(value))
        read.append(Setting(title, shown, named.get(name, [])))
    return read


def _title(rung: Rung, name: str, language: str, otherwise: str) -> str:
    """A setting's title."""
    known = words(language)
    return known.get(f"field.{rung.operation}.{name}") or known.get(f"field.{name}", otherwise)


def _warnings(route: Route, current: Settings, language: str) -> list[str]:
    """What is wrong or unwise about a route, in words."""
    try:
        found = slots.warnings(slots.check_route(route, current), current)
    except Failure as failure:
        return [_fault(one, route, language) for one in failure.errors] or [told(language, failure.detail)]
    return [
        say(
            language,
            f"concern.{one.code}",
            **{
                name: value if isinstance(value, str) else formats.seconds(language, value)
                for name, value in one.values.items()
            },
        )
        for one in found
    ]


def _fault(error: FieldError, route: Route, language: str) -> str:
    known = words(language)
    said = known.get(f"wrong.{error.code}") or told(language, error.message)
    place = _IN_RUNG.match(error.field)
    if place is None:
        return f"{error.field}: {said}"
    step = say(language, "slot.rung", n=int(place[1]) + 1)
    name = place[2]
    title = known.get(f"slot.{name}") or _title(route.rungs[int(place[1])], name, language, name)
    return f"{step}, {title}: {said}"
