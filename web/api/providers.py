"""``/api/providers``: what each can do, whether it can be asked and is well; its options and its key."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Annotated, Any

import falcon.asgi
from pydantic import BaseModel, ConfigDict, Field

from photochanger import access, breakers, settings, usual, vault
from photochanger import providers as drivers
from photochanger.config import api_key
from photochanger.db import Row
from photochanger.failures import Conflict, Failure, FieldError, InvalidSettings, NotFound
from photochanger.providers import Provider
from photochanger.settings import Settings
from web import problems
from web.api import answer, body, needs
from web.models import Problem
from web.pages import details
from web.services import Services


class OperationView(BaseModel):
    """What a provider can do to a photo."""

    name: Annotated[str, Field(examples=["image_edit"])]
    title: Annotated[dict[str, str], Field(description="By language.", examples=[{"en": "Edit", "ru": "Правка"}])]
    settings_schema: Annotated[dict[str, Any], Field(description="JSON Schema of a rung's `settings`.")]


class UsualView(BaseModel):
    """How long its calls usually take, and what they cost."""

    kind: Annotated[str, Field(description="provider/operation/model", examples=["gemini/image_edit"])]
    p90_s: Annotated[float, Field(ge=0)]
    mean_s: Annotated[float, Field(ge=0)]
    mean_cost: Annotated[float, Field(ge=0)]
    calls: Annotated[int, Field(ge=1, description="Of how many.")]


class BreakerView(BaseModel):
    """Why it fails."""

    is_open: Annotated[bool, Field(description="It is not asked now.")]
    failures: Annotated[int, Field(ge=1, description="In a row.")]
    code: Annotated[str, Field(description="Failure code of the last one.")]
    detail: str
    failed_at: datetime
    asked_again_in_s: Annotated[float, Field(ge=0)]


class ProviderView(BaseModel):
    """A provider as it stands."""

    name: Annotated[str, Field(examples=["gemini"])]
    operations: list[OperationView]
    models: Annotated[list[str], Field(description="Those an operation can be set to; empty: no choice.")]
    needs_key: bool
    is_configured: Annotated[bool, Field(description="It has the key it needs.")]
    key_source: Annotated[str | None, Field(description="stored, environment, or null: there is none.")]
    key_stored_at: datetime | None
    is_healthy: Annotated[bool, Field(description="It is configured, and its breaker is closed.")]
    breaker: Annotated[BreakerView | None, Field(description="Null: it has not failed since it last answered.")]
    options: Annotated[dict[str, Any], Field(description="As they are set, with what is silent.")]
    options_schema: dict[str, Any]
    usual: list[UsualView]


class ProviderList(BaseModel):
    """Every provider of this version."""

    items: list[ProviderView]


class ProviderOptions(BaseModel):
    """A provider's options; what is silent has its default."""

    model_config = ConfigDict(extra="forbid")

    options: dict[str, Any]


class NewKey(BaseModel):
    """A provider's key."""

    model_config = ConfigDict(extra="forbid")

    key: Annotated[str, Field(min_length=8, max_length=4096, description="Stored sealed; never shown again.")]


class KeyToTest(BaseModel):
    """Which key is tried."""

    model_config = ConfigDict(extra="forbid")

    key: Annotated[
        str | None, Field(min_length=8, max_length=4096, description="Absent or null: the one that is set.")
    ] = None


class KeyTest(BaseModel):
    """What came of trying a key: a call that costs nothing."""

    is_accepted: bool
    seconds: Annotated[float, Field(ge=0)]
    failure: Problem | None


class Providers:
    """GET: every provider."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("slots:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        answer(resp, ProviderList(items=await views(self._its)))


class OneProvider:
    """GET: one provider. PATCH: its options."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("slots:read")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, name: str) -> None:
        known(name)
        answer(resp, next(one for one in await views(self._its) if one.name == name))

    @needs("settings:write")
    async def on_patch(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, name: str) -> None:
        known(name)
        given = await body(req, ProviderOptions)
        await settings.save_provider(self._its.db, name, given.options, actor=req.context.account.name)
        answer(resp, next(one for one in await views(self._its) if one.name == name))


