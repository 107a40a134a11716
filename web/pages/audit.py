"""``/audit``: who did what, newest first; the filters are in the address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID
from zoneinfo import ZoneInfo

import falcon.asgi
import orjson

from photochanger import audit, slots
from photochanger.db import Row
from web.api import cursor, position
from web.pages import LANGUAGES, language_of, say, words
from web.pages.frame import Framed, page
from web.pages.settings import ENTRIES, amount, told

#: Entries on a page.
SHOWN = 50
#: Characters of a detail that is none of ours to put in words.
_MOST = 300
#: Kinds of deeds one may filter by: how their actions begin.
KINDS = ("slot.", "job.", "settings.", "provider", "ingest_password.", "user.", "login.", "session.", "template.",
         "gallery.", "dead_letter.", "breaker.", "cache.", "media.", "backup.")  # fmt: skip
#: Kinds of targets, and where each has a page of its own.
TARGETS = {
    "slot": "/slots/{id}",
    "job": "/jobs/{id}",
    "user": "/users#user-{id}",
    "provider": "/settings?part=providers#provider-{id}",
    "settings": "/settings",
    "ingest-password": "/settings?part=cameras",
    "message": "/system",
    "backup": "/system#backups",
    "template": "/templates",
    "gallery": "/gallery",
    "media": None,
}
#: Targets whose ids are no names, by kind: what was done says it all.
_NAMELESS = {"media": ("cache",), "backup": ("new",)}
#: Details that name slots.
_SLOTS = ("slot_id", "copy_of", "used_by")
_FIRST_DAY, _LAST_DAY = date(2000, 1, 2), date(2199, 12, 30)


@dataclass(frozen=True)
class Entry:
    """One deed. ``target``: what it was done to, in words; ``facts``: what else is known of it, a title and a value
    each; ``path``: the page of its target."""

    row: Row
    title: str
    target: str
    path: str | None
    facts: list[tuple[str, str]]


class AuditPage(Framed):
    """GET: the audit."""

    place = "audit"

    @page("audit:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        language = language_of(req)
        zone = ZoneInfo((await self._its.settings.get()).time_zone)
        asked = {name: str(value) for name, value in req.params.items() if name in _FILTERS and value}
        since, until = (_midnight(asked.get(name, ""), zone) for name in ("since", "until"))
        [before] = position(req.get_param("after"), int) or [None]
        rows, has_more = await audit.listing(
            self._its.db,
            actor=asked.get("actor"),
            action=asked.get("action"),
            target=asked.get("target"),
            since=since,
            until=until + timedelta(days=1) if until else None,
            before=before,
            limit=SHOWN,
        )
        names = await slots.names(self._its.db)
        self.show(
            req,
            resp,
            "audit.html",
            entries=[entry(language, row, names) for row in rows],
            asked=asked,
            kinds=KINDS,
            is_later=before is not None,
            older=address(asked, after=cursor(rows[-1]["id"])) if has_more else None,
            address=lambda **changes: address(asked, **changes),
        )


_FILTERS = ("actor", "action", "target", "since", "until")


def address(asked: Mapping[str, str], **changes: str) -> str:
    """The page's address with something else asked for.

    >>> address({"actor": "anna"}, target="slot/slot-001")
    '/audit?actor=anna&target=slot%2Fslot-001'
    """
    return "/audit?" + urlencode({name: value for name, value in {**asked, **changes}.items() if value})


def _midnight(text: str, zone: ZoneInfo) -> datetime | None:
    """When a day begins; ``None`` where it is none."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return datetime.combine(day, time(), zone) if _FIRST_DAY <= day <= _LAST_DAY else None


