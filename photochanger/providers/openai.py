"""OpenAI's image edits, and every gateway that speaks the same API under another base URL.

Contract, limits and what was not verified: ``spec/contracts/providers/openai.md``.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import httpx
from pydantic import BaseModel, ConfigDict, Field

from photochanger.failures import (
    InvalidSettings,
    ProviderAuth,
    ProviderBadOutput,
    ProviderError,
    ProviderQuota,
    ProviderRefused,
)
from photochanger.providers import (
    Access,
    BaseUrl,
    CallOptions,
    Operation,
    Options,
    Picture,
    Price,
    Provider,
    Request,
    SentPictureSettings,
    TemplateId,
    finished,
    saved,
)
from photochanger.providers.wire import client, json_object, retry_after_s, tried, unreached

_INPUT = frozenset({"image/jpeg", "image/png", "image/webp"})
MAX_INPUT_BYTES = 50_000_000
#: A request takes 16 pictures; one is the photo.
MAX_TEMPLATES = 15


class OpenAIModel(BaseModel):
    """One model: the sizes it takes, how long it takes, what it costs. ``usd_per_million_*``: per million tokens."""

    model_config = ConfigDict(extra="forbid")
    sizes: list[str] = ["auto", "1024x1024", "1536x1024", "1024x1536"]
    usual_s: Annotated[float, Field(gt=0)] = 40
    usd_per_million_input: Price = 0
    usd_per_million_output: Price = 0


_MODELS: dict[str, OpenAIModel] = {
    "gpt-image-1-mini": OpenAIModel(usual_s=20, usd_per_million_input=2.5, usd_per_million_output=8),
    "gpt-image-1.5": OpenAIModel(usd_per_million_input=8, usd_per_million_output=32),
    "gpt-image-2": OpenAIModel(
        sizes=["auto", "1024x1024", "1536x1024", "1024x1536", "2048x2048"],
        usual_s=50,
        usd_per_million_input=8,
        usd_per_million_output=32,
    ),
}


class OpenAIOptions(CallOptions):
    """The provider's own settings. ``models`` is the catalogue; sizes, times and prices as they were seen in November
    2026 and not verified by a paid call: put right here what has changed. A gateway's models are added here."""

    base_url: BaseUrl = "https://api.openai.com/v1"
    models: dict[str, OpenAIModel] = _MODELS


class OpenAIImageEditSettings(SentPictureSettings):
    """Settings of ``image_edit``."""

    model: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}$")] = Field(
        "gpt-image-1-mini", title="Model"
    )
    prompt: Annotated[str, Field(min_length=1, max_length=32_000)] = Field(title="Prompt")
    templates: Annotated[list[TemplateId], Field(max_length=MAX_TEMPLATES)] = Field([], title="Reference pictures")
    size: str | None = Field(None, title="Picture size", description="Empty: the model decides.")
    quality: Literal["low", "medium", "high", "auto"] = Field("auto", title="Quality")
    compression: Annotated[int, Field(ge=0, le=100)] | None = Field(
        None, title="Compression", description="Of the picture as it comes from the provider, JPEG and WebP only."
    )


