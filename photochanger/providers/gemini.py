"""Google's Gemini image models, through google-genai: one picture made from a photo, templates and a prompt.

Contract, limits and what was not verified: ``spec/contracts/providers/gemini.md``. The SDK is imported in a thread
at the first call (1.4 s, 34 MB): a worker that never meets Gemini never pays for it.
"""

from __future__ import annotations

import asyncio
import importlib
import math
import os
import re
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
from pydantic import BaseModel, ConfigDict, Field

from photochanger.failures import (
    Concern,
    InvalidSettings,
    ProviderAuth,
    ProviderBadOutput,
    ProviderError,
    ProviderFailure,
    ProviderNoImage,
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
from photochanger.providers.wire import Bounded, json_object, tried, unreached

#: What the models read, as Google's image understanding page lists it.
_INPUT = frozenset({"image/jpeg", "image/png", "image/webp", "image/heic", "image/heif"})
#: The server refuses deadlines under 10 s; with less left, the call is cut on this side.
MIN_SERVER_TIMEOUT_S = 10
FILE_POLL_S = 0.5
#: Seconds to delete an uploaded file when the call has ended anyhow; Google deletes it after 48 h by itself.
DELETE_S = 5.0
_SQUARE = ("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9")
_CATEGORIES = ("HARASSMENT", "HATE_SPEECH", "SEXUALLY_EXPLICIT", "DANGEROUS_CONTENT")

_REFUSED = {
    "SAFETY": "the safety filter",
    "PROHIBITED_CONTENT": "the rules on prohibited content",
    "SPII": "the filter for personal data",
    "RECITATION": "the filter for copied works",
    "BLOCKLIST": "a list of blocked words",
    "IMAGE_SAFETY": "the safety filter for pictures",
    "IMAGE_PROHIBITED_CONTENT": "the rules on prohibited pictures",
    "IMAGE_RECITATION": "the filter for copied pictures",
    "JAILBREAK": "the filter for attempts to get around its rules",
    "MODEL_ARMOR": "the filter Model Armor",
    "ESCALATION": "an escalation rule",
    "OTHER": "a filter it does not name",
}


class GeminiModel(BaseModel):
    """One model: what it can be told, how long it takes, what it costs. ``usd_per_million_*``: per million tokens."""

    model_config = ConfigDict(extra="forbid")
    image_sizes: list[str] = []
    aspect_ratios: list[str] = list(_SQUARE)
    usual_s: Annotated[float, Field(gt=0)] = 15
    usd_per_million_input: Price = 0
    usd_per_million_output: Price = 0
    #: Said when a slot is saved with it.
    retiring: bool = False


_MODELS: dict[str, GeminiModel] = {
    "gemini-3.1-flash-lite-image": GeminiModel(
        image_sizes=["1K"], usual_s=8, usd_per_million_input=0.25, usd_per_million_output=30
    ),
    "gemini-nano-banana-2.1": GeminiModel(
        image_sizes=["1K", "2K", "4K"], usual_s=20, usd_per_million_input=0.5, usd_per_million_output=60
    ),
    "gemini-3-pro-image": GeminiModel(
        image_sizes=["1K", "2K", "4K"], usual_s=25, usd_per_million_input=2, usd_per_million_output=120
    ),
    "gemini-3.1-flash-image": GeminiModel(
        image_sizes=["1K", "2K", "4K"], usd_per_million_input=0.5, usd_per_million_output=60, retiring=True
    ),
    "gemini-2.5-flash-image": GeminiModel(
        usual_s=10, usd_per_million_input=0.3, usd_per_million_output=30, retiring=True
    ),
}


class GeminiOptions(CallOptions):
    """The provider's own settings. ``models`` is the catalogue; names, sizes, times and prices are Google's, as they
    were seen in November 2026 and not verified by a paid call: put right here what has changed."""

    base_url: BaseUrl = "https://generativelanguage.googleapis.com"
    api_version: Annotated[str, Field(pattern=r"^v[0-9][a-z0-9]*$")] = "v1beta"
    #: Pictures of a request above this many bytes in all go by the Files API.
    inline_bytes: Annotated[int, Field(ge=0, le=100 * 1024**2)] = 14 * 1024**2
    models: dict[str, GeminiModel] = _MODELS


class _Settings(SentPictureSettings):
    model: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{2,80}$")] = Field(
        "gemini-3.1-flash-lite-image", title="Model"
    )
    aspect_ratio: str | None = Field(None, title="Aspect ratio", description="Empty: the photo's own.")
    image_size: Literal["1K", "2K", "4K"] | None = Field(
        None, title="Picture size", description="Empty: the model's own, usually 1K."
    )
    safety: Literal["BLOCK_NONE", "BLOCK_ONLY_HIGH", "BLOCK_MEDIUM_AND_ABOVE", "BLOCK_LOW_AND_ABOVE"] | None = Field(
        None, title="Safety filter", description="Empty: Google's own."
    )
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(None, title="Temperature")


