"""Keys derived from the master keys by purpose, and the signed tokens of links.

A token is ``<key id>.<expiry, base 36 seconds>.<signature>``: 160 bits of HMAC-SHA256 over purpose, subject and
expiry. It is as good as the key that made it: the first master key signs, every listed one is believed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from photochanger.config import Config, ConfigError

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_SIGNATURE_BYTES = 20


@dataclass(frozen=True)
class MasterKeys:
    """Master keys by id, newest first; never in the database or a backup."""

    keys: dict[str, bytes]

    def derived(self, purpose: str) -> dict[str, bytes]:
        """One 256-bit key per master key for ``purpose`` (HKDF-Expand, RFC 5869, one block)."""
        return {
            key_id: hmac.digest(master, purpose.encode() + b"\x01", "sha256") for key_id, master in self.keys.items()
        }


def master_keys(config: Config) -> MasterKeys:
    """The keys in ``PHOTOCHANGER_MASTER_KEY`` or in ``master.key`` under the home; made at first use.

    Each is ``id:base64 of 32 bytes``, one a line (or comma separated), newest first.

    Raises:
        ConfigError: a line is malformed, or the file can be read by others.
    """
    if config.master_key is not None:
        return _parse(config.master_key.get_secret_value(), "PHOTOCHANGER_MASTER_KEY")
    path = config.home / "master.key"
    config.home.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    else:
        with os.fdopen(descriptor, "w") as file:
            file.write(f"k1:{base64.b64encode(secrets.token_bytes(32)).decode()}\n")
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"{path} can be read by other users; run: chmod 600 {path}")
    return _parse(path.read_text(), str(path))


def _parse(text: str, source: str) -> MasterKeys:
    keys: dict[str, bytes] = {}
    for line in filter(None, (part.strip() for part in text.replace(",", "\n").splitlines())):
        key_id, _, encoded = line.partition(":")
        try:
            key = base64.b64decode(encoded, validate=True)
        except ValueError:
            key = b""
        if not key_id.isalnum() or len(key) != 32:
            raise ConfigError(f"{source}: each key must be id:base64 of 32 bytes")
        keys[key_id] = key
    if not keys:
        raise ConfigError(f"{source}: holds no key")
    return MasterKeys(keys)


class Links:
    """Signs and checks the tokens of one purpose (``result``, ``status``, ``cancel`` …)."""

    def __init__(self, keys: MasterKeys, purpose: str) -> None:
        self._keys = keys.derived(f"link:{purpose}")

    def token(self, subject: str, expires_at: datetime) -> str:
        key_id, key = next(iter(self._keys.items()))
        expiry = _base36(int(expires_at.timestamp()))
        return f"{key_id}.{expiry}.{_sign(key, subject, expiry)}"

    def expiry(self, subject: str, token: str) -> datetime | None:
        """When a genuine token's subject expires; ``None`` for a guessed, foreign or damaged one."""
        key_id, _, rest = token.partition(".")
        expiry, _, signature = rest.partition(".")
        key = self._keys.get(key_id)
        if key is None or not hmac.compare_digest(_sign(key, subject, expiry).encode(), signature.encode()):
            return None
        return datetime.fromtimestamp(int(expiry, 36), UTC)


def _sign(key: bytes, subject: str, expiry: str) -> str:
    digest = hmac.digest(key, f"{subject}\n{expiry}".encode("utf-8", "replace"), hashlib.sha256)
    return base64.urlsafe_b64encode(digest[:_SIGNATURE_BYTES]).rstrip(b"=").decode()


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits or "0"