class OpenAI(Provider):
    """``image_edit``."""

    name = "openai"
    title: Mapping[str, str] = {"en": "OpenAI", "ru": "OpenAI"}
    options: type[Options] = OpenAIOptions
    usual_s = 20.0
    operations: Mapping[str, Operation] = {
        "image_edit": Operation(
            "image_edit",
            {"en": "Edit", "ru": "Правка"},
            OpenAIImageEditSettings,
            _INPUT,
            max_input_bytes=MAX_INPUT_BYTES,
        )
    }

    def __init__(self) -> None:
        self._http: httpx.AsyncClient | None = None

    def models(self, options: OpenAIOptions) -> Sequence[str]:
        return list(options.models)

    def usual_for(self, settings: Mapping[str, Any], options: OpenAIOptions) -> float:
        model = options.models.get(settings["model"])
        return model.usual_s if model else self.usual_s

    def refusals(self, settings: Mapping[str, Any], options: OpenAIOptions) -> Sequence[tuple[str, str]]:
        model = options.models.get(settings["model"])
        if model is None:
            return [("model", f"This is not in the catalogue; choose one of: {', '.join(options.models)}")]
        if settings.get("size") and settings["size"] not in model.sizes:
            return [("size", f"{settings['model']} takes one of: {', '.join(model.sizes)}")]
        if settings.get("compression") is not None and settings["output"] == "image/png":
            return [("compression", "It goes with JPEG and WebP only")]
        return []

    async def transform(self, request: Request, budget_s: float) -> Picture:
        files = [("image[]", ("photo.jpg", await _bytes(request.sent_photo), "image/jpeg"))]
        for number, template in enumerate(request.templates.get("templates", ()), 1):
            extension = template.mime.removeprefix("image/")
            files.append(("image[]", (f"template-{number}.{extension}", await _bytes(template.path), template.mime)))
        if self._http is None:
            self._http = client()
        try:
            response = await self._http.post(
                f"{request.access.options.base_url}/images/edits",
                data=_fields(request.settings),
                files=files,
                headers={"Authorization": f"Bearer {request.access.key}"},
            )
        except httpx.HTTPError as error:
            raise unreached("OpenAI", error) from error
        request_id = response.headers.get("x-request-id")
        answer = json_object(response.content)
        if response.status_code != 200:
            raise _failure(response, answer or {}, request_id)
        if answer is None:
            raise ProviderBadOutput("OpenAI answered with something that is not its JSON", request_id=request_id)
        model = request.access.options.models.get(request.settings["model"]) or OpenAIModel()
        cost = _cost_usd(answer, model) * request.access.usd_rate
        said = {"model": request.settings["model"], "request_id": request_id, "cost": cost}
        return await finished(request, await saved(request, await asyncio.to_thread(_picture, answer, said)), **said)

    async def check(self, access: Access) -> None:
        headers = {"Authorization": f"Bearer {access.key}"}
        response = await tried("OpenAI", "GET", f"{access.options.base_url}/models", headers)
        if response.status_code != 200:
            request_id = response.headers.get("x-request-id")
            raise _failure(response, json_object(response.content) or {}, request_id)

    async def close(self) -> None:
        if self._http is not None:
            await self._http.aclose()
            self._http = None


async def _bytes(path: Any) -> bytes:
    data: bytes = await asyncio.to_thread(path.read_bytes)
    if len(data) >= MAX_INPUT_BYTES:
        raise InvalidSettings(f"OpenAI takes pictures under {MAX_INPUT_BYTES // 10**6} MB; send them smaller")
    return data


def _fields(settings: Mapping[str, Any]) -> dict[str, str]:
    form = settings["output"].removeprefix("image/")
    fields = {
        "model": settings["model"],
        "prompt": settings["prompt"],
        "n": "1",
        "quality": settings["quality"],
        "output_format": form,
    }
    if settings.get("size"):
        fields["size"] = settings["size"]
    if settings.get("compression") is not None and form != "png":
        fields["output_compression"] = str(settings["compression"])
    return fields


def _picture(answer: Mapping[str, Any], said: Mapping[str, Any]) -> bytes:
    data = answer.get("data")
    first = data[0] if isinstance(data, list) and data and isinstance(data[0], dict) else {}
    encoded = first.get("b64_json")
    if not encoded:
        raise ProviderRefused("OpenAI answered without a picture", **said)  # its other way to refuse one
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise ProviderBadOutput("OpenAI's picture is not base64", **said) from None


def _cost_usd(answer: Mapping[str, Any], model: OpenAIModel) -> float:
    usage = answer.get("usage")
    tokens = usage if isinstance(usage, dict) else {}
    read, written = (tokens.get(name) or 0 for name in ("input_tokens", "output_tokens"))
    if not isinstance(read, int) or not isinstance(written, int):
        return 0.0
    return (read * model.usd_per_million_input + written * model.usd_per_million_output) / 1e6


def _failure(response: httpx.Response, answer: Mapping[str, Any], request_id: str | None) -> Exception:
    """An error's status and code as ours."""
    error = answer.get("error")
    error = error if isinstance(error, dict) else {}
    code = str(error.get("code") or error.get("type") or "")
    words = f"{response.status_code} {code}: {error.get('message') or ''!s}".strip(": ")
    facts: dict[str, Any] = {"finish_reason": code or None, "request_id": request_id}
    if code in ("moderation_blocked", "content_policy_violation"):
        return ProviderRefused(f"OpenAI refused the photo or the prompt: {words}", **facts)
    if code in ("insufficient_quota", "billing_hard_limit_reached"):
        return ProviderQuota(f"OpenAI's quota is used up: {words}", **facts)
    if response.status_code in (401, 403):
        return ProviderAuth(f"OpenAI does not accept the key: {words}", **facts)
    if response.status_code == 429:
        hint = retry_after_s(response.headers)
        return ProviderQuota(f"OpenAI takes no more calls just now: {words}", retry_after_s=hint, **facts)
    if response.status_code in (400, 404, 413, 415, 422):
        field = f" ({error['param']})" if error.get("param") else ""
        return InvalidSettings(f"OpenAI does not accept these settings{field}: {words} (request {request_id})")
    return ProviderError(f"OpenAI failed: {words}", **facts)