class ProviderKey:
    """PUT: stores a key. DELETE: forgets it."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("settings:write")
    async def on_put(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, name: str) -> None:
        _with_key(name)
        key = _sound((await body(req, NewKey)).key)
        await vault.store(self._its.db, self._its.keys, name, key, actor=req.context.account.name)
        resp.status = 204

    @needs("settings:write")
    async def on_delete(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, name: str) -> None:
        _with_key(name)
        if not await vault.forget(self._its.db, name, actor=req.context.account.name):
            raise NotFound(f"No key of {name} is stored")
        resp.status = 204


class ProviderTest:
    """POST: tries a key."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("settings:write")
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, name: str) -> None:
        provider = _with_key(name)
        given = await body(req, KeyToTest)
        began = time.monotonic()
        failure = None
        key = given.key and _sound(given.key)
        try:
            reached = await access.to(provider, self._its.db, self._its.keys, self._its.config, key=key)
            key = reached.key
            await provider.check(reached)
        except Failure as error:
            failure = Problem.model_validate(problems.problem(error))
            failure.detail = details.for_page(req, access.fit_to_tell(failure.detail, key or ""))
        seconds = round(time.monotonic() - began, 3)
        answer(resp, KeyTest(is_accepted=failure is None, seconds=seconds, failure=failure))


class ProviderReset:
    """POST: has a provider asked again at once; somebody has put right what was wrong."""

    def __init__(self, services: Services) -> None:
        self._its = services

    @needs("settings:write")
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, name: str) -> None:
        known(name)
        await breakers.reset(self._its.db, name, actor=req.context.account.name)
        resp.status = 204


def known(name: str) -> Provider:
    """
    Raises:
        NotFound: this version has no such provider.
    """
    provider = drivers.registry().get(name)
    if provider is None:
        raise NotFound(f"There is no provider {name[:64]!r}")
    return provider


def _with_key(name: str) -> Provider:
    provider = known(name)
    if not provider.needs_key:
        raise Conflict(f"{name} takes no key")
    return provider


def _sound(key: str) -> str:
    try:
        return api_key(key)
    except ValueError as error:
        raise InvalidSettings(f"key: {error}", errors=[FieldError("key", "invalid", str(error))]) from None


async def views(its: Services) -> list[ProviderView]:
    """Every provider as it stands now."""
    current = await settings.load(its.db)
    stored = {row["provider"]: row for row in await vault.listing(its.db)}
    standing = {row["provider"]: row for row in await breakers.standing(its.db)}
    times = (await usual.load(its.db)).listing()
    return [
        _view(its, provider, current, stored.get(name), standing.get(name), _of(times, name))
        for name, provider in drivers.registry().items()
    ]


def _of(times: list[tuple[str, usual.Usual]], name: str) -> list[UsualView]:
    return [
        UsualView(kind=kind, p90_s=one.p90_s, mean_s=one.mean_s, mean_cost=one.mean_cost, calls=one.calls)
        for kind, one in times
        if kind.startswith(f"{name}/")
    ]


def _view(
    its: Services,
    provider: Provider,
    current: Settings,
    stored: Row | None,
    standing: Row | None,
    usual: list[UsualView],
) -> ProviderView:
    in_environment = provider.needs_key and getattr(its.config, f"{provider.name}_api_key") is not None
    source = "stored" if stored else "environment" if in_environment else None
    is_configured = source is not None or not provider.needs_key
    try:
        options = access.options_of(provider, current, its.config)
    except Failure:  # another version's; they are shown as they are stored
        options = provider.options()
    breaker = standing and BreakerView(
        is_open=standing["open"],
        failures=standing["failures"],
        code=standing["cause"],
        detail=standing["detail"],
        failed_at=standing["failed_at"],
        asked_again_in_s=standing["left_s"],
    )
    return ProviderView(
        name=provider.name,
        operations=[
            OperationView(
                name=name,
                title=dict(operation.name),
                settings_schema=operation.json_schema(provider.models(options)),
            )
            for name, operation in provider.operations.items()
        ],
        models=list(provider.models(options)),
        needs_key=provider.needs_key,
        is_configured=is_configured,
        key_source=source,
        key_stored_at=stored["updated_at"] if stored else None,
        is_healthy=is_configured and not (breaker and breaker.is_open),
        breaker=breaker,
        options=options.model_dump(mode="json"),
        options_schema=provider.options.model_json_schema(),
        usual=usual,
    )
