"""Walks a slot's route inside the job's budget. It is the only place where a provider call is decided on.

Now: the first rung, once. What a provider answers becomes a stored picture or a ``Failure``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from photochanger import jobs, logs, metrics, templates
from photochanger.db import Database
from photochanger.deadlines import attempt_budget_s
from photochanger.failures import Failure, InternalError, InvalidSettings, ProviderError, SyncTimeout
from photochanger.image_pool import ImagePool
from photochanger.jobs import Claim
from photochanger.providers import Picture, Provider, Request
from photochanger.slots import Route, Rung
from photochanger.storage import Storage
from photochanger.storage.local import full_or

#: Seconds kept back to make the result durable and final (a 20 MB file: 0.1 s here; ten times that for a slow disk).
STORE_S = 1.0


@dataclass
class Served:
    """A picture and the attempt that made it. ``at``: monotonic instant of the provider's answer."""

    picture: Picture
    attempt: int
    rung: int
    served_by: str
    at: float


class AttemptFailed(Exception):
    """The route is walked to its end without a picture; the last attempt is still to be closed with the job."""

    def __init__(self, failure: Failure, *, attempt: int | None, at: float) -> None:
        super().__init__(failure.detail)
        self.failure = failure
        self.attempt = attempt
        self.at = at


@dataclass(frozen=True)
class Router:
    """What a route needs beside the job: the drivers, the store and the guarded image processes."""

    db: Database
    storage: Storage
    pool: ImagePool
    registry: Mapping[str, Provider]

    def usual_s(self) -> dict[str, float]:
        """Seconds a call usually takes, by provider."""
        return {name: provider.usual_s for name, provider in self.registry.items()}

    async def serve(self, claim: Claim, *, deadline: float, result: Path) -> Served | None:
        """Makes the job's picture by ``deadline`` (monotonic). ``None``: the job is no longer ours.

        Raises:
            AttemptFailed: with the failure to end the job with.
        """
        rung = Route.model_validate(claim.route).rungs[0]
        provider = self.registry.get(rung.provider)
        if provider is None or rung.operation not in provider.operations:
            failure = InvalidSettings(f"{rung.provider}/{rung.operation} is not available in this version")
            raise AttemptFailed(failure, attempt=None, at=time.monotonic())
        if self._budget_s(rung, deadline) <= 0:
            raise AttemptFailed(SyncTimeout("No time was left to ask a provider"), attempt=None, at=time.monotonic())
        attempt = await jobs.dispatch(
            self.db,
            claim,
            rung=0,
            provider=rung.provider,
            operation=rung.operation,
            patience_s=deadline - time.monotonic(),
        )
        if attempt is None:
            return None
        budget_s = self._budget_s(rung, deadline)
        logs.event("job.dispatched", provider=rung.provider, operation=rung.operation, budget_s=round(budget_s, 2))
        began = time.monotonic()
        try:
            picture = await self._call(provider, rung, claim, result, budget_s)
        except OSError as error:
            refused = full_or(error)
            if not isinstance(refused, Failure):
                refused = InternalError(f"{type(error).__name__} in the {rung.provider} driver: {error.strerror}")
                logs.event("driver.broken", exc_info=True, provider=rung.provider)
            _observe(rung.provider, began, refused.code)
            raise AttemptFailed(refused, attempt=attempt, at=time.monotonic()) from error
        except Failure as failure:
            _observe(rung.provider, began, failure.code)
            raise AttemptFailed(failure, attempt=attempt, at=time.monotonic()) from failure
        except asyncio.CancelledError:
            _observe(rung.provider, began, "cancelled")
            await asyncio.shield(jobs.abandon(self.db, attempt, SyncTimeout("The call was cut off: the job had ended")))
            raise
        except Exception as error:
            _observe(rung.provider, began, InternalError.code)
            internal = InternalError(f"{type(error).__name__} in the {rung.provider} driver; the log has the details")
            logs.event("driver.broken", exc_info=True, provider=rung.provider)
            raise AttemptFailed(internal, attempt=attempt, at=time.monotonic()) from error
        _observe(rung.provider, began, None)
        return Served(picture, attempt, 0, f"{rung.provider}/{rung.operation}", time.monotonic())

    def _budget_s(self, rung: Rung, deadline: float) -> float:
        left_s = deadline - time.monotonic()
        return attempt_budget_s(left_s, provider_timeout_s=rung.timeout_s, store_s=STORE_S)

    async def _call(self, provider: Provider, rung: Rung, claim: Claim, result: Path, budget_s: float) -> Picture:
        request = Request(
            operation=rung.operation,
            settings=rung.settings,
            photo=self.storage.path(claim.payload_path),
            photo_mime=claim.payload_mime,
            max_pixels=claim.max_pixels,
            result=result,
            run_guarded=self._guarded(budget_s),
            templates=await templates.files(self.db, self.storage, rung.settings),
        )
        try:
            async with asyncio.timeout(budget_s):
                return await provider.transform(request, budget_s)
        except TimeoutError:
            if budget_s == rung.timeout_s:
                raise ProviderError(f"{rung.provider} did not answer within its {budget_s:g} s") from None
            raise SyncTimeout(f"{rung.provider} did not answer within {budget_s:.1f} s") from None

    def _guarded(self, budget_s: float) -> Callable[..., Any]:
        def run(work: Callable[..., Any], /, *args: Any) -> Any:
            return self.pool.run(work, *args, timeout_s=max(budget_s, 0.1))

        return run


def _observe(provider: str, began: float, cause: str | None) -> None:
    seconds = time.monotonic() - began
    metrics.PROVIDER_SECONDS.labels(provider).observe(seconds)
    logs.event("job.provider_responded", provider=provider, seconds=round(seconds, 3), cause=cause)
