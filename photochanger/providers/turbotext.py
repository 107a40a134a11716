"""Turbotext: three methods that fetch their pictures from us by URL, work in a queue of their own, and are polled.

Contract, limits and what was not verified: ``spec/contracts/providers/turbotext.md``. Every ``create_queue`` is
billed: its ``queueid`` is remembered before the first poll, so that a worker that takes the job over polls on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import httpx
from pydantic import Field

from photochanger.failures import (
    ProviderAuth,
    ProviderBadOutput,
    ProviderError,
    ProviderFailure,
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
    Provider,
    Request,
    SentPictureSettings,
    TemplateId,
    finished,
)
from photochanger.providers.wire import (
    MAX_TALK_BYTES,
    STALLED,
    TIMEOUT,
    client,
    download,
    json_object,
    retry_after_s,
    tried,
    unreached,
)

_INPUT = frozenset({"image/jpeg", "image/png", "image/webp"})


class TurbotextOptions(CallOptions):
    """The provider's own settings. ``prices``, which Turbotext's price page has in roubles, are to be
    given in the settings' currency."""

    base_url: BaseUrl = "https://www.turbotext.ru/api_ai"
    #: Hosts whose results are downloaded, with their subdomains.
    result_hosts: list[str] = Field(["turbotext.ru"])
    #: Seconds between polls; Turbotext asks for 2 to 3.
    poll_s: Annotated[float, Field(ge=0.05, le=30)] = 2.5
    #: Seconds a call usually takes; not measured, no paid account was at hand.
    usual_s: Annotated[float, Field(gt=0)] = 15


class TurbotextImageEditSettings(SentPictureSettings):
    """Settings of ``image_edit`` (``generate_image2image``)."""

    prompt: Annotated[str, Field(min_length=1, max_length=4000)] = Field(title="Prompt")
    strength: Annotated[int, Field(ge=0, le=80)] = Field(40, title="Strength")
    seed: Annotated[int, Field(ge=1, le=10**10)] | None = Field(None, title="Seed", description="Empty: a new one.")
    scale: Annotated[float, Field(ge=0.1, le=20)] = Field(7.5, title="Scale")
    negative_prompt: Annotated[str, Field(max_length=2000, pattern=r"^\s*(\S+(\s+|$)){0,80}$")] = Field(
        "", title="Negative prompt", description="At most 80 words."
    )
    original_language: Annotated[str, Field(pattern="^[a-z]{2}$")] = Field("ru", title="Language of the prompt")
    user_id: Annotated[int, Field(ge=1, le=2**53)] = Field(1, title="User number")


class TurbotextStyleTransferSettings(SentPictureSettings):
    """Settings of ``style_transfer`` (``mix_images``)."""

    template: TemplateId = Field(title="Style picture")
    prompt: Annotated[str, Field(max_length=4000)] = Field("", title="Prompt")


class TurbotextIdentityTransferSettings(SentPictureSettings):
    """Settings of ``identity_transfer`` (``deepfake_photo``)."""

    template: TemplateId = Field(title="Base picture")
    face_restore: bool = Field(True, title="Restore the face")


