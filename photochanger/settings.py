"""What an administrator can set while the server runs: names, defaults, bounds; one row each in ``app_settings``."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import urlsplit

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from photochanger import audit, providers, zones
from photochanger.config import http_address
from photochanger.db import Database, fetch
from photochanger.failures import FieldError, InvalidSettings, Unavailable
from photochanger.storage.local import LocalStorage

T = TypeVar("T")

#: Seconds a process may act on settings and slots it read before; a change is everywhere within two.
FRESH_S = 1.0
HOUR_S = 3600
#: Settings that no command and no API shows or changes as they stand.
SERVERS_OWN = ("ingest_passwords", "media_marker", "master_key_checks")
#: Seconds a request waits for a fresh value where there is an older one. It may ask for four of them, and for a
#: connection in vain (``db.POOL_TIMEOUT_S``): a 503 comes within two seconds in all.
PATIENCE_S = 0.1


class PasswordHash(BaseModel):
    """One valid ingest password (argon2id); the replaced one stays valid until ``valid_until``."""

    hash: str
    valid_until: datetime | None = None


def whole_url(value: str) -> str:
    """A server's address on the internet, with nothing behind the host.

    Raises:
        ValueError: it is none.
    """
    try:
        address = http_address(value)
    except ValueError:
        address = ""
    if not address or urlsplit(address).path:
        raise ValueError("It must be like https://photos.example.com, with nothing behind the host")
    return address


class Settings(BaseModel):
    """Durations carry their unit in the name. A job keeps those it was made with.

    What is refused when it is saved counts as not set where an earlier version took it."""

    model_config = ConfigDict(extra="ignore")

    t_sync_response_s: Annotated[float, Field(ge=10, le=60)] = 48
    t_result_retention_h: Annotated[float, Field(ge=24, le=720)] = 72
    t_original_retention_h: Annotated[float, Field(ge=0, le=720)] = 0
    t_job_history_d: Annotated[int, Field(ge=1, le=3650)] = 365
    t_audit_d: Annotated[int, Field(ge=30, le=3650)] = 730
    max_upload_bytes: Annotated[int, Field(ge=64 * 1024, le=1024**3)] = 50 * 1024**2
    max_pixels: Annotated[int, Field(ge=1_000_000, le=1_000_000_000)] = 110_000_000
    #: Bytes of the media root's disk that photos leave free: with less, they are refused before anything is paid.
    disk_reserve_bytes: Annotated[int, Field(ge=0, le=10**18)] = 512 * 1024**2
    #: Photos a minute: over all slots, to any one slot, from any one address. None: as many as come.
    ingest_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    ingest_per_minute_slot: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    ingest_per_minute_address: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    #: Requests of the admin API a minute: of everybody, from any one address.
    api_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    api_per_minute_address: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    #: What guests may ask of open galleries a minute, from any one address.
    gallery_per_minute_address: Annotated[int, Field(ge=1, le=1_000_000)] | None = 600
    #: Where a day begins, for calls and budgets of a day: an IANA name like Europe/Moscow.
    time_zone: str = "UTC"
    #: What costs, prices and budgets are counted in (ISO 4217), and what a US dollar is worth in it: some providers'
    #: prices are dollars.
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "USD"
    usd_rate: Annotated[float, Field(gt=0, le=1_000_000)] = 1.0
    #: A backup every night, at this hour in ``time_zone``: with the guests' pictures, and so many are kept.
    backup_nightly: bool = True
    backup_hour: Annotated[int, Field(ge=0, le=23)] = 5
    backup_keep: Annotated[int, Field(ge=1, le=365)] = 7
    backup_results: bool = True
    plain_links: bool = False
    public_base_url: str | None = None
    #: ``host:port`` pairs that results may be downloaded from although they are not on the public internet, and that
    #: providers may be reached at by plain http.
    allowed_private_hosts: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,253}:[0-9]{1,5}$")]] = []
    #: What is set about providers themselves, by provider; what is silent keeps the driver's default.
    providers: dict[str, dict[str, Any]] = {}
    ingest_passwords: list[PasswordHash] = []
    media_marker: str | None = None
    master_key_checks: dict[str, str] = {}

    @field_validator("public_base_url")
    @classmethod
    def _whole_url(cls, value: str | None, info: ValidationInfo) -> str | None:
        try:
            return whole_url(value) if value else None
        except ValueError:
            if _is_saved(info):
                raise
            return None

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, value: str, info: ValidationInfo) -> str:
        if value in zones.names():
            return value
        if _is_saved(info):
            raise ValueError("This is not a time zone; write one like Europe/Moscow")
        return "UTC"

    @field_validator("providers")
    @classmethod
    def _known(cls, value: dict[str, dict[str, Any]], info: ValidationInfo) -> dict[str, dict[str, Any]]:
        """Checked when they are saved, and only then: those of another version must not stop everything else."""
        if not {"providers", "allowed_private_hosts"} & set(info.context or ()):
            return value
        hosts = info.data.get("allowed_private_hosts", [])
        known = providers.registry()
        for name, given in value.items():
            if name not in known:
                raise ValueError(f"{name!r} is not a provider; choose one of: {', '.join(known)}")
            try:
                known[name].options.model_validate(given, context=hosts)
            except ValidationError as error:
                raise ValueError(invalid(error, at=name).detail) from None
        return value


def _is_saved(info: ValidationInfo) -> bool:
    """Whether this field is being saved now, and not only read."""
    return info.field_name in (info.context or ())


async def load(db: Database) -> Settings:
    """The settings now, defaults where nothing was saved; without ingest passwords whose grace has ended."""
    async with db.connection() as connection:
        return await read(connection)


async def read(connection: AsyncConnection[Any]) -> Settings:
    """``load``, within somebody's transaction."""
    rows = await fetch(connection, "SELECT key, value, clock_timestamp() AS now FROM app_settings")
    loaded = Settings.model_validate({row["key"]: row["value"] for row in rows})
    valid = [one for one in loaded.ingest_passwords if one.valid_until is None or one.valid_until > rows[0]["now"]]
    return loaded.model_copy(update={"ingest_passwords": valid})