_Prompt = Annotated[str, Field(min_length=1, max_length=8000)]


class GeminiStyleTransferSettings(_Settings):
    """Settings of ``style_transfer``."""

    template: TemplateId = Field(title="Style picture")
    prompt: _Prompt = Field("Redraw the first picture in the style of the second.", title="Prompt")


class GeminiImageEditSettings(_Settings):
    """Settings of ``image_edit``."""

    prompt: _Prompt = Field(title="Prompt")
    templates: Annotated[list[TemplateId], Field(max_length=8)] = Field([], title="Reference pictures")


class GeminiIdentityTransferSettings(_Settings):
    """Settings of ``identity_transfer``."""

    template: TemplateId = Field(title="Base picture")
    prompt: _Prompt = Field(
        "Put the face of the person in the first picture on the person in the second picture; change nothing else.",
        title="Prompt",
    )


class Gemini(Provider):
    """``style_transfer``, ``image_edit`` and ``identity_transfer``."""

    name = "gemini"
    title: Mapping[str, str] = {"en": "Gemini", "ru": "Gemini"}
    options: type[Options] = GeminiOptions
    usual_s = 8.0
    operations: Mapping[str, Operation] = {
        operation.id: operation
        for operation in (
            Operation("style_transfer", {"en": "Style", "ru": "Стиль"}, GeminiStyleTransferSettings, _INPUT),
            Operation("image_edit", {"en": "Edit", "ru": "Правка"}, GeminiImageEditSettings, _INPUT),
            Operation("identity_transfer", {"en": "Face", "ru": "Лицо"}, GeminiIdentityTransferSettings, _INPUT),
        )
    }

    def __init__(self) -> None:
        self._open: _Client | None = None
        self._importing = asyncio.Lock()
        #: Deletions of uploads, and closings of replaced clients: neither a guest nor a deadline waits for them.
        self._behind: set[asyncio.Task[None]] = set()

    def models(self, options: GeminiOptions) -> Sequence[str]:
        return list(options.models)

    def usual_for(self, settings: Mapping[str, Any], options: GeminiOptions) -> float:
        model = options.models.get(settings["model"])
        return model.usual_s if model else self.usual_s

    def refusals(self, settings: Mapping[str, Any], options: GeminiOptions) -> Sequence[tuple[str, str]]:
        model = options.models.get(settings["model"])
        if model is None:
            return [("model", f"This is not in the catalogue; choose one of: {', '.join(options.models)}")]
        found = []
        for field, allowed in (("aspect_ratio", model.aspect_ratios), ("image_size", model.image_sizes)):
            value = settings.get(field)
            if value is not None and value not in allowed:
                words = f"takes one of: {', '.join(allowed)}" if allowed else "does not take it: leave it empty"
                found.append((field, f"{settings['model']} {words}"))
        return found

    def concerns(self, settings: Mapping[str, Any], options: GeminiOptions) -> list[Concern]:
        name = settings["model"]
        model = options.models.get(name)
        if model is None or not model.retiring:
            return []
        return [Concern("retiring", f"{name} is about to be retired by Google", {"model": name})]

    async def transform(self, request: Request, budget_s: float) -> Picture:
        photo = request.sent_photo
        pictures = [(photo, "image/jpeg")] + [
            (template.path, template.mime) for group in request.templates.values() for template in group
        ]
        async with self._client(request) as client, self._parts(client, request, pictures) as parts:
            model = request.settings["model"]
            contents, config = [*parts, request.settings["prompt"]], _config(request, budget_s)
            request.begin()
            try:
                answer = await client.aio.models.generate_content(model=model, contents=contents, config=config)
            except Exception as error:
                raise _translated(error) from error
        known = request.access.options.models.get(model) or GeminiModel()
        data, said = _picture(answer, known, model, usd_rate=request.access.usd_rate)
        return await finished(request, await saved(request, data), **said)

    async def check(self, access: Access) -> None:
        url = f"{access.options.base_url}/{access.options.api_version}/models"
        response = await tried("Gemini", "GET", url, {"x-goog-api-key": access.key}, params={"pageSize": "1"})
        if response.status_code != 200:
            error = (json_object(response.content) or {}).get("error")
            said = error if isinstance(error, dict) else {}
            words = str(said.get("message") or ""), _details({"error": said})
            raise _refusal(response.status_code, str(said.get("status") or ""), *words)

    async def close(self) -> None:
        if self._open is not None:
            closing, self._open = self._open, None
            closing.users += 1
            self._release(closing)
        while self._behind:
            await asyncio.wait(self._behind)

    # -- one client a process, as long as key and address stay ------------------------------------------------------

    @asynccontextmanager
    async def _client(self, request: Request) -> AsyncIterator[_Client]:
        options = request.access.options
        wanted = (request.access.key, options.base_url, options.api_version)
        async with self._importing:
            if self._open is None or self._open.made_for != wanted:
                genai = await asyncio.to_thread(importlib.import_module, "google.genai")
                replaced, self._open = self._open, _Client(_connect(genai, wanted), wanted)
                if replaced is not None:
                    replaced.users += 1
                    self._release(replaced)
            ours = self._open
            ours.users += 1
        try:
            yield ours
        finally:
            self._release(ours)

    def _release(self, client: _Client) -> None:
        """One user less; the last one of a replaced client closes it."""
        client.users -= 1
        if client is not self._open and not client.users:
            self._do_behind(client.aio.aclose())

    async def _tidy(self, client: _Client, uploads: Sequence[asyncio.Task[Any]]) -> None:
        try:
            await _delete(client.aio, uploads)
        finally:
            self._release(client)

    def _do_behind(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)

    @asynccontextmanager
    async def _parts(
        self, client: _Client, request: Request, pictures: Sequence[tuple[Path, str]]
    ) -> AsyncIterator[list[Any]]:
        """The pictures as parts of the request: inline, or uploaded for the time of the call."""
        from google.genai import types

        total = sum(path.stat().st_size for path, _ in pictures)
        if total <= request.access.options.inline_bytes:
            yield [
                types.Part.from_bytes(data=await asyncio.to_thread(path.read_bytes), mime_type=mime)
                for path, mime in pictures
            ]
            return
        uploads: list[asyncio.Task[Any]] = []
        try:
            parts = []
            for path, mime in pictures:
                # Shielded: an upload that is cut off between its two ends would leave a file nobody can name.
                uploads.append(asyncio.ensure_future(_upload(client.aio, path, mime)))
                file = await _active(client.aio, await asyncio.shield(uploads[-1]))
                parts.append(types.Part.from_uri(file_uri=file.uri, mime_type=mime))
            yield parts
        finally:
            if uploads:
                client.users += 1
                self._do_behind(self._tidy(client, uploads))


