"""What the environment says about this process: read once, checked at start.

Everything an administrator changes while the server runs lives in the database instead (``settings.py``).
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import idna
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

PREFIX = "PHOTOCHANGER_"
PROJECT = Path(__file__).resolve().parent.parent


class ConfigError(Exception):
    """A setting in the environment cannot be used; the message is one line for the operator."""


_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:@/\\?#\s]+))(?::([0-9]{0,5}))?")
#: Names as DNS has them (RFC 1123), and the underscores of container networks; the last label is no number.
_NAME = re.compile(r"(?=.{1,253}$)(?:[a-z0-9_-]{1,63}\.)*(?![0-9]+\.?$)[a-z0-9_-]{1,63}\.?")


def authority(given: str) -> str:
    """``host`` or ``host:port`` as it goes into a URL: in lower case, an international name in ASCII (RFC 5891).

    >>> [authority(one) for one in ("Photos.example:8080", "фото.рф", "[::1]:80", "10.0.0.7")]
    ['photos.example:8080', 'xn--n1aalg.xn--p1ai', '[::1]:80', '10.0.0.7']

    Raises:
        ValueError: it is something else, or more.
    """
    match = _AUTHORITY.fullmatch(given)
    if match is None:
        raise ValueError("This is not a host")
    address, name, port = match.groups()
    if address:
        host = f"[{ipaddress.IPv6Address(address)}]"
    else:
        host = name.lower() if name.isascii() else idna.encode(name, uts46=True).decode()
        if not _NAME.fullmatch(host):
            host = str(ipaddress.IPv4Address(host))
    if port and not 1 <= int(port) <= 65535:
        raise ValueError("This is not a port")
    return f"{host}:{port}" if port else host


def http_address(value: str) -> str:
    """An http:// or https:// address without query or slash at its end, its host as ``authority`` gives it.

    Raises:
        ValueError: it is not one; a doubled ``https://https://`` was a real mistake.
    """
    parts = urlsplit(value)
    if "@" in parts.netloc:
        raise ValueError("It must not hold a user or a password: whoever may read the settings would see them")
    try:
        host = authority(parts.netloc)
    except ValueError:
        host = ""
    is_plain = value.isprintable() and " " not in value and "//" not in parts.path
    if not host or not is_plain or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        raise ValueError("It must be an http:// or https:// address")
    return f"{parts.scheme}://{host}{parts.path.rstrip('/')}"


def _check_url(value: str) -> None:
    """
    Raises:
        ValueError: libpq cannot read it.
    """
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        port = conninfo_to_dict(value).get("port", "")
    except ProgrammingError as error:
        raise ValueError(f"It is no address of a database: {str(error).strip()}") from None
    if not all(one.isdigit() for one in str(port).split(",") if one):
        raise ValueError("Its port is not a number")


def api_key(value: str) -> str:
    """A provider's key as it goes into a header, without the line end it was copied with.

    Raises:
        ValueError: it cannot be one.
    """
    key = value.strip()
    if not key.isascii() or not key.isprintable() or " " in key or not 8 <= len(key) <= 4096:
        raise ValueError("It must be 8 to 4096 printable ASCII characters without a space")
    return key


class Config(BaseModel):
    """Process settings. Every field is the environment variable ``PHOTOCHANGER_<FIELD>``; the port is ``PORT``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    port: int = Field(8000, ge=1, le=65535)
    host: str = "0.0.0.0"  # noqa: S104 - cameras and phones reach the booth's machine over its network
    home: Path = PROJECT / ".photochanger"
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    database_url: str | None = None
    media_root: Path | None = None
    #: ``s3://bucket/prefix``: the pictures lie there, and the media root is this machine's alone.
    store_url: str | None = None
    backup_root: Path | None = None
    ingest_password: Annotated[SecretStr, Field(min_length=8)] | None = None
    admin_password: Annotated[SecretStr, Field(min_length=10)] | None = None
    master_key: SecretStr | None = None
    gemini_api_key: SecretStr | None = None
    gemini_base_url: str | None = None
    turbotext_api_key: SecretStr | None = None
    turbotext_base_url: str | None = None
    openai_api_key: SecretStr | None = None
    openai_base_url: str | None = None
    worker_threads: int = Field(32, ge=1, le=512)
    web_connections: int = Field(12, ge=2, le=200)
    worker_connections: int = Field(8, ge=2, le=200)
    image_processes: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1, le=64)
    log_format: Literal["auto", "json", "text"] = "auto"
    log_level: Annotated[str, StringConstraints(pattern="^(DEBUG|INFO|WARNING|ERROR)$")] = "INFO"
    #: Addresses of reverse proxies whose X-Forwarded-For and -Proto are believed, comma separated.
    trusted_proxies: str = ""
    #: Fault tests only: names of places where the process kills itself, comma separated (see ``failpoints.py``).
    failpoint: str = ""
    #: Fault tests only: do not ring NOTIFY; everything still works, at the fallback polls' pace.
    no_notify: bool = False

    @field_validator("database_url")
    @classmethod
    def _postgresql(cls, value: str | None) -> str | None:
        if value and not value.startswith(("postgresql://", "postgres://")):
            raise ValueError("It must be a postgresql:// URL")
        if value:
            _check_url(value)
        return value.replace("postgres://", "postgresql://", 1) if value else None

    @field_validator("store_url")
    @classmethod
    def _s3(cls, value: str | None) -> str | None:
        parts = urlsplit(value or "")
        if value and (parts.scheme != "s3" or not parts.netloc or "@" in parts.netloc or parts.query or parts.fragment):
            raise ValueError("It must be s3://bucket or s3://bucket/prefix")
        return value or None

    @field_validator("gemini_api_key", "turbotext_api_key", "openai_api_key")
    @classmethod
    def _key(cls, value: SecretStr | None) -> SecretStr | None:
        return SecretStr(api_key(value.get_secret_value())) if value else None

    @field_validator("gemini_base_url", "turbotext_base_url", "openai_base_url")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        return http_address(value) if value else None

    @field_validator("home", "media_root", "backup_root", "tls_certificate", "tls_key")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        try:
            return value.expanduser().resolve() if value is not None else None
        except RuntimeError as error:  # ~ of nobody
            raise ValueError(str(error)) from None

    @field_validator("trusted_proxies")
    @classmethod
    def _addresses(cls, value: str) -> str:
        for one in filter(None, (part.strip() for part in value.split(","))):
            if one != "*":
                ipaddress.ip_network(one, strict=False)
        return value

    @model_validator(mode="after")
    def _both(self) -> Config:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("PHOTOCHANGER_TLS_CERTIFICATE and PHOTOCHANGER_TLS_KEY go together: set both, or neither")
        return self

    @property
    def scheme(self) -> str:
        """What the web process speaks itself."""
        return "https" if self.tls_certificate else "http"

    @property
    def media(self) -> Path:
        """The folder all pictures live under; every process of an installation shares it, or has it to itself where
        there is a ``store_url``."""
        return self.media_root or self.home / "media"

    @property
    def backups(self) -> Path:
        """The folder backups are kept in, which is this installation's alone."""
        return self.backup_root or self.home / "backups"

    @property
    def has_own_home(self) -> bool:
        """Whether the home is another than a command without ``PHOTOCHANGER_HOME`` would look for."""
        return bool(self.home != Config.model_fields["home"].default)

    @property
    def run_dir(self) -> Path:
        """State of the running supervisor; empty when nothing runs."""
        return self.home / "run"

    def require_database_url(self) -> str:
        """The database's URL: as set, or of the embedded server that ``photochanger up`` runs for this home.

        Raises:
            ConfigError: neither is there.
        """
        if self.database_url:
            return self.database_url
        try:
            return (self.run_dir / "database_url").read_text().strip()
        except OSError:
            raise ConfigError(
                f"PHOTOCHANGER_DATABASE_URL is not set and no server runs for {self.home} (start it with: make up)"
            ) from None


def load(environ: Mapping[str, str] | None = None) -> Config:
    """The configuration in the environment.

    Raises:
        ConfigError: a value is wrong or a ``PHOTOCHANGER_`` name is unknown.
    """
    environ = os.environ if environ is None else environ
    fields = {("PORT" if field == "port" else PREFIX + field.upper()): field for field in Config.model_fields}
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in fields:
            near = difflib.get_close_matches(name, fields, 1)
            raise ConfigError(f"{name} is not a setting" + (f"; did you mean {near[0]}?" if near else ""))
    given = {field: environ[name] for name, field in fields.items() if environ.get(name)}
    try:
        return Config.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise ConfigError(first["msg"].removeprefix("Value error, ")) from None
        name = next(name for name, field in fields.items() if field == first["loc"][0])
        raise ConfigError(f"{name}: {first['msg'].removeprefix('Value error, ')}") from None


def load_or_exit() -> Config:
    """``load()`` with the database's URL found, or one clear line on stderr and a failed start."""
    try:
        config = load()
        return config.model_copy(update={"database_url": config.require_database_url()})
    except ConfigError as error:
        sys.exit(f"photochanger: {error}")
