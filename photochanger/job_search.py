"""Which jobs fit a filter, newest first, however many there are and however few fit.

Slot and time alone walk the job table's own indexes. Any other filter asks ``job_search``, which ``rollups`` writes
when a job is counted: its index is walked once for each kind of job (slot, outcome, providers) that the filter allows,
so that no combination looks at jobs it does not show. The jobs that are not counted yet are looked at one by one.

``text`` finds a job by the begin of its id (six hex digits at least), and by whole words, all of them, of the camera's
fields, the failure's detail and the providers' ids of its calls: ``IMG_0042`` finds ``C:\\photos\\IMG_0042.JPG``,
``IMG_00`` does not. Capitals are alike. A job has 64 words at most, of 64 characters each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from psycopg import AsyncConnection

from photochanger.db import fetch
from photochanger.failures import BY_CODE, InvalidRequest
from photochanger.rollups import GAPS, LONGEST_WORD, words_sql
from photochanger.states import JobStatus

MOST_TEXT = 200
MOST_WORDS = 8
#: Words of more jobs than this share are looked for among the newest, rarer ones by the index of words.
COMMON = 0.02

_ID = re.compile(r"[0-9a-f]{6,32}")
#: Outcomes that are a status; every other one is the code of a failed job.
_STATUSES = [status.value for status in JobStatus if status is not JobStatus.FAILED]
_REASONS = {"timed_out": "sync_timeout", "cancelled": "cancelled"}


class Place(NamedTuple):
    """A job's place in the list; as the last of a page it says where the next one goes on."""

    created_at: datetime
    job_id: UUID


@dataclass(frozen=True)
class Filters:
    """What the jobs must be; see ``job_list.listing``."""

    statuses: tuple[JobStatus, ...] = ()
    failure_reasons: tuple[str, ...] = ()
    slot_id: str | None = None
    provider: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    text: str | None = None
    after: Place | None = None

    def outcomes(self) -> list[str] | None:
        """The outcomes that fit; none: all do.

        >>> Filters(statuses=(JobStatus.TIMED_OUT, JobStatus.SUCCEEDED)).outcomes()
        ['succeeded', 'timed_out']
        >>> Filters(statuses=(JobStatus.FAILED,), failure_reasons=("provider_quota", "sync_timeout")).outcomes()
        ['provider_quota']
        """
        if not self.statuses and not self.failure_reasons:
            return None
        codes = {*BY_CODE, *self.failure_reasons} - {"sync_timeout", "cancelled"}
        return sorted(outcome for outcome in {*codes, *_STATUSES} if self._fits(outcome))

    def _fits(self, outcome: str) -> bool:
        status = JobStatus(outcome) if outcome in _STATUSES else JobStatus.FAILED
        reason = _REASONS.get(outcome, outcome)
        return (not self.statuses or status in self.statuses) and (
            not self.failure_reasons or reason in self.failure_reasons
        )


@dataclass(frozen=True)
class _Text:
    """A text's words, whether they are common, and the ids that begin with it."""

    words: list[str]
    common: bool
    ids: tuple[UUID, UUID] | None