async def save(db: Database, changes: dict[str, Any], *, actor: str | None = None) -> Settings:
    """Saves what is given and nothing else; ``actor``: whose deed the audit remembers.

    Raises:
        InvalidSettings: a name is unknown or a value out of bounds; nothing was saved.
    """
    async with db.transaction() as connection:
        await locked(connection)
        saved = await write(connection, changes)
        if actor is not None:
            values = saved.model_dump(mode="json")
            shown = {name: values[name] for name in changes if name not in SERVERS_OWN}
            await audit.record(connection, actor=actor, action="settings.changed", target="settings", detail=shown)
    return saved


async def save_provider(db: Database, name: str, options: dict[str, Any], *, actor: str) -> Settings:
    """Saves one provider's options, whatever is set about the others.

    Raises:
        InvalidSettings: they are not this provider's; nothing was saved.
    """
    async with db.transaction() as connection:
        current = await locked(connection)
        try:
            providers.registry()[name].options.model_validate(options, context=current.allowed_private_hosts)
        except ValidationError as error:
            raise invalid(error, at="options") from None
        saved = await write(connection, {"providers": {**current.providers, name: options}})
        detail = {"options": options}
        await audit.record(connection, actor=actor, action="provider.changed", target=f"provider/{name}", detail=detail)
    return saved


async def locked(connection: AsyncConnection[Any]) -> Settings:
    """The settings, which nobody else changes before the transaction's end."""
    await connection.execute(b"LOCK app_settings IN SHARE ROW EXCLUSIVE MODE")
    return await read(connection)


