"""What the environment says about this process: read once, checked at start.

Everything an administrator changes while the server runs lives in the database instead (``settings.py``).
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, ValidationError, field_validator

PREFIX = "PHOTOCHANGER_"
PROJECT = Path(__file__).resolve().parent.parent


class ConfigError(Exception):
    """A setting in the environment cannot be used; the message is one line for the operator."""


def http_address(value: str) -> str:
    """An http:// or https:// address without query or slash at its end.

    Raises:
        ValueError: it is not one; a doubled ``https://https://`` was a real mistake.
    """
    parts = urlsplit(value)
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or "//" in parts.path
        or parts.query
        or parts.fragment
    ):
        raise ValueError("must be an http:// or https:// address")
    if parts.port == 0:  # reading it raises ValueError for one that is no port
        raise ValueError("port 0 is nowhere")
    return value.rstrip("/")


def api_key(value: str) -> str:
    """A provider's key as it goes into a header, without the line end it was copied with.

    Raises:
        ValueError: it cannot be one.
    """
    key = value.strip()
    if not key.isascii() or not key.isprintable() or " " in key or not 8 <= len(key) <= 4096:
        raise ValueError("must be 8 to 4096 printable ASCII characters without a space")
    return key


class Config(BaseModel):
    """Process settings. Every field is the environment variable ``PHOTOCHANGER_<FIELD>``; the port is ``PORT``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    port: int = Field(8000, ge=1, le=65535)
    host: str = "0.0.0.0"  # noqa: S104 - cameras and phones reach the booth's machine over its network
    home: Path = PROJECT / ".photochanger"
    database_url: str | None = None
    media_root: Path | None = None
    ingest_password: Annotated[SecretStr, Field(min_length=8)] | None = None
    admin_password: Annotated[SecretStr, Field(min_length=8)] | None = None
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
            raise ValueError("must be a postgresql:// URL")
        return value.replace("postgres://", "postgresql://", 1) if value else None

    @field_validator("gemini_api_key", "turbotext_api_key", "openai_api_key")
    @classmethod
    def _key(cls, value: SecretStr | None) -> SecretStr | None:
        return SecretStr(api_key(value.get_secret_value())) if value else None

    @field_validator("gemini_base_url", "turbotext_base_url", "openai_base_url")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        return http_address(value) if value else None

    @field_validator("home", "media_root")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return value.expanduser().resolve() if value is not None else None

    @property
    def media(self) -> Path:
        """The folder all pictures live under; every process of an installation shares it."""
        return self.media_root or self.home / "media"

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
        name = next(name for name, field in fields.items() if field == first["loc"][0])
        raise ConfigError(f"{name}: {first['msg'].removeprefix('Value error, ')}") from None


def load_or_exit() -> Config:
    """``load()`` with the database's URL found, or one clear line on stderr and a failed start."""
    try:
        config = load()
        return config.model_copy(update={"database_url": config.require_database_url()})
    except ConfigError as error:
        sys.exit(f"photochanger: {error}")