@dataclass
class _Client:
    aio: Any
    made_for: tuple[str, str, str]
    users: int = 0


def _connect(genai: Any, wanted: tuple[str, str, str]) -> Any:
    key, base_url, api_version = wanted
    options = genai.types.HttpOptions(
        base_url=base_url,
        api_version=api_version,
        # Our own transport makes the SDK take httpx, bounds its answers and leaves it nothing to retry.
        async_client_args={"transport": Bounded(), "follow_redirects": False},
    )
    # The environment must not change whom it speaks to, or through what.
    os.environ["GOOGLE_GENAI_HTTP_CLIENT"] = "httpx"
    return genai.Client(vertexai=False, api_key=key, http_options=options).aio


def _config(request: Request, budget_s: float) -> Any:
    from google.genai import types

    settings = request.settings
    image = {name: settings[name] for name in ("aspect_ratio", "image_size") if settings.get(name)}
    safety = settings.get("safety")
    return types.GenerateContentConfig(
        response_modalities=["IMAGE"],
        image_config=types.ImageConfig(**image) if image else None,
        temperature=settings.get("temperature"),
        safety_settings=[
            types.SafetySetting(
                category=types.HarmCategory(f"HARM_CATEGORY_{name}"), threshold=types.HarmBlockThreshold(safety)
            )
            for name in _CATEGORIES
        ]
        if safety
        else None,
        http_options=types.HttpOptions(timeout=max(MIN_SERVER_TIMEOUT_S, math.ceil(budget_s)) * 1000),
    )


