"""Which time zones there are: those that Python and PostgreSQL both know, and mean the same by."""

from __future__ import annotations

from functools import cache
from zoneinfo import available_timezones


@cache
def names() -> frozenset[str]:
    """``UTC``, and an area and a place as the IANA has them. Of those without a slash PostgreSQL reads some as fixed
    offsets (``CET`` has no summer there) and does not know others (``localtime``)."""
    return frozenset(name for name in available_timezones() if "/" in name or name == "UTC")
