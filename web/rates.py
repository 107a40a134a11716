"""Requests a minute: taken before a request is looked at, and told of in its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import falcon.asgi

from photochanger import limits
from photochanger.db import Database
from photochanger.failures import RateLimited
from photochanger.limits import Exhausted, Limit, Standing

WINDOW_S = 60


async def take(db: Database, resp: falcon.asgi.Response, most: Mapping[str, int | None], *, what: str) -> None:
    """Counts one of ``what`` (in words, many) against every limit that is set: ``most`` of them a minute, by key, whose
    second part says of whom they are.

    Raises:
        RateLimited: one of them is used up.
    """
    wanted = [Limit(key, number, "minute") for key, number in most.items() if number is not None]
    if not wanted:
        return
    try:
        grant = await limits.acquire(db, wanted)
    except Exhausted as short:
        _tell(resp, short.standings)
        whose = short.limit.key.split("/")[1]
        raise RateLimited(
            f"More than {short.limit.most:g} {what} a minute have come {_WHOSE.get(whose, f'to this {whose}')}",
            retry_after_s=short.retry_after_s,
        ) from None
    _tell(resp, grant.standings)


_WHOSE = {"address": "from this address"}


def _tell(resp: falcon.asgi.Response, standings: Sequence[Standing]) -> None:
    """How the limits stand, in ``RateLimit-Policy`` and ``RateLimit`` (draft-ietf-httpapi-ratelimit-headers)."""
    policies, left = [], []
    for one in standings:
        name = one.limit.key.split("/")[1]
        policies.append(f'"{name}";q={one.limit.most:.0f};w={WINDOW_S}')
        left.append(f'"{name}";r={int(one.left)};t={int(one.more_in_s) + 1}')
    resp.set_header("RateLimit-Policy", ", ".join(policies))
    resp.set_header("RateLimit", ", ".join(left))
