"""Keys derived from the master keys by purpose, and the signed tokens of links.

A token is ``<key id>.<expiry, base 36 seconds>.<signature>``: 160 bits of HMAC-SHA256 over purpose, subject and
expiry. It is as good as the key that made it: the first master key signs, every listed one is believed.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from photochanger.config import Config, ConfigError
from photochanger.storage.local import fsync

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_SIGNATURE_BYTES = 20


@dataclass
class MasterKeys:
    """Master keys by id, newest first; never in the database or a backup.

    ``file``: where they were read from, if anywhere; another process may add one there.
    """

    keys: dict[str, bytes] = field(repr=False)
    file: Path | None = field(default=None, compare=False)
    _seen: tuple[int, int] | None = field(default=None, compare=False, repr=False)

    @property
    def newest(self) -> str:
        """The id of the key that signs and seals."""
        return next(iter(self.keys))

    def derived(self, purpose: str, key_id: str) -> bytes | None:
        """The 256-bit key for ``purpose`` under one master key (HKDF-Expand, RFC 5869, one block); ``None`` when
        there is no such master key."""
        if key_id not in self.keys and self.file is not None:
            with contextlib.suppress(ConfigError, OSError):  # then what is known stays
                now = self.file.stat()
                if self._seen != (now.st_mtime_ns, now.st_ino):  # a guessed id does not cost a read each
                    self.keys = _read(self.file)
                    self._seen = (now.st_mtime_ns, now.st_ino)
        master = self.keys.get(key_id)
        return hmac.digest(master, purpose.encode() + b"\x01", "sha256") if master is not None else None


def master_keys(config: Config) -> MasterKeys:
    """The keys in ``PHOTOCHANGER_MASTER_KEY`` or in ``master.key`` under the home; made at first use.

    Each is ``id:base64 of 32 bytes``, one a line (or comma separated), newest first.

    Raises:
        ConfigError: a line is malformed, or the file can be read by others.
    """
    if config.master_key is not None:
        return MasterKeys(_parse(config.master_key.get_secret_value(), "PHOTOCHANGER_MASTER_KEY"))
    path = _file(config)
    config.home.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    else:
        with os.fdopen(descriptor, "w") as file:
            file.write(_line("k1"))
    return MasterKeys(_read(path), path)


def add_master_key(config: Config) -> MasterKeys:
    """Puts a new key before those in ``master.key``; the older ones stay, for what they have signed and sealed. Call it
    inside ``rotating``.

    Raises:
        ConfigError: the keys come from the environment, where we cannot add one.
    """
    if config.master_key is not None:
        raise ConfigError("PHOTOCHANGER_MASTER_KEY is set: put a new key before the others there, and restart")
    path = _file(config)
    known = master_keys(config).keys
    number = 1 + max((int(key_id[1:]) for key_id in known if re.fullmatch(r"k[0-9]{1,9}", key_id)), default=0)
    whole = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(_line(f"k{number}") + path.read_text())
        file.flush()
        os.fsync(file.fileno())
    os.replace(whole, path)
    fsync(path.parent)  # before anything is sealed under the new key
    return master_keys(config)


@contextlib.contextmanager
def rotating(config: Config) -> Iterator[None]:
    """One rotation at a time in a home: two at once would each lose the other's key.

    Raises:
        ConfigError: another one runs.
    """
    with (config.home / "master.key.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError("another rotation runs; wait for its end") from None
        yield


def _file(config: Config) -> Path:
    return config.home / "master.key"


def _line(key_id: str) -> str:
    return f"{key_id}:{base64.b64encode(secrets.token_bytes(32)).decode()}\n"


def _read(path: Path) -> dict[str, bytes]:
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"{path} can be read by other users; run: chmod 600 {path}")
    return _parse(path.read_text(), str(path))


def _parse(text: str, source: str) -> dict[str, bytes]:
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
    return keys


class Links:
    """Signs and checks the tokens of one purpose (``result``, ``status``, ``cancel`` …)."""

    def __init__(self, keys: MasterKeys, purpose: str) -> None:
        self._keys = keys
        self._purpose = f"link:{purpose}"

    def token(self, subject: str, expires_at: datetime) -> str:
        key_id = self._keys.newest
        key = self._keys.derived(self._purpose, key_id)
        assert key is not None
        expiry = _base36(int(expires_at.timestamp()))
        return f"{key_id}.{expiry}.{_sign(key, subject, expiry)}"

    def expiry(self, subject: str, token: str) -> datetime | None:
        """When a genuine token's subject expires; ``None`` for a guessed, foreign or damaged one."""
        key_id, _, rest = token.partition(".")
        expiry, _, signature = rest.partition(".")
        key = self._keys.derived(self._purpose, key_id)
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