async def write(connection: AsyncConnection[Any], changes: dict[str, Any]) -> Settings:
    """``save``, within somebody's transaction that has them ``locked``."""
    unknown = sorted(set(changes) - set(Settings.model_fields))
    if unknown:
        raise InvalidSettings(
            f"{unknown[0]} is not a setting",
            errors=[FieldError(name, "unknown", "This is not a setting") for name in unknown],
        )
    rows = await fetch(connection, "SELECT key, value FROM app_settings")
    try:
        whole = {**{row["key"]: row["value"] for row in rows}, **changes}
        merged = Settings.model_validate(whole, context=changes)
    except ValidationError as error:
        raise invalid(error) from None
    values = merged.model_dump(mode="json")
    for key in changes:
        await connection.execute(
            b"INSERT INTO app_settings (key, value) VALUES (%s, %s) "
            b"ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value, updated_at = clock_timestamp()",
            (key, Jsonb(values[key])),
        )
    if "providers" in changes:
        await connection.execute(b"DELETE FROM breaker")  # what has opened one may have been put right
        await set_lanes(connection)
    return merged


async def set_lanes(connection: AsyncConnection[Any]) -> None:
    """Makes the queue's lanes: those of the providers that some slot asks first, as wide as their settings say."""
    # One after the other: what others have saved is read only once they are done.
    await connection.execute(b"LOCK dramatiq.lane IN SHARE ROW EXCLUSIVE MODE")
    current = await read(connection)
    rows = await fetch(connection, "SELECT DISTINCT route #>> '{rungs,0,provider}' AS name FROM slot")
    asked = {row["name"] for row in rows}
    widths = {}
    for name, provider in providers.registry().items():
        with contextlib.suppress(ValidationError):  # those of another version say so when they are used
            options = provider.options.model_validate(current.providers.get(name, {}))
            widths[name] = getattr(options, "max_concurrent", None)
    narrow = [(name, width) for name, width in widths.items() if width is not None and name in asked]
    await connection.execute(b"DELETE FROM dramatiq.lane")
    async with connection.cursor() as cursor:
        await cursor.executemany(b"INSERT INTO dramatiq.lane (name, width) VALUES (%s, %s)", narrow)


async def wrong_media_root(db: Database, storage: LocalStorage) -> str | None:
    """Why this process must not use its media root: it is not the one the database's files lie in, or its disk is not
    there. While the database is away there is nothing to compare with, and nothing that could go wrong."""
    try:
        known = (await load(db)).media_marker
        if known is None or known == await asyncio.to_thread(storage.marker):
            await asyncio.to_thread(storage.prepare)
            return None
    except Unavailable:
        return None
    return f"{storage.name} is not where the pictures of this database lie"


def invalid(error: ValidationError, *, at: str = "") -> InvalidSettings:
    """A Pydantic error in the words and shape of our own."""
    errors = [
        FieldError(
            ".".join(filter(None, (at, *(str(part) for part in one["loc"])))),
            one["type"],
            one["msg"].removeprefix("Value error, "),
        )
        for one in error.errors()
    ]
    return InvalidSettings(": ".join(filter(None, (errors[0].field, errors[0].message))), errors=errors)


class Fresh(Generic[T]):
    """A value read again when it is older than ``FRESH_S``; one read at a time, whose outcome is everybody's who asked
    meanwhile. While the database is away or slow the last one serves on: what needs the database itself says so,
    once. Nobody cuts a read short: psycopg would first ask the server for as long as ten seconds."""

    def __init__(self, read: Callable[[], Awaitable[T]]) -> None:
        self._read = read
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._value: T

    async def get(self) -> T:
        if time.monotonic() - self._read_at > FRESH_S:
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._refresh())
            if hasattr(self, "_value"):
                await asyncio.wait({self._reading}, timeout=PATIENCE_S)
                if not self._reading.done():
                    self._read_at = time.monotonic()  # the others need not wait, too
            else:
                await asyncio.shield(self._reading)  # who hangs up ends it for nobody else
        return self._value

    async def _refresh(self) -> None:
        try:
            self._value = await self._read()
        except Unavailable:
            if not hasattr(self, "_value"):
                raise
        self._read_at = time.monotonic()
