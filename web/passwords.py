"""Checks the ingest password without blocking the loop, hashing once, and slowing those who guess.

A verified password is remembered as an HMAC under a key of this process, so that argon2's 150 ms are not paid for
every photo. Guessing is throttled by *distinct* wrong passwords per address and slot: one misconfigured camera that
sends the same wrong one for ever does not lock a booth out.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from collections import OrderedDict

from photochanger import accounts, network
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
        #: Passwords being hashed, by their digests; those of them that count as guesses, by address and slot.
        self._hashing: dict[bytes, asyncio.Future[str | None]] = {}
        self._checking: dict[tuple[str, str], dict[bytes, asyncio.Future[str | None]]] = {}

    async def check(self, password: str, valid: list[PasswordHash], *, address: str, slot_id: str) -> None:
        """Returns when ``password`` is one of ``valid``.

        Raises:
            InvalidPassword: it is not.
            RateLimited: it is not remembered as right, and this address guessed too often.
        """
        address = network.subscriber(address)
        hashes = [one.hash for one in valid]
        digest = hmac.digest(self._key, "\0".join([password, *hashes]).encode("utf-8", "replace"), "sha256")
        if self._verified.get(digest) in hashes:
            return
        wrong = self._recent(address, slot_id)
        if digest not in wrong:
            if await self._matches(digest, password, hashes, wrong, self._checking.setdefault((address, slot_id), {})):
                return
            wrong[digest] = time.monotonic()
        raise InvalidPassword()

    async def _matches(
        self,
        digest: bytes,
        password: str,
        hashes: list[str],
        wrong: dict[bytes, float],
        checking: dict[bytes, asyncio.Future[str | None]],
    ) -> bool:
        """Whether one of ``hashes`` is the password's. The same password is hashed once, however many photos bring
        it at the same time, from wherever; different ones being hashed count as guesses already.

        Raises:
            RateLimited: too many different ones.
        """
        if digest not in checking:
            if len(wrong) + len(checking) >= DISTINCT_WRONG:
                oldest = min(wrong.values(), default=time.monotonic())
                raise RateLimited(
                    "Too many different wrong passwords from this address",
                    retry_after_s=max(1.0, oldest + WINDOW_S - time.monotonic()),
                )
            if digest not in self._hashing:
                self._hashing[digest] = asyncio.ensure_future(_matching(password, hashes))
                self._hashing[digest].add_done_callback(lambda _: self._hashing.pop(digest, None))
            checking[digest] = self._hashing[digest]
            checking[digest].add_done_callback(lambda _: checking.pop(digest, None))
        matched = await asyncio.shield(checking[digest])
        if matched is None:
            return False
        self._verified = {digest: matched, **dict(list(self._verified.items())[:9])}
        return True

    def _recent(self, address: str, slot_id: str) -> dict[bytes, float]:
        since = time.monotonic() - WINDOW_S
        key = (address, slot_id)
        wrong = self._wrong.setdefault(key, {})
        self._wrong.move_to_end(key)
        for digest in [digest for digest, at in wrong.items() if at <= since]:
            del wrong[digest]
        while len(self._wrong) > ADDRESSES:
            forgotten, _ = self._wrong.popitem(last=False)
            self._checking.pop(forgotten, None)
        return wrong


async def _matching(password: str, hashes: list[str]) -> str | None:
    for hashed in hashes:
        if await accounts.verify(password, hashed):
            return hashed
    return None
