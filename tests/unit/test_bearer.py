"""Access tokens: what is believed, and everything that is not."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from photochanger import bearer
from photochanger.failures import InvalidToken
from photochanger.tokens import MasterKeys

OLD, NEW = MasterKeys({"k1": b"o" * 32}), MasterKeys({"k2": b"n" * 32, "k1": b"o" * 32})
SESSION = UUID("7b0c3d1e-58f4-4a86-9e3b-0f3f3c1f8a11")


def issued(keys: MasterKeys = OLD, *, ago: timedelta = timedelta(0)) -> str:
    return bearer.issue(keys, "anna", ["slots:read"], SESSION, now=datetime.now(UTC) - ago)


def forged(
    *, key: bytes | None = None, kid: object = "k1", algorithm: str = "HS256", without: str = "", **changes: Any
) -> str:
    """A token with some claims changed, or one taken out; signed with the right key unless another is given."""
    claims = {**jwt.decode(issued(), options={"verify_signature": False}), **changes}
    claims.pop(without, None)
    right = OLD.derived(bearer.PURPOSE, "k1")
    assert right is not None
    headers = {"kid": kid} if kid is not ... else {}
    signing: Any = None if algorithm == "none" else key or right
    return jwt.encode(claims, signing, algorithm=algorithm, headers=headers)


def now(**ahead: float) -> datetime:
    return datetime.now(UTC) + timedelta(**ahead)


def altered(change: Callable[[dict[str, Any]], dict[str, Any]]) -> str:
    """A genuine token whose claims were changed behind its signature's back."""
    head, payload, signature = issued().split(".")
    claims = change(json.loads(base64.urlsafe_b64decode(payload + "==")))
    return f"{head}.{base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b'=').decode()}.{signature}"


def test_a_genuine_token_says_whose_it_is() -> None:
    assert bearer.read(OLD, issued()) == bearer.Claims("anna", SESSION)


def test_its_claims_are_those_that_are_promised() -> None:
    claims = jwt.decode(issued(), options={"verify_signature": False})
    assert set(claims) == set(bearer.CLAIMS)
    assert claims["exp"] - claims["iat"] == 900


def test_the_newest_key_signs_and_every_key_is_believed() -> None:
    assert jwt.get_unverified_header(issued(NEW))["kid"] == "k2"
    assert bearer.read(NEW, issued(OLD)).account == "anna"
    with pytest.raises(InvalidToken):
        bearer.read(OLD, issued(NEW))


def test_no_two_tokens_are_the_same() -> None:
    assert issued() != issued()


def test_clocks_may_differ_by_a_little() -> None:
    assert bearer.read(OLD, issued(ago=bearer.LASTS + timedelta(seconds=2))).account == "anna"
    assert bearer.read(OLD, issued(ago=-timedelta(seconds=2))).account == "anna"


def test_a_token_forged_with_the_right_key_and_claims_would_be_believed() -> None:
    assert bearer.read(OLD, forged()).account == "anna"


REFUSED: dict[str, Callable[[], str]] = {
    "no algorithm": lambda: forged(algorithm="none"),
    "another algorithm": lambda: forged(algorithm="HS512", key=b"k" * 64),
    "the key of another purpose": lambda: forged(key=OLD.derived("link:result", "k1")),
    "the master key itself": lambda: forged(key=b"o" * 32),
    "an unknown key": lambda: forged(kid="k9"),
    "no key named": lambda: forged(kid=...),
    "another audience": lambda: forged(aud="another"),
    "several audiences": lambda: forged(aud=[bearer.AUDIENCE, "another"]),
    "another issuer": lambda: forged(iss="another"),
    "another type": lambda: forged(typ="refresh"),
    "expired": lambda: forged(exp=now(seconds=-10)),
    "not valid yet": lambda: forged(nbf=now(seconds=60)),
    "issued in the future": lambda: forged(iat=now(seconds=60)),
    "no session": lambda: forged(sid="nonsense"),
    "a session that is no text": lambda: forged(sid=7),
    "tampered with": lambda: altered(lambda claims: {**claims, "sub": "admin"}),
    "cut off": lambda: issued()[:-1],
    "endless": lambda: issued() + "x" * 10_000,
    "empty": lambda: "",
    **{f"without {name}": functools.partial(forged, without=name) for name in bearer.CLAIMS},
}


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED.keys())
def test_it_is_refused_in_the_same_words(make: Callable[[], str]) -> None:
    with pytest.raises(InvalidToken) as refused:
        bearer.read(OLD, make())
    assert refused.value.detail == InvalidToken.title()


@pytest.mark.parametrize("kid", [7, None, ["k1"], {"a": 1}, "../k1", "k1\0"])
def test_a_key_id_that_is_none_is_refused(kid: object) -> None:
    head = {"alg": "HS256", "typ": "JWT", "kid": kid}
    _, rest = issued().split(".", 1)
    token = f"{base64.urlsafe_b64encode(json.dumps(head).encode()).rstrip(b'=').decode()}.{rest}"
    with pytest.raises(InvalidToken):
        bearer.read(OLD, token)


@given(st.text(max_size=200))
def test_no_text_is_taken_for_a_token(text: str) -> None:
    with pytest.raises(InvalidToken):
        bearer.read(OLD, text)
