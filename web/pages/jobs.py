"""``/jobs`` and ``/jobs/{job_id}``: the list, as its address says, and everything about one job."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode
from uuid import UUID
from zoneinfo import ZoneInfo

import falcon.asgi
import orjson
from pydantic import ValidationError

from photochanger import job_list, providers, settings, slots
from photochanger.failures import InvalidRequest, InvalidSettings
from photochanger.job_list import LogEntry
from photochanger.job_search import Place
from photochanger.states import FINAL, JobEvent, JobStatus
from web.api import cursor, position
from web.api.jobs import JobFilter, JobInList, JobView, found, job_key, links, view
from web.pages import details, language_of, qr_code, say
from web.pages.charts import Segment
from web.pages.frame import Framed, page
from web.pages.names import made_by

#: Jobs on a page of the list.
ROWS = 50
_LISTS = ("status", "failure_reason")
_INSTANTS = ("since", "until")
#: How calls end that nobody has answered: the job had ended, or needed them no more.
CUT_OFF = ("cancelled", "sync_timeout")
#: How a state is coloured.
LIGHTS = {
    JobStatus.PENDING: "waiting",
    JobStatus.PROCESSING: "accent",
    JobStatus.SUCCEEDED: "good",
    JobStatus.FAILED: "failed",
    JobStatus.TIMED_OUT: "failed",
    JobStatus.CANCELLED: "",
}


@dataclass(frozen=True)
class Asked:
    """What an address asks of the list. ``given``: as it is written there; ``filter``: as the API takes it."""

    given: Mapping[str, list[str]]
    filter: JobFilter
    after: str | None

    def one(self, name: str) -> str:
        """What is written in a field."""
        return (self.given.get(name) or [""])[0]

    def link(self, **changes: str | None) -> str:
        """The list's address with something else asked for; ``None``: that does not matter."""
        whole = {**self.given, **{name: [value] if value else [] for name, value in changes.items()}}
        pairs = [(name, value) for name, values in whole.items() for value in values]
        return f"/jobs?{urlencode(pairs)}" if pairs else "/jobs"

    @property
    def as_json(self) -> str:
        """The filter as the API takes it."""
        return orjson.dumps(self.filter.model_dump(mode="json", exclude_defaults=True)).decode()

    @property
    def has_more(self) -> bool:
        """Whether something is asked beside state and text."""
        return bool(set(self.given) - {"status", "text"})

    @property
    def is_filtered(self) -> bool:
        return self.filter != JobFilter()


