"""The provider port: what every driver offers, what it is given, what it gives back.

A driver is one file. It sees ``failures``, ``images`` and its own HTTP library; what it needs of the rest of the
system comes with the request. Foreign exceptions are translated to ``ProviderFailure`` at one seam per driver.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel


@dataclass(frozen=True)
class Operation:
    """Something a provider can do to a photo.

    ``settings`` is the Pydantic model of its settings; its JSON Schema validates slots and draws the form.
    """

    id: str
    name: Mapping[str, str]
    settings: type[BaseModel]
    input_mime: frozenset[str]
    max_input_bytes: int | None = None
    needs_public_url: bool = False

    def json_schema(self) -> dict[str, Any]:
        return self.settings.model_json_schema()


class RunGuarded(Protocol):
    """Runs a picklable function in a guarded image process (``image_pool.py``)."""

    def __call__(self, work: Callable[..., Any], /, *args: Any) -> Awaitable[Any]: ...


@dataclass(frozen=True)
class Request:
    """One photo to transform.

    ``photo`` is the file as it was uploaded (untrusted: decode it only through ``run_guarded``); ``result`` is where
    the picture is to be written, on the store's own file system; ``templates`` are files by setting name.
    """

    operation: str
    settings: Mapping[str, Any]
    photo: Path
    photo_mime: str
    max_pixels: int
    result: Path
    run_guarded: RunGuarded
    templates: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Picture:
    """A picture a provider made: its file, MIME type, size in pixels and bytes, SHA-256 in hex.

    ``ours``: written by our own encoder from decoded pixels; anything else is decoded and encoded again before a
    guest sees it.
    """

    path: Path
    mime: str
    width: int
    height: int
    bytes: int
    sha256: str
    ours: bool
    model: str | None = None
    request_id: str | None = None
    finish_reason: str | None = None
    cost: float = 0.0


class Provider(Protocol):
    """A driver."""

    name: str
    operations: Mapping[str, Operation]
    #: Seconds a call usually takes, until recent attempts have been measured.
    usual_s: float

    async def transform(self, request: Request, budget_s: float) -> Picture:
        """Does ``request.operation`` within ``budget_s`` seconds; cancellable at any await.

        Raises:
            ProviderFailure: with a stable code, retry hint and words an operator understands.
            InvalidImage: the photo cannot be decoded.
        """
        ...


def registry() -> Mapping[str, Provider]:
    """Every driver by name. A driver's SDK is imported at its first call, not here."""
    from photochanger.providers.local import Local

    return {provider.name: provider for provider in (Local(),)}
