"""Checks the ingest password without blocking the loop, hashing once, and slowing those who guess.

A verified password is remembered as an HMAC under a key of this process, so that argon2's 150 ms are not paid for
every photo. Guessing is throttled by *distinct* wrong passwords per address and slot: one misconfigured camera that
sends the same wrong one for ever does not lock a booth out.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections import OrderedDict

from photochanger import accounts
from photochanger.failures import InvalidPassword, RateLimited
from photochanger.settings import PasswordHash

WINDOW_S = 60.0
DISTINCT_WRONG = 10
#: Addresses remembered at once; the oldest is forgotten first.
ADDRESSES = 10_000


class IngestPassword:
    """One per web process."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._verified: dict[bytes, str] = {}
        self._wrong: OrderedDict[tuple[str, str], dict[bytes, float]] = OrderedDict()

    async def check(self, password: str, valid: list[PasswordHash], *, address: str, slot_id: str) -> None:
        """Returns when ``password`` is one of ``valid``.

        Raises:
            InvalidPassword: it is not.
            RateLimited: it is not remembered as right, and this address guessed too often.
        """
        hashes = [one.hash for one in valid]
        digest = hmac.digest(self._key, "\0".join([password, *hashes]).encode("utf-8", "replace"), "sha256")
        if self._verified.get(digest) in hashes:
            return
        wrong = self._recent(address, slot_id)
        if digest not in wrong:
            if len(wrong) >= DISTINCT_WRONG:
                oldest = min(wrong.values())
                raise RateLimited(
                    "Too many different wrong passwords from this address",
                    retry_after_s=max(1.0, oldest + WINDOW_S - time.monotonic()),
                )
            wrong[digest] = time.monotonic()  # before the hash is known, so that guesses side by side count too
            for hashed in hashes:
                if await accounts.verify(password, hashed):
                    wrong.pop(digest, None)
                    self._verified = {digest: hashed, **dict(list(self._verified.items())[:9])}
                    return
        raise InvalidPassword()

    def _recent(self, address: str, slot_id: str) -> dict[bytes, float]:
        since = time.monotonic() - WINDOW_S
        key = (address, slot_id)
        wrong = self._wrong.setdefault(key, {})
        self._wrong.move_to_end(key)
        for digest in [digest for digest, at in wrong.items() if at <= since]:
            del wrong[digest]
        while len(self._wrong) > ADDRESSES:
            self._wrong.popitem(last=False)
        return wrong