class Turbotext(Provider):
    """``image_edit``, ``style_transfer`` and ``identity_transfer``."""

    name = "turbotext"
    title: Mapping[str, str] = {"en": "Turbotext", "ru": "Turbotext"}
    options: type[Options] = TurbotextOptions
    usual_s = 15.0
    operations: Mapping[str, Operation] = {
        operation.id: operation
        for operation in (
            Operation(id, {"en": english, "ru": russian}, settings, _INPUT, needs_public_url=True)
            for id, english, russian, settings in (
                ("image_edit", "Edit", "Правка", TurbotextImageEditSettings),
                ("style_transfer", "Style", "Стиль", TurbotextStyleTransferSettings),
                ("identity_transfer", "Face", "Лицо", TurbotextIdentityTransferSettings),
            )
        )
    }

    def __init__(self) -> None:
        self._http: httpx.AsyncClient | None = None

    def usual_for(self, settings: Mapping[str, Any], options: TurbotextOptions) -> float:
        return options.usual_s

    async def transform(self, request: Request, budget_s: float) -> Picture:
        until = asyncio.get_running_loop().time() + budget_s
        method = _METHODS[request.operation]
        queue_id = request.reference or await self._create(request, method)
        try:
            address = await self._result(request, method, queue_id, until)
            raw = request.scratch()
            try:
                await self._fetch(request, address, raw, until)
                return await finished(request, raw, request_id=queue_id, model=method)
            except ProviderBadOutput:
                await request.remember(None)  # fetching it again would give the same
                raise
        except ProviderFailure as failure:
            failure.request_id, failure.model = queue_id, method
            raise

    async def close(self) -> None:
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    async def _create(self, request: Request, method: str) -> str:
        photo_url = await request.publish(request.sent_photo, "image/jpeg")
        fields = await _fields(request, photo_url)
        answer = await self._ask(request, method, {"do": "create_queue", **fields})
        queue_id = answer.get("queueid")
        if answer.get("success") is not True or not isinstance(queue_id, int | str) or not str(queue_id):
            raise _declined(answer)
        await request.remember(str(queue_id), cost=request.access.options.prices.get(request.operation, 0.0))
        return str(queue_id)

    async def _result(self, request: Request, method: str, queue_id: str, until: float) -> str:
        """Asks until the picture is there: its address. What is paid for is not given up for broken connections,
        overloads or answers that say nothing; shortly before ``until`` (loop time) the last of them is the cause."""
        poll_s: float = request.access.options.poll_s
        while True:
            pause_s = poll_s
            waiting: ProviderFailure | None = None
            try:
                answer = await self._ask(request, method, {"do": "get_result", "queueid": queue_id}, timeout=STALLED)
                if answer.get("action") != "reconnect":
                    if address := _address(answer):
                        return address
                    waiting = ProviderBadOutput("Turbotext says it is done, but not where the picture is")
            except (ProviderError, ProviderQuota, ProviderBadOutput) as error:
                if not error.retryable:
                    raise
                waiting, pause_s = error, error.retry_after_s or poll_s
            left_s = until - asyncio.get_running_loop().time()
            if waiting is not None and left_s < 2 * poll_s:
                raise waiting
            await asyncio.sleep(min(pause_s, max(left_s - poll_s, poll_s)))

    async def _fetch(self, request: Request, url: str, raw: Path, until: float) -> None:
        """Downloads the result; one that is not there yet may come while the budget lasts (``until``, loop time)."""
        access = request.access
        while True:
            try:
                await download(url, raw, hosts=access.options.result_hosts, private=access.private_hosts)
                return
            except ProviderError:
                raw.unlink(missing_ok=True)
                if asyncio.get_running_loop().time() + 2 * access.options.poll_s > until:
                    raise  # rather than be cut off: the cause is kept
                await asyncio.sleep(access.options.poll_s)

    async def check(self, access: Access) -> None:
        # There is no call for it: a result that cannot be there is asked for, which costs nothing.
        url, headers = f"{access.options.base_url}/{_METHODS['image_edit']}", {"Authorization": f"Bearer {access.key}"}
        fields = {"do": "get_result", "queueid": "0"}
        _understood(await tried("Turbotext", "POST", url, headers, data=fields))

    async def _ask(
        self, request: Request, method: str, fields: Mapping[str, str], *, timeout: httpx.Timeout = TIMEOUT
    ) -> dict[str, Any]:
        """One POST; the JSON object it answers with."""
        if self._http is None:
            self._http = client(MAX_TALK_BYTES)
        try:
            response = await self._http.post(
                f"{request.access.options.base_url}/{method}",
                data=fields,
                headers={"Authorization": f"Bearer {request.access.key}"},
                timeout=timeout,
            )
        except httpx.HTTPError as error:
            raise unreached("Turbotext", error) from error
        return _understood(response)


def _understood(response: httpx.Response) -> dict[str, Any]:
    """The JSON object that Turbotext answered with."""
    answer = json_object(response.content)
    status = response.status_code
    said = str((answer or {}).get("error", ""))
    if status in (401, 403):
        raise ProviderAuth(f"Turbotext does not accept the key: {status} {said}".strip())
    if status == 429:
        raise ProviderQuota(
            f"Turbotext takes no more calls just now: {said or status}",
            retry_after_s=retry_after_s(response.headers),
        )
    if status != 200:
        raise ProviderError(f"Turbotext failed with status {status} {said}".strip())
    if answer is None:
        raise ProviderBadOutput("Turbotext answered with something that is not its JSON")
    return answer


_METHODS = {
    "image_edit": "generate_image2image",
    "style_transfer": "mix_images",
    "identity_transfer": "deepfake_photo",
}


async def _fields(request: Request, photo_url: str) -> dict[str, str]:
    """The method's own form fields."""
    settings = request.settings
    if request.operation == "image_edit":
        fields = {
            "url": photo_url,
            "content": settings["prompt"],
            "strength": str(settings["strength"]),
            "scale": f"{settings['scale']:g}",
            "original_language": settings["original_language"],
            "user_id": str(settings["user_id"]),
        }
        optional = {"seed": settings["seed"], "negative_prompt": settings["negative_prompt"]}
        return fields | {name: str(value) for name, value in optional.items() if value}
    template = request.templates["template"][0]
    template_url = await request.publish(template.path, template.mime)
    if request.operation == "style_transfer":
        content = {"content": settings["prompt"]} if settings["prompt"] else {}
        return {"url_image_target": photo_url, "url": template_url, **content}
    return {"url": template_url, "url_image_target": photo_url, "face_restore": str(settings["face_restore"])}


def _address(answer: Mapping[str, Any]) -> str | None:
    """Where the finished picture lies; ``None`` where the answer does not say.

    Raises:
        ProviderRefused, ProviderError: there will be none.
    """
    data = answer.get("data")
    if isinstance(data, dict) and data.get("forbidden_content"):
        raise ProviderRefused("Turbotext refused the photo: forbidden content", finish_reason="forbidden_content")
    if answer.get("success") is not True:
        raise _declined(answer)
    url = answer.get("uploaded_image")
    return url if isinstance(url, str) and url else None


def _declined(answer: Mapping[str, Any]) -> ProviderError:
    """``success: false``: Turbotext understood and said no; asking the same again would be paid again."""
    return ProviderError(f"Turbotext said: {answer.get('error') or 'no reason given'}", retryable=False)