# -- the Files API ---------------------------------------------------------------------------------------------------


async def _upload(client: Any, path: Path, mime: str) -> Any:
    from google.genai import types

    try:
        return await client.files.upload(file=str(path), config=types.UploadFileConfig(mime_type=mime))
    except Exception as error:
        raise _translated(error) from error


async def _active(client: Any, file: Any) -> Any:
    """The uploaded file once the server has looked at it."""
    while file.state is not None and file.state.value != "ACTIVE":
        if file.state.value == "FAILED":
            raise ProviderError("Gemini could not read the uploaded picture")
        await asyncio.sleep(FILE_POLL_S)
        try:
            file = await client.files.get(name=file.name)
        except Exception as error:
            raise _translated(error) from error
    return file


async def _delete(client: Any, uploads: Sequence[asyncio.Task[Any]]) -> None:
    """Deletes what was uploaded, whatever became of the call; what cannot be deleted Google drops after 48 h."""
    try:
        async with asyncio.timeout(DELETE_S):
            for upload in uploads:
                file = (await asyncio.gather(upload, return_exceptions=True))[0]
                if not isinstance(file, BaseException):
                    await asyncio.gather(client.files.delete(name=file.name), return_exceptions=True)
    except TimeoutError:
        for upload in uploads:
            upload.cancel()


# -- answers and errors ----------------------------------------------------------------------------------------------


def _picture(answer: Any, model: GeminiModel, asked: str, *, usd_rate: float) -> tuple[bytes, dict[str, Any]]:
    """The picture's bytes, and what was said of it.

    Raises:
        ProviderRefused, ProviderNoImage: there is none.
    """
    candidate = answer.candidates[0] if answer.candidates else None
    reason = _name(candidate.finish_reason) if candidate else None
    said: dict[str, Any] = {
        "model": answer.model_version or asked,
        "request_id": answer.response_id,
        "finish_reason": reason,
        "cost": _cost_usd(answer.usage_metadata, model) * usd_rate,
        "model_retires_at": _retirement(answer),
    }
    parts = (candidate.content.parts or []) if candidate and candidate.content else []
    for part in parts:
        if not part.thought and part.inline_data and part.inline_data.data:
            return part.inline_data.data, said
    feedback = answer.prompt_feedback
    block = _name(feedback.block_reason) if feedback else None
    words = " ".join(part.text for part in parts if part.text and not part.thought)
    why = (candidate.finish_message if candidate else None) or (feedback.block_reason_message if feedback else None)
    raise _without_picture(block, reason, why or words, said)