class JobsPage(Framed):
    """GET: the jobs that fit, newest first."""

    place = "jobs"

    @page("jobs:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        zone = (await self._its.settings.get()).time_zone
        wrong = None
        try:
            asked = read(req.params, ZoneInfo(zone))
            items, behind = await self._found(req, asked)
        except (InvalidRequest, InvalidSettings) as failure:
            asked, items, behind = Asked(_given(req.params), JobFilter(), None), [], None
            details.tell_page(req, failure)
            wrong = failure.detail
        known = {id: slot.name for id, slot in (await slots.all_slots(self._its.db)).items()}
        names = await slots.names(self._its.db)
        self.show(
            req,
            resp,
            "jobs.html",
            asked=asked,
            items=items,
            behind=behind,
            wrong=wrong,
            zone=zone,
            slot_names=names,
            suggestions=await job_list.suggestions(self._its.db),
            slots=_with(known, asked.one("slot_id")),
            providers=_with(dict.fromkeys(providers.registry(), ""), asked.one("provider")),
            statuses=list(JobStatus),
            lights=LIGHTS,
        )

    async def _found(self, req: falcon.asgi.Request, asked: Asked) -> tuple[list[JobInList], str | None]:
        place = position(asked.after, datetime, UUID)
        listing = await found(self._its, asked.filter, limit=ROWS, after=Place(*place) if place else None)
        current = await self._its.settings.get()
        items = [JobInList(**one.model_dump(), **links(self._its, req, current, one)) for one in listing.jobs]
        return items, cursor(*listing.next) if listing.next else None


def _with(choices: Mapping[str, str], asked: str) -> Mapping[str, str]:
    """What may be chosen, and what is asked for, whatever it is."""
    return {**choices, asked: asked} if asked and asked not in choices else choices


def _given(params: Mapping[str, Any]) -> dict[str, list[str]]:
    """The fields that are not empty."""
    names = [*JobFilter.model_fields, "after"]
    lists = {
        name: params[name] if isinstance(params[name], list) else [params[name]] for name in names if name in params
    }
    return {name: kept for name, values in lists.items() if (kept := [one for one in values if one.strip()])}


def read(params: Mapping[str, Any], zone: ZoneInfo) -> Asked:
    """What an address asks for; instants without an offset are of ``zone``.

    Raises:
        InvalidRequest, InvalidSettings: it asks for what cannot be.

    >>> asked = read({"status": "failed", "slot_id": "", "since": "2026-11-25T18:00"}, ZoneInfo("Europe/Moscow"))
    >>> asked.as_json
    '{"status":["failed"],"since":"2026-11-25T18:00:00+03:00"}'
    >>> asked.link(status=None, text="IMG 1")
    '/jobs?since=2026-11-25T18%3A00&text=IMG+1'
    """
    given = _given(params)
    values: dict[str, Any] = {name: ones if name in _LISTS else ones[0] for name, ones in given.items()}
    after = values.pop("after", None)
    if any("\0" in one for ones in given.values() for one in ones):
        raise InvalidRequest("The address holds a NUL character")
    for name in _INSTANTS:
        if name in values:
            values[name] = _instant(name, values[name], zone)
    try:
        return Asked({name: ones for name, ones in given.items() if name != "after"}, JobFilter(**values), after)
    except ValidationError as error:
        raise settings.invalid(error) from None


def _instant(name: str, text: str, zone: ZoneInfo) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(f"{name}: {text[:40]!r} is no date and time") from None
    return instant if instant.tzinfo else instant.replace(tzinfo=zone)


class JobPage(Framed):
    """GET: one job."""

    place = "jobs"

    @page("jobs:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, job_id: str) -> None:
        job = await view(self._its, req, job_key(job_id))
        language = language_of(req)
        is_final = job.status in FINAL
        so_far_s = None if is_final else (datetime.now(UTC) - job.created_at).total_seconds()
        spans = segments(job, language, so_far_s)
        self.show(
            req,
            resp,
            "job.html",
            job=job,
            slot_name=(await slots.names(self._its.db)).get(job.slot_id, job.slot_name),
            light=LIGHTS[job.status],
            is_final=is_final,
            so_far_s=so_far_s,
            segments=spans,
            lasted_s=max([one.end_s for one in spans], default=job.timings.budget_s),
            qr=qr_code(job.result_url, say(language, "job.qr_title")) if job.result_url else "",
            log=[(one, *told(job, one, language)) for one in job.log],
            cut_off=CUT_OFF,
            settings_of=functools.partial(settings_of, job),
            why_no_rerun=_why_no_rerun(job),
        )


def segments(job: JobView, language: str, so_far_s: float | None = None) -> list[Segment]:
    """Where a job's seconds went, one after the other; calls of a hedge overlap. ``so_far_s``: how long it runs, which
    is where what has not ended reaches to."""
    times = job.timings
    found: list[Segment] = []
    waited_s = times.queue_wait_s if times.queue_wait_s is not None else so_far_s
    if waited_s is not None:
        found.append(Segment(say(language, "stage.queue"), "queue", 0.0, waited_s))
    for attempt in job.attempts:
        begin = max(0.0, attempt.starts_after_s)
        end = begin + attempt.seconds if attempt.seconds is not None else so_far_s
        if end is not None:
            kind = "provider" if not attempt.cause else "quiet" if attempt.cause in CUT_OFF else "failed"
            made = f"{attempt.provider}/{attempt.operation}"
            label = made_by(language, made, settings_of(job, made))
            found.append(Segment(label, kind, begin, max(begin, end)))
    if times.storage_s is not None and times.total_s is not None:
        label = say(language, "stage.storage")
        found.append(Segment(label, "storage", max(0.0, times.total_s - times.storage_s), times.total_s))
    return found


def settings_of(job: JobView, kind: str | None) -> Mapping[str, Any]:
    """What the job's route had set for the first rung of a ``provider/operation``."""
    rungs = job.route.get("rungs", [])
    return next((one.get("settings", {}) for one in rungs if f"{one['provider']}/{one['operation']}" == kind), {})


def told(job: JobView, entry: LogEntry, language: str) -> tuple[str, str]:
    """A line of the log: what has happened, and what is said beside it."""
    detail = entry.detail or {}
    event = say(language, f"event.{entry.event}")
    if "operation" in detail:
        kind = f"{detail['provider']}/{detail['operation']}"
        return event, made_by(language, kind, settings_of(job, kind))
    if entry.event == JobEvent.PROVIDER_RESPONDED and detail.get("cause") in CUT_OFF:
        return say(language, "event.cut_off"), ""  # nobody has answered
    code = detail.get("cause") or detail.get("code")
    if code and entry.event != JobEvent.CANCELLED:  # that says it all
        return event, say(language, f"failure.{code}")
    return event, say(language, "job.taken_over") if detail.get("claim_no", 1) > 1 else ""


def _why_no_rerun(job: JobView) -> str | None:
    """Why a job cannot be done again; ``None``: it can."""
    if job.status not in FINAL:
        return "running"
    return None if job.has_original else "deleted"
