"""The provider port: what every driver offers, what it is given, what it gives back.

A driver is one file. It sees ``failures``, ``images`` and its own HTTP library; what it needs of the rest of the
system comes with the request. Foreign exceptions are translated to ``ProviderFailure`` at one seam per driver.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo

from photochanger import images
from photochanger.config import http_address
from photochanger.failures import Concern, ImageTooLarge, InvalidImage, ProviderBadOutput, UnsupportedMediaType

#: What our own encoder writes for a guest.
Output = Literal["image/jpeg", "image/png", "image/webp"]
_UUID = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
#: A template's id in an operation's settings; forms draw a picker for it.
TemplateId = Annotated[str, Field(pattern=_UUID, json_schema_extra={"format": "template"})]
#: An amount of money, in the currency the provider bills in.
Price = Annotated[float, Field(ge=0, le=1e9)]


def _fit_for_a_key(address: str, info: ValidationInfo) -> str:
    """An address that a provider's key may be sent to: nobody reads along there. Looked at when it is saved, in the
    context of the ``host:port`` pairs that the administrator has named."""
    if info.context is None:
        return address
    parts = urlsplit(address)
    place = f"{parts.hostname}:{parts.port or 80}"
    is_here = parts.hostname == "localhost"
    with contextlib.suppress(ValueError):  # it is a name
        is_here = is_here or ipaddress.ip_address(parts.hostname or "").is_loopback
    if parts.scheme == "https" or is_here or place in info.context:
        return address
    raise ValueError(f"It must be https, since the key is sent there; or name {place} in allowed_private_hosts")


BaseUrl = Annotated[str, AfterValidator(http_address), AfterValidator(_fit_for_a_key)]


class Options(BaseModel):
    """What an administrator may set about a provider itself, for all slots: data that changes without a release."""

    model_config = ConfigDict(extra="forbid")


class CallOptions(Options):
    """Of a provider that is called over the network: how much it may be asked, over all processes, and what that
    costs. ``prices``: what one call of an operation costs, where the provider does not say it itself; taken from a
    slot's budget before the call."""

    max_concurrent: Annotated[int, Field(ge=1, le=1000)] | None = 16
    calls_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    calls_per_day: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    prices: dict[str, Price] = {}


class OperationSettings(BaseModel):
    """What every operation lets a slot choose."""

    model_config = ConfigDict(extra="forbid")
    output: Output = Field("image/jpeg", title="File type", description="The type of the picture the camera gets back.")


class SentPictureSettings(OperationSettings):
    """What every operation lets a slot choose that sends the photo away."""

    send_edge: Annotated[int, Field(ge=512, le=8192)] | None = Field(
        2048,
        title="Longest edge sent",
        description="The photo is made this small, in pixels, before it is sent: a smaller upload, the same result. "
        "Empty: sent in its own size.",
    )


@dataclass(frozen=True)
class Operation:
    """Something a provider can do to a photo.

    ``settings`` is the Pydantic model of its settings; its JSON Schema validates slots and draws the form.
    ``input_mime``, ``max_input_bytes``: what the provider itself takes. Photos of other types, and all that are sent
    away, are turned into JPEG first.
    """

    id: str
    name: Mapping[str, str]
    settings: type[BaseModel]
    input_mime: frozenset[str]
    max_input_bytes: int | None = None
    needs_public_url: bool = False

    def json_schema(self, models: Sequence[str] = ()) -> dict[str, Any]:
        """The form's schema; ``models`` are what the field ``model`` offers, from the provider's options."""
        schema = self.settings.model_json_schema()
        if models and "model" in schema["properties"]:
            schema["properties"]["model"]["examples"] = list(models)
        return schema


class RunGuarded(Protocol):
    """Runs a picklable function in a guarded image process (``image_pool.py``)."""

    def __call__(self, work: Callable[..., Any], /, *args: Any) -> Awaitable[Any]: ...


class Remember(Protocol):
    """Saves the provider's own id of a paid call and what it costs; ``None``: it is worth nothing any more."""

    def __call__(self, reference: str | None, *, cost: float = 0.0) -> Awaitable[None]: ...


@dataclass(frozen=True)
class Access:
    """How the provider is reached: read anew for every call."""

    key: str = field(repr=False)
    options: Any
    public_base_url: str | None = None
    #: What a US dollar is worth in the currency that costs are counted in.
    usd_rate: float = 1.0
    #: ``host:port`` pairs that downloads may reach although they are not on the public internet.
    private_hosts: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Template:
    """A template picture's file and MIME type; made by our own encoder when it was stored."""

    path: Path
    mime: str