def _without_picture(block: str | None, reason: str | None, words: str, said: Mapping[str, Any]) -> ProviderFailure:
    facts = {name: said[name] for name in ("model", "request_id", "cost")} | {"finish_reason": block or reason}
    tail = f": {words}" if words else ""
    if block:
        return ProviderRefused(f"Gemini refused the photo or the prompt by {_REFUSED.get(block, block)}{tail}", **facts)
    if reason in _REFUSED and reason != "OTHER":
        return ProviderRefused(f"Gemini refused to finish the picture by {_REFUSED[reason]}{tail}", **facts)
    return ProviderNoImage(f"Gemini answered without a picture ({reason or 'and without a reason'}){tail}", **facts)


def _name(value: Any) -> str | None:
    return str(getattr(value, "value", value)) if value is not None else None


def _retirement(answer: Any) -> datetime | None:
    status = answer.model_status
    return status.retirement_time if status else None


def _cost_usd(usage: Any, model: GeminiModel) -> float:
    if usage is None:
        return 0.0
    read = usage.prompt_token_count or 0
    written = (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)
    return (read * model.usd_per_million_input + written * model.usd_per_million_output) / 1e6


def _translated(error: Exception) -> Exception:
    """The SDK's exceptions as ours: the one seam."""
    from google.genai import errors

    if isinstance(error, httpx.HTTPError):
        return unreached("Gemini", error)
    if isinstance(error, errors.APIError):
        return _refusal(error.code or 0, str(error.status or ""), str(error.message or ""), _details(error.details))
    if isinstance(error, ValueError | KeyError | TypeError | AttributeError):  # it could not read what came
        return ProviderBadOutput(f"Gemini sent an answer that cannot be read: {type(error).__name__}: {error}")
    return error


def _details(body: Any) -> list[dict[str, Any]]:
    error = body.get("error", body) if isinstance(body, dict) else {}
    details = error.get("details", []) if isinstance(error, dict) else []
    return [one for one in details if isinstance(one, dict)] if isinstance(details, list) else []


def _refusal(code: int, status: str, message: str, details: Sequence[Mapping[str, Any]]) -> Exception:
    words = f"{code} {status}: {message}".strip(": ")
    if code == 429:
        return _quota(words, details)
    if code in (401, 403) or (code == 400 and "api key" in message.lower()):
        return ProviderAuth(f"Gemini does not accept the key: {words}", finish_reason=status or None)
    if code in (400, 404):
        return InvalidSettings(f"Gemini does not accept these settings: {words}")
    return ProviderError(f"Gemini failed: {words}", finish_reason=status or None)


def _quota(words: str, details: Sequence[Mapping[str, Any]]) -> ProviderQuota:
    """A minute's quota says when it is free again; a day's, or a limit of nothing, does not come back in time."""
    kinds = {str(one.get("@type", "")).rpartition(".")[2]: one for one in details}
    violations = kinds.get("QuotaFailure", {}).get("violations") or []
    names = [str(one.get("quotaId") or one.get("quotaMetric") or "") for one in violations if isinstance(one, dict)]
    spent = any("PerDay" in name for name in names) or any(
        str(one.get("quotaValue")) == "0" for one in violations if isinstance(one, dict)
    )
    hint = _seconds(kinds.get("RetryInfo", {}).get("retryDelay"))
    named = f" ({', '.join(filter(None, names))})" if any(names) else ""
    return ProviderQuota(
        f"Gemini's quota is used up{named}: {words}",
        retry_after_s=None if spent else hint,
        finish_reason="RESOURCE_EXHAUSTED",
    )


def _seconds(duration: Any) -> float | None:
    """protobuf's JSON form of a duration: ``"23s"``, ``"1.5s"``."""
    match = re.fullmatch(r"([0-9]{1,9}(\.[0-9]{1,9})?)s", str(duration))
    return float(match[1]) if match else None
