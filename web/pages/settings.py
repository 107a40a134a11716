"""``/settings``: providers and their keys, the cameras' password, the public address, times and limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

import falcon.asgi
import orjson
from markupsafe import Markup

from photochanger import access, jobs, settings, zones
from photochanger import providers as drivers
from photochanger.settings import SERVERS_OWN, Settings
from web.api import providers
from web.api.providers import ProviderView
from web.pages import formats, language_of, say, say_count, words
from web.pages.frame import Framed, page

Kind = Literal["number", "text", "url", "check", "zone", "lines"]

#: Parts of the page, each with an address of its own.
PARTS = ("providers", "cameras", "address", "limits")
#: Hours for which a replaced ingest password may stay valid.
GRACES_H = (0, 1, 6, 24, 72, 168)
_MB = 1024 * 1024
#: Bounds beyond this are no help to anybody.
_NO_BOUND = 10**9


class Entry(NamedTuple):
    """One setting as it is shown. ``unit``: its word is ``unit_of.<unit>``; ``scale``: how many of the setting's own
    unit are one of it."""

    name: str
    kind: Kind = "number"
    unit: str = ""
    scale: int = 1


GROUPS: dict[str, dict[str, Sequence[Entry]]] = {
    "limits": {
        "times": (Entry("t_sync_response_s", unit="s"), Entry("time_zone", "zone")),
        "costs": (Entry("currency", "text"), Entry("usd_rate", unit="of_currency")),
        "retention": (
            Entry("t_result_retention_h", unit="h"),
            Entry("t_original_retention_h", unit="h"),
            Entry("t_job_history_d", unit="d"),
            Entry("t_audit_d", unit="d"),
            Entry("disk_reserve_bytes", unit="mb", scale=_MB),
        ),
        "backups": (
            Entry("backup_nightly", "check"),
            Entry("backup_hour", unit="oclock"),
            Entry("backup_keep", unit="copies"),
            Entry("backup_results", "check"),
        ),
        "sizes": (
            Entry("max_upload_bytes", unit="mb", scale=_MB),
            Entry("max_pixels", unit="mpx", scale=1_000_000),
        ),
        "rates": (
            Entry("ingest_per_minute", unit="per_minute"),
            Entry("ingest_per_minute_slot", unit="per_minute"),
            Entry("ingest_per_minute_address", unit="per_minute"),
            Entry("api_per_minute", unit="per_minute"),
            Entry("api_per_minute_address", unit="per_minute"),
            Entry("gallery_per_minute_address", unit="per_minute"),
        ),
    },
    "address": {
        "public": (
            Entry("public_base_url", "url"),
            Entry("plain_links", "check"),
            Entry("allowed_private_hosts", "lines"),
        ),
    },
}
ENTRIES = {entry.name: entry for groups in GROUPS.values() for group in groups.values() for entry in group}
#: Settings that have a place of their own on this page.
ELSEWHERE = ("providers",)
_SCHEMA: Mapping[str, Any] = Settings.model_json_schema()["properties"]


@dataclass(frozen=True)
class Shown:
    """A setting in its unit. ``value`` is what its field holds."""

    entry: Entry
    value: str
    is_on: bool
    default: str
    is_changed: bool
    least: float | None
    most: float | None
    is_optional: bool
    is_whole: bool


class SettingsPage(Framed):
    """GET: one part of the settings."""

    place = "settings"

    @page("settings:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        part = req.get_param("part") or PARTS[0]
        part = part if part in PARTS else PARTS[0]
        current = await settings.load(self._its.db)
        values: dict[str, Any] = dict.fromkeys(("cards", "grace_ends_at", "valid", "groups", "zones"))
        if part == "providers":
            views = await providers.views(self._its)
            values["cards"] = [(one, self._options(language_of(req), one, current.currency)) for one in views]
        elif part == "cameras":
            now: datetime = await jobs.now(self._its.db)
            ends = [one.valid_until for one in current.ingest_passwords if one.valid_until and one.valid_until > now]
            values["valid"], values["grace_ends_at"] = len(current.ingest_passwords), max(ends, default=None)
        else:
            groups = GROUPS[part].items()
            values["groups"] = {name: [shown(entry, current) for entry in entries] for name, entries in groups}
            values["zones"] = sorted(zones.names()) if part == "limits" else []
        self.show(
            req,
            resp,
            "settings.html",
            parts=PARTS,
            part=part,
            graces=GRACES_H,
            from_environment=self._its.config.ingest_password is not None,
            bounds=bounds,
            **values,
        )

    def _options(self, language: str, view: ProviderView, currency: str) -> Markup | None:
        """What the form of a provider's options is made of; none where there is nothing to set."""
        if not view.options_schema.get("properties"):
            return None
        silent = access.options_of(drivers.registry()[view.name], Settings(), self._its.config)
        data = {
            "schema": _priced(language, spoken(language, view.options_schema), view, currency),
            "value": view.options,
            "silent": silent.model_dump(mode="json"),
        }
        text = orjson.dumps(data).decode().replace("<", "\\u003c")
        return Markup('<script type="application/json" class="options-data">{}</script>').format(
            Markup(text)  # noqa: S704 - no tag can end it
        )