@dataclass(frozen=True)
class Request:
    """One photo to transform.

    ``photo`` is the file as it was uploaded (untrusted: decode it only through ``run_guarded``), ``came_on`` the day on
    which it came, by the studio's clock, ``sent_photo`` what an operation with the setting ``send_edge`` sends away;
    ``result`` is where the picture is to be written, on the store's own file system; ``scratch`` names a fresh
    temporary file there, deleted after the call. ``templates`` are pictures by the setting that names them.

    ``publish`` gives a scratch file of a MIME type a temporary public URL. ``remember`` saves the provider's own id
    of what it is being paid for, and the price; after a crash, or in another try, it comes back as ``reference`` until
    ``None`` is saved. ``begin`` is called before the request that costs money, where others went before it: past the
    job's deadline it raises.
    """

    operation: str
    settings: Mapping[str, Any]
    photo: Path
    came_on: date
    max_pixels: int
    result: Path
    run_guarded: RunGuarded
    access: Access
    scratch: Callable[[], Path]
    publish: Callable[[Path, str], Awaitable[str]]
    remember: Remember
    reference: str | None = None
    templates: Mapping[str, Sequence[Template]] = field(default_factory=dict)
    sent: Path | None = None
    begin: Callable[[], None] = lambda: None

    @property
    def sent_photo(self) -> Path:
        """The photo as it may leave this machine: upright, stripped, scaled to ``send_edge``, a JPEG."""
        assert self.sent is not None, f"{self.operation} has no setting send_edge"
        return self.sent


@dataclass(frozen=True)
class Picture:
    """A picture for the guest, written by our own encoder from decoded pixels: its file, MIME type, size in pixels
    and bytes, SHA-256 in hex; and what the provider said of it. ``cost``: in the currency that the settings name."""

    path: Path
    mime: str
    width: int
    height: int
    bytes: int
    sha256: str
    model: str | None = None
    request_id: str | None = None
    finish_reason: str | None = None
    cost: float = 0.0
    model_retires_at: datetime | None = None


class Provider(Protocol):
    """A driver. It derives from this, and says only what it does otherwise."""

    name: str
    #: What people call it, by language.
    title: Mapping[str, str]
    operations: Mapping[str, Operation]
    options: type[Options] = Options
    needs_key: bool = True
    #: Seconds a call usually takes, until recent attempts have been measured.
    usual_s: float

    def models(self, options: Any) -> Sequence[str]:
        """The models an operation can be set to; empty where there is no choice."""
        return ()

    def usual_for(self, settings: Mapping[str, Any], options: Any) -> float:
        """Seconds a call with these settings usually takes."""
        return self.usual_s

    def refusals(self, settings: Mapping[str, Any], options: Any) -> Sequence[tuple[str, str]]:
        """Why these settings cannot work, beyond what their schema says: the field, and words."""
        return ()

    def concerns(self, settings: Mapping[str, Any], options: Any) -> Sequence[Concern]:
        """What an administrator should know about settings that work."""
        return ()

    async def transform(self, request: Request, budget_s: float) -> Picture:
        """Does ``request.operation`` within ``budget_s`` seconds; cancellable at any await.

        Raises:
            ProviderFailure: with a stable code, retry hint and words an operator understands.
            InvalidImage: the photo cannot be decoded.
        """
        ...

    async def check(self, access: Access) -> None:
        """Tries key and address with a call that costs nothing.

        Raises:
            ProviderFailure: they are not right; in an operator's words.
        """
        return None

    async def close(self) -> None:
        """Closes what is kept open between calls."""
        return None


@functools.cache
def registry() -> Mapping[str, Provider]:
    """Every driver by name, one of each a process. A driver's SDK is imported at its first call, not here."""
    from photochanger.providers.gemini import Gemini
    from photochanger.providers.local import Local
    from photochanger.providers.openai import OpenAI
    from photochanger.providers.turbotext import Turbotext

    return {provider.name: provider for provider in (Local(), Gemini(), Turbotext(), OpenAI())}


# -- what drivers share ----------------------------------------------------------------------------------------------


async def finished(request: Request, raw: Path, **said: Any) -> Picture:
    """A provider's picture, decoded whole and written by our own encoder in the type the slot asks for; ``said``:
    what the provider told of it, as ``Picture`` has it.

    Raises:
        ProviderBadOutput: it is not a usable picture.
    """
    output = request.settings["output"]
    try:
        made = await request.run_guarded(images.rewrite, raw, request.result, output, request.max_pixels)
    except (InvalidImage, UnsupportedMediaType, ImageTooLarge) as error:
        raise ProviderBadOutput(
            f"The provider's picture cannot be used: {error.detail}",
            finish_reason=said.get("finish_reason"),
            request_id=said.get("request_id"),
            cost=said.get("cost", 0.0),
        ) from None
    width, height, size, sha256 = made
    return Picture(request.result, output, width, height, size, sha256, **said)


async def saved(request: Request, data: bytes) -> Path:
    """``data`` in a scratch file."""
    raw = request.scratch()
    await asyncio.to_thread(raw.write_bytes, data)
    return raw
