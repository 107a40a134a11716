"""Access tokens: HS256 JWTs under keys derived from the master keys; the newest signs, every listed one is believed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import jwt

from photochanger.failures import InvalidToken
from photochanger.tokens import MasterKeys

LASTS = timedelta(minutes=15)
ISSUER = "photochanger"
AUDIENCE = "photochanger-api"
TYPE = "access"
PURPOSE = "jwt"
#: Seconds by which the clocks of two machines may differ.
LEEWAY_S = 5
CLAIMS = ("sub", "permissions", "iat", "nbf", "exp", "iss", "aud", "jti", "sid", "typ")
#: Characters; ours have about 600.
_LONGEST = 4096


@dataclass(frozen=True)
class Claims:
    """What a genuine token says: whose it is, and of which session."""

    account: str
    session_id: UUID


def issue(keys: MasterKeys, account: str, permissions: Iterable[str], session_id: UUID, *, now: datetime) -> str:
    """A token for ``account``, good for ``LASTS`` from ``now`` on."""
    key = keys.derived(PURPOSE, keys.newest)
    assert key is not None
    claims = {
        "sub": account,
        "permissions": sorted(permissions),
        "iat": now,
        "nbf": now,
        "exp": now + LASTS,
        "iss": ISSUER,
        "aud": AUDIENCE,
        "jti": uuid4().hex,
        "sid": str(session_id),
        "typ": TYPE,
    }
    return jwt.encode(claims, key, algorithm="HS256", headers={"kid": keys.newest})


def read(keys: MasterKeys, token: str) -> Claims:
    """What ``token`` says.

    Raises:
        InvalidToken: it is not ours, not an access token, damaged, expired, or not valid yet.
    """
    try:
        claims = _decoded(keys, token)
        if claims["typ"] != TYPE:
            raise InvalidToken()
        return Claims(claims["sub"], UUID(claims["sid"]))
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError, RecursionError):
        raise InvalidToken() from None


def _decoded(keys: MasterKeys, token: str) -> dict[str, Any]:
    if len(token) > _LONGEST:
        raise InvalidToken()
    key_id = jwt.get_unverified_header(token).get("kid")
    key = keys.derived(PURPOSE, key_id) if isinstance(key_id, str) else None
    if key is None:
        raise InvalidToken()
    claims: dict[str, Any] = jwt.decode(
        token,
        key,
        algorithms=["HS256"],
        issuer=ISSUER,
        audience=AUDIENCE,
        leeway=LEEWAY_S,
        options={"require": list(CLAIMS), "strict_aud": True},
    )
    return claims