def shown(entry: Entry, current: Settings) -> Shown:
    """One setting as it stands."""
    schema = _SCHEMA[entry.name]
    kinds = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
    value, default = getattr(current, entry.name), Settings.model_fields[entry.name].get_default()
    least, most = (None if (n := kinds[0].get(name)) is None else n / entry.scale for name in ("minimum", "maximum"))
    return Shown(
        entry=entry,
        value=_written(entry, value),
        is_on=value is True,
        default=_written(entry, default),
        is_changed=value != default,
        least=least,
        most=None if most is None or most > _NO_BOUND else most,
        is_optional="anyOf" in schema,
        is_whole=kinds[0].get("type") == "integer" and entry.scale == 1,
    )


def _written(entry: Entry, value: Any) -> str:
    """
    >>> _written(ENTRIES["max_upload_bytes"], 50 * 1024**2), _written(ENTRIES["t_sync_response_s"], 47.5)
    ('50', '47.5')
    """
    if value is None:
        return ""
    if isinstance(value, list):
        return "\n".join(value)
    if entry.kind == "number":
        return f"{value / entry.scale:.6f}".rstrip("0").rstrip(".")
    return str(value)


def bounds(language: str, one: Shown) -> str:
    """What a number may be, in words."""
    least, most = (None if value is None else _number(language, value) for value in (one.least, one.most))
    if least is not None and most is not None:
        return say(language, "setting.from_to", least=least, most=most)
    return "" if least is None else say(language, "setting.at_least", least=least)


def _number(language: str, value: float) -> str:
    return formats.number(language, value, 0 if value == int(value) else 2)


def told(language: str, name: str, value: Any) -> tuple[str, str]:
    """A setting's title and a value of it, in words: for whoever reads what was changed."""
    entry = ENTRIES.get(name)
    if entry is None or name in SERVERS_OWN:
        return name, orjson.dumps(value).decode()
    title = say(language, f"setting.{name}")
    if value is None or value in ("", []):
        return title, say(language, "setting.empty")
    if isinstance(value, bool):
        return title, say(language, "setting.on" if value else "setting.off")
    if isinstance(value, list):
        return title, ", ".join(str(one) for one in value)
    if entry.kind != "number":
        return title, str(value)
    return title, amount(language, value / entry.scale, entry.unit)


def amount(language: str, value: float, unit: str) -> str:
    """A number with its unit in the form that goes with it.

    >>> amount("ru", 24, "h"), amount("ru", 3, "d"), amount("en", 1.5, "h"), amount("en", 40, "mb")
    ('24 часа', '3 дня', '1.50 hours', '40 MB')
    """
    counted = {"h": "settings.hours", "d": "settings.days", "copies": "setting.copies"}.get(unit)
    if counted and value == int(value):
        return say_count(language, counted, value)
    return f"{_number(language, value)} {say(language, f'unit_of.{unit}')}"


def spoken(language: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON Schema with the titles and help of our catalogue, where there are some, instead of its own."""
    known = words(language)
    found: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            found[key] = {name: _field(language, known, name, one) for name, one in value.items()}
        elif key == "$defs":
            found[key] = {name: spoken(language, one) for name, one in value.items()}
        else:
            found[key] = value
    return found


def _priced(language: str, schema: dict[str, Any], view: ProviderView, currency: str) -> dict[str, Any]:
    """The options' schema whose prices are those of the provider's operations, by the names people know."""
    prices = schema["properties"].get("prices")
    if prices is not None:
        names = [{"const": one.name, "title": one.title[language]} for one in view.operations]
        prices["propertyNames"] = {"oneOf": names, "title": say(language, "price.operation")}
        amount = say(language, "price.amount", currency=currency)
        prices["additionalProperties"] = {**prices["additionalProperties"], "title": amount}
    return schema


def _field(language: str, known: Mapping[str, str], name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    said = {key: value for key, value in schema.items() if key not in ("title", "description")}
    said["title"] = say(language, f"provider_option.{name}") if f"provider_option.{name}" in known else name
    if f"provider_option.{name}.help" in known:
        said["description"] = say(language, f"provider_option.{name}.help")
    return said