_ASKED = f"""
WITH asked AS (
    SELECT DISTINCT left(word, {LONGEST_WORD}) AS word
    FROM regexp_split_to_table(lower(%(text)s), %(gaps)s) AS word WHERE length(word) > 1 LIMIT {MOST_WORDS}
), known AS (
    SELECT word, share FROM pg_stats, unnest(most_common_elems::text::text[], most_common_elem_freqs) AS e (word, share)
    WHERE schemaname = 'public' AND tablename = 'job_search' AND attname = 'words'
)
SELECT coalesce(array_agg(word), ARRAY[]::text[]) AS words, coalesce(min(coalesce(share, 0)), 0) AS share
FROM asked LEFT JOIN known USING (word)
"""  # noqa: S608 - our own constants
_ORDER = "ORDER BY created_at DESC, {id} DESC LIMIT %(limit)s"
_OF_KIND = """
(%(slot_id)s::text IS NULL OR slot_id = %(slot_id)s)
AND (%(outcomes)s::text[] IS NULL OR outcome = ANY(%(outcomes)s))
AND (%(provider)s::text IS NULL OR %(provider)s = ANY(string_to_array(providers, ',')))
"""
#: Every kind of job there is, found by jumps over the index from one to the next.
_KINDS = f"""
WITH RECURSIVE kinds AS (
    (SELECT slot_id, outcome, providers FROM job_search ORDER BY slot_id, outcome, providers LIMIT 1)
    UNION ALL
    SELECT next.* FROM kinds CROSS JOIN LATERAL (
        SELECT slot_id, outcome, providers FROM job_search AS s
        WHERE (s.slot_id, s.outcome, s.providers) > (kinds.slot_id, kinds.outcome, kinds.providers)
        ORDER BY slot_id, outcome, providers LIMIT 1) AS next
), wanted AS MATERIALIZED (SELECT * FROM kinds WHERE {_OF_KIND})
"""  # noqa: S608 - our own constants
_BY_KIND = """
SELECT found.* FROM wanted CROSS JOIN LATERAL (
    SELECT created_at, job_id AS id FROM job_search AS s
    WHERE s.slot_id = wanted.slot_id AND s.outcome = wanted.outcome AND s.providers = wanted.providers
      AND {within} {words}
    ORDER BY created_at DESC, job_id DESC LIMIT %(limit)s
) AS found
"""
_HAS_WORDS = "words @> %(words)s::text[]"
#: The same where it must not be asked of the index of words, which would list every job that has them.
_HAS_COMMON_WORDS = f"({_HAS_WORDS}) IS TRUE"
#: All jobs that have a rare word, before any other filter.
_BY_WORDS = f"""
SELECT created_at, job_id AS id FROM (
    SELECT created_at, job_id, slot_id, outcome, providers FROM job_search WHERE {_HAS_WORDS} OFFSET 0
) AS found WHERE {_OF_KIND}
"""  # noqa: S608 - our own constants
_BY_ID = f"""
SELECT created_at, job_id AS id FROM (
    SELECT created_at, job_id, slot_id, outcome, providers FROM job_search
    WHERE job_id BETWEEN %(first_id)s AND %(last_id)s OFFSET 0
) AS found WHERE {_OF_KIND}
"""  # noqa: S608 - our own constants
#: Jobs that run, and those that are not counted yet.
_NEW = f"""
SELECT created_at, id FROM (
    SELECT job.created_at, job.id, job.slot_id, called.providers,
           CASE job.status WHEN 'failed' THEN job.failure_reason ELSE job.status::text END AS outcome,
           {words_sql("called.request_ids", "job.failure_detail", "job.fields")} AS words
    FROM (SELECT id FROM job WHERE NOT is_finalized UNION ALL SELECT job_id FROM job_ended) AS new JOIN job USING (id)
    CROSS JOIN LATERAL (
        SELECT string_agg(request_id, ' ') AS request_ids, coalesce(string_agg(provider, ','), '') AS providers
        FROM attempt WHERE attempt.job_id = job.id
    ) AS called
) AS new WHERE {_OF_KIND}
"""  # noqa: S608 - our own constants


async def places(connection: AsyncConnection[Any], filters: Filters, *, limit: int) -> list[Place]:
    """The first ``limit`` jobs that fit, newest first; in one snapshot only if the transaction has one.

    Raises:
        InvalidRequest: a text without a word, or too long; an instant without an offset.
    """
    for instant in (filters.since, filters.until):
        if instant is not None and instant.tzinfo is None:
            raise InvalidRequest("Instants need an offset, as in 2026-11-25T00:00:00+03:00")
    text = await _asked(connection, filters.text) if filters.text is not None else None
    params = {
        "slot_id": filters.slot_id,
        "outcomes": filters.outcomes(),
        "provider": filters.provider,
        "since": filters.since,
        "until": filters.until,
        "at": filters.after.created_at if filters.after else None,
        "id": filters.after.job_id if filters.after else None,
        "words": text.words if text else None,
        "first_id": text.ids[0] if text and text.ids else None,
        "last_id": text.ids[1] if text and text.ids else None,
        "gaps": GAPS,
        "limit": limit,
    }
    rows = await fetch(connection, _sql(filters, text), params)
    return [Place(row["created_at"], row["id"]) for row in rows]