def entry(language: str, row: Row, slot_names: Mapping[str, str]) -> Entry:
    """A row of the audit in words; ``slot_names``: what slots are called now, by id."""
    action = row["action"]
    known = f"action.{action}" in words(language)
    kind, _, name = row["target"].partition("/")
    path = TARGETS.get(kind)
    title = say(language, f"action.{action}") if known else action
    if action == "user.password_set" and row["actor"] == name:
        title = say(language, "audit.own_password")
    of_kind = say(language, f"target.{kind}") if kind in TARGETS else kind
    return Entry(
        row=row,
        title=title,
        target=f"{of_kind} {_called(language, row, slot_names)}".strip(),
        path=path.format(id=name) if path and (name or "{id}" not in path) else None,
        facts=[fact(language, row["action"], name, value, slot_names) for name, value in row["detail"].items()],
    )


def _called(language: str, row: Row, slot_names: Mapping[str, str]) -> str:
    """What people call a target: by its name where the detail has it, never by the whole of a long number.

    >>> _called("en", {"target": "template/0b9f6c1e-8a57-4c8e-9d4b-2f7f7d1f8f10", "detail": {"name": "frame.png"}}, {})
    'frame.png'
    >>> _called("en", {"target": "job/0b9f6c1e-8a57-4c8e-9d4b-2f7f7d1f8f10", "detail": {}}, {})
    '0b9f6c1e'
    >>> [_called("en", {"target": one, "detail": {}}, {"slot-001": "Sepia"}) for one in ("slot/slot-001", "settings")]
    ['Sepia (slot-001)', '']
    """
    kind, _, name = row["target"].partition("/")
    detail = row["detail"]
    if kind == "template" and detail.get("name"):
        return str(detail["name"])[:_MOST]
    if kind == "gallery" and "slot_id" in detail:
        return _slot(detail["slot_id"], slot_names) if detail["slot_id"] else say(language, "detail.every")
    if kind == "slot":
        return _slot(name, slot_names)
    if name in _NAMELESS.get(kind, ()):
        return ""
    try:
        return str(UUID(name))[:8]
    except ValueError:
        return str(name)


def _slot(slot_id: Any, names: Mapping[str, str]) -> str:
    """A slot by the name people know, and by its id, which stays."""
    called = names.get(str(slot_id))
    return f"{called} ({slot_id})" if called else _plain(slot_id)[:_MOST]


def fact(language: str, action: str, name: str, value: Any, slot_names: Mapping[str, str]) -> tuple[str, str]:
    """One detail in words: a setting in its unit, everything else by the words there are."""
    if action == "settings.changed" and name in ENTRIES:
        return told(language, name, value)
    known = words(language)
    title = say(language, f"detail.{name}") if f"detail.{name}" in known else name
    if name == "grace_s" and not value:
        return say(language, "audit.old_password"), say(language, "audit.at_once")
    if name == "grace_s":
        return title, amount(language, value / 3600, "h")
    if name == "language" and value is None:
        return title, say(language, "users.browsers")
    if name in _SLOTS and value:
        return title, ", ".join(_slot(one, slot_names) for one in (value if isinstance(value, list) else [value]))
    if value is None:
        return title, say(language, "detail.every" if name == "slot_id" else "setting.empty")
    if isinstance(value, bool):
        return title, say(language, "setting.on" if value else "setting.off")
    if isinstance(value, list):
        return title, ", ".join(_word(language, name, one) for one in value) or say(language, "setting.empty")
    if isinstance(value, dict):
        named = {key: known.get(f"provider_option.{key}", key) for key in value}
        text = ", ".join(f"{named[key]}: {_plain(one)}" for key, one in value.items()) or say(language, "setting.empty")
        return title, text[:_MOST]
    return title, _word(language, name, value)


def _word(language: str, name: str, value: Any) -> str:
    known = words(language)
    if name == "permissions" and f"permission.{value}" in known:
        return say(language, f"permission.{value}")
    if name == "changed" and f"slot_part.{value}" in known:
        return say(language, f"slot_part.{value}")
    if name == "kind" and f"login_kind.{value}" in known:
        return say(language, f"login_kind.{value}")
    if name == "language" and value in LANGUAGES:
        return words(value)["language.self"]
    return _plain(value)[:_MOST]


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