async def _asked(connection: AsyncConnection[Any], text: str) -> _Text:
    if len(text) > MOST_TEXT or "\0" in text:
        raise InvalidRequest(f"text must be words of at most {MOST_TEXT} characters in all")
    row = (await fetch(connection, _ASKED, {"text": text, "gaps": GAPS}))[0]
    ids = ids_of(text)
    if not row["words"] and ids is None:
        raise InvalidRequest("text must hold a word of at least two characters")
    return _Text(row["words"], row["share"] > COMMON, ids)


def ids_of(text: str) -> tuple[UUID, UUID] | None:
    """The first and the last id that begins with ``text``.

    >>> ids_of("4F1a22")
    (UUID('4f1a2200-0000-0000-0000-000000000000'), UUID('4f1a22ff-ffff-ffff-ffff-ffffffffffff'))
    >>> ids_of("wedding") is ids_of("4f1a") is None
    True
    """
    digits = text.strip().lower().replace("-", "")
    if not _ID.fullmatch(digits):
        return None
    return UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))


def _sql(filters: Filters, text: _Text | None) -> str:
    if text is None and not _asks_kind(filters):
        slot = "AND slot_id = %(slot_id)s" if filters.slot_id is not None else ""
        within = _within(filters, "id")
        return f"SELECT created_at, id FROM job WHERE {within} {slot} {_ORDER.format(id='id')}"  # noqa: S608
    counted = [_counted(filters, text)] if text is None or text.words else []
    if text is not None and text.ids:
        counted.append(_page(_BY_ID, filters, "job_id"))
    new = _page(_NEW + _new_words(text), filters, "id")
    return f"{_KINDS} SELECT * FROM ({_union([*counted, new])}) AS found {_ORDER.format(id='id')}"  # noqa: S608


def _asks_kind(filters: Filters) -> bool:
    return filters.outcomes() is not None or filters.provider is not None


def _counted(filters: Filters, text: _Text | None) -> str:
    if text is None or (text.common and (_asks_kind(filters) or filters.slot_id is not None)):
        words = f"AND {_HAS_COMMON_WORDS}" if text else ""
        return _BY_KIND.format(within=_within(filters, "job_id"), words=words)
    if text.common:
        return _page(f"SELECT created_at, job_id AS id FROM job_search WHERE {_HAS_COMMON_WORDS}", filters, "job_id")  # noqa: S608
    return _page(_BY_WORDS, filters, "job_id")


def _new_words(text: _Text | None) -> str:
    if text is None:
        return ""
    found = [_HAS_WORDS] if text.words else []
    if text.ids:
        found.append("id BETWEEN %(first_id)s AND %(last_id)s")
    return f" AND ({' OR '.join(found)})"


def _page(sql: str, filters: Filters, job_id: str) -> str:
    return f"{sql} AND {_within(filters, job_id)} {_ORDER.format(id=job_id)}"


def _union(parts: Iterable[str]) -> str:
    return " UNION ".join(f"({part})" for part in parts)


def _within(filters: Filters, job_id: str) -> str:
    """The page's bounds as an index can be walked by."""
    bounds = ["true"]
    if filters.since is not None:
        bounds.append("created_at >= %(since)s")
    if filters.until is not None:
        bounds.append("created_at < %(until)s")
    if filters.after is not None:
        bounds.append(f"(created_at, {job_id}) < (%(at)s, %(id)s)")
    return " AND ".join(bounds)
