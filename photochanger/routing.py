"""Walks a slot's route inside the job's budget. It is the only place where a provider call is decided on, and the only
one where anything is tried again.

Each rung is tried as often as it may; where it cannot be used or has failed, the next one takes over, for which time
was kept. What a provider answers becomes a picture or a ``Failure``.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from photochanger import images, jobs, logs, media, metrics, templates
from photochanger.db import RETRY_PAUSE_S, Database
from photochanger.deadlines import attempt_budget_s
from photochanger.failures import (
    Failure,
    ImageTooLarge,
    InternalError,
    InvalidRequest,
    InvalidSettings,
    ProviderError,
    ProviderFailure,
    ProviderNoImage,
    ProviderQuota,
    ProviderRefused,
    StorageFull,
    SyncTimeout,
    Unavailable,
    UnsupportedMediaType,
)
from photochanger.image_pool import ImagePool
from photochanger.jobs import Claim
from photochanger.providers import Access, Picture, Provider, Request
from photochanger.slots import Route, Rung
from photochanger.storage import Storage
from photochanger.storage.local import full_or

T = TypeVar("T")

#: Seconds kept back to make the result durable and final (a 20 MB file: 0.1 s here; ten times that for a slow disk).
STORE_S = 1.0
#: Seconds before another try where the provider answered quickly and without a picture: such answers cost about a
#: second each, and the next one is usually right.
NO_IMAGE_PAUSE_S = 0.2
#: Seconds from one rung's end to the next one's beginning: its attempt is closed, the next is recorded.
HAND_OVER_S = 0.25
#: Seconds in which what is paid for may still be fetched.
FETCH_S = 1.0
#: Characters of a provider's words that are kept.
MAX_DETAIL = 600


@dataclass
class Served:
    """A picture and the attempt that made it. ``at``: monotonic instant of the provider's answer."""

    picture: Picture
    attempt: int
    rung: int
    served_by: str
    at: float


class AttemptFailed(Exception):
    """A try has ended without a picture. ``attempt``: its record, still to be closed; ``None``: no call was made."""

    def __init__(self, failure: Failure, *, attempt: int | None, at: float | None = None) -> None:
        super().__init__(failure.detail)
        self.failure = failure
        self.attempt = attempt
        self.at = time.monotonic() if at is None else at


class NotOurs(Exception):
    """The job was ended or claimed by somebody else; there is nothing left to do for it"""


@dataclass(frozen=True)
class Router:
    """What a route needs beside the job: the drivers and their access, the store, the guarded image processes."""

    db: Database
    storage: Storage
    pool: ImagePool
    registry: Mapping[str, Provider]
    access: Callable[[Provider], Awaitable[Access]]

    def usual_s(self) -> dict[str, float]:
        """Seconds a call usually takes, by provider."""
        return {name: provider.usual_s for name, provider in self.registry.items()}

    async def serve(self, claim: Claim, *, deadline: float, result: Path) -> Served | None:
        """Makes the job's picture by ``deadline`` (monotonic). ``None``: the job is no longer ours.

        Raises:
            AttemptFailed: with the failure to end the job with.
        """
        # A newer version's slots may have fields that this one does not know.
        rungs = Route.model_validate(claim.route, extra="ignore").rungs
        paid = (claim.reference or "").partition("/")[0]
        begin = next((number for number, rung in enumerate(rungs) if rung.provider == paid), 0)
        for number, (rung, following) in enumerate(zip(rungs, [*rungs[1:], None], strict=True)):
            if number < begin:
                continue  # they had failed before the worker did that left something paid for
            usual_s = await self.usual_of(following) if following else 0.0
            kept_s = usual_s + HAND_OVER_S if following else 0.0
            step = _Step(self, claim, number, rung, deadline, result, kept_s)
            try:
                return await step.tries()
            except NotOurs:
                return None
            except Unavailable:
                raise
            except Exception as error:
                failed = error if isinstance(error, AttemptFailed) else step.broken(error)
                left_s = deadline - time.monotonic() - STORE_S
                if following is None or left_s < usual_s or not _another_rung_may_help(failed.failure, rung):
                    raise failed from error
                await step.give_up(failed, following)
            finally:
                await asyncio.shield(step.clean())
        raise AssertionError("a route has a rung")

    async def usual_of(self, rung: Rung) -> float:
        """Seconds a call of this rung usually takes."""
        provider = self.registry.get(rung.provider)
        if provider is None:
            return 0.0
        try:
            return provider.usual_for(rung.settings, (await self.access(provider)).options)
        except Failure:  # it will say so itself when its turn comes
            return provider.usual_s


@dataclass
class _Step:
    """One rung of one job: its tries, and what they leave behind. ``next_rung_s``: seconds to keep for the next."""

    its: Router
    claim: Claim
    number: int
    rung: Rung
    deadline: float
    result: Path
    next_rung_s: float
    scratched: list[Path] = field(default_factory=list)
    published: list[str] = field(default_factory=list)
    reference: str | None = None
    attempt: int | None = None
    sent: Path | None = None

    def __post_init__(self) -> None:
        provider, _, reference = (self.claim.reference or "").partition("/")
        self.reference = reference if provider == self.rung.provider else None

    @property
    def provider(self) -> Provider:
        """The rung's driver.

        Raises:
            AttemptFailed: this version has none, or not this operation.
        """
        provider = self.its.registry.get(self.rung.provider)
        if provider is None or self.rung.operation not in provider.operations:
            words = f"{self.rung.provider}/{self.rung.operation} is not available in this version"
            raise AttemptFailed(InvalidSettings(words), attempt=None)
        return provider

    async def tries(self) -> Served:
        """The first try that gives a picture. Another one is made where the cause may pass and the time still holds
        it."""
        failed: AttemptFailed | None = None
        for number in range(1, self.rung.max_tries + 1):
            request = await self._request()
            if failed is not None and not self._fits(request):
                raise AttemptFailed(failed.failure, attempt=None)
            if number == 1 and self._too_late_to_begin(request):
                raise AttemptFailed(SyncTimeout(f"No time was left for {self.rung.provider}"), attempt=None)
            try:
                return await self._try(request)
            except AttemptFailed as error:
                failed = error
                pause_s = _pause_s(failed.failure, self.rung)
                if failed.attempt is None or pause_s is None or number == self.rung.max_tries:
                    raise
                if not self._fits(request, after_s=pause_s):
                    raise
                await self._again(failed, pause_s)
        raise AssertionError("a rung is tried at least once")

    def broken(self, error: Exception) -> AttemptFailed:
        """What should not have been raised, as the failure of the attempt it came in."""
        return AttemptFailed(_as_failure(error, self.rung.provider), attempt=self.attempt)

    def _too_late_to_begin(self, request: Request) -> bool:
        """Whether a rung that begins late, after a crash or another rung, should leave its time to the next."""
        begun_late = self.claim.claim_no > 1 or self.number > 0
        return begun_late and bool(self.next_rung_s) and self.reference is None and not self._fits(request)

    async def give_up(self, failed: AttemptFailed, following: Rung) -> None:
        """Closes the last attempt; the next rung takes over."""
        await self._close(failed)
        if self.reference is not None:
            await self._remember(None)
        logs.event(
            "job.fell_back",
            provider=self.rung.provider,
            cause=failed.failure.code,
            detail=failed.failure.detail,
            to=f"{following.provider}/{following.operation}",
        )

    def _fits(self, request: Request, *, after_s: float = 0.0) -> bool:
        """Whether the time that is left then holds a call as it usually goes; what is paid for is only fetched."""
        if self.reference is not None:
            return self._budget_s(after_s=after_s) >= FETCH_S
        usual_s = self.provider.usual_for(self.rung.settings, request.access.options)
        return self._budget_s(after_s=after_s) >= min(usual_s, self.rung.timeout_s or usual_s)

    async def clean(self) -> None:
        """Deletes scratch files and ends temporary links."""
        if self.scratched:
            await asyncio.to_thread(_unlink, self.scratched)
        if self.published:
            with contextlib.suppress(Unavailable):  # they are dead with the job; a sweep deletes the files
                await media.revoke(self.its.db, self.its.storage, self.published)

    async def _close(self, failed: AttemptFailed) -> None:
        if failed.attempt is not None:
            since_s = time.monotonic() - failed.at
            await jobs.close_attempt(self.its.db, failed.attempt, failed.failure, since_response_s=since_s)

    async def _again(self, failed: AttemptFailed, pause_s: float) -> None:
        await self._close(failed)
        metrics.RETRIES.labels(self.rung.provider).inc()
        logs.event(
            "job.retrying",
            provider=self.rung.provider,
            cause=failed.failure.code,
            detail=failed.failure.detail,
            pause_s=round(pause_s, 2),
        )
        await asyncio.sleep(pause_s)

    async def _try(self, request: Request) -> Served:
        """One provider call, recorded before it begins."""
        name = self.rung.provider
        if self._budget_s() <= 0:
            raise AttemptFailed(SyncTimeout("No time was left to ask a provider"), attempt=None)
        attempt = await jobs.dispatch(
            self.its.db,
            self.claim,
            rung=self.number,
            provider=name,
            operation=self.rung.operation,
            patience_s=self.deadline - time.monotonic(),
        )
        if attempt is None:
            raise NotOurs
        self.attempt = attempt
        if self.reference is not None:
            await self._remember(self.reference)
        budget_s = self._budget_s()
        logs.event("job.dispatched", provider=name, operation=self.rung.operation, budget_s=round(budget_s, 2))
        began = time.monotonic()
        try:
            picture = await self._call(request, budget_s)
        except (asyncio.CancelledError, NotOurs):
            _observe(name, began, "cancelled")
            cut = SyncTimeout("The call was cut off: the job had ended")
            await asyncio.shield(jobs.close_attempt(self.its.db, attempt, cut))
            raise
        except Exception as error:
            failure = _as_failure(error, name)
            failure.detail = _fit_to_tell(failure.detail, request.access.key) or failure.title()
            if isinstance(failure, ProviderFailure):
                vars(failure).update(_told(failure, request.access.key))
            _observe(name, began, failure.code)
            raise AttemptFailed(failure, attempt=attempt) from error
        picture = replace(picture, **_told(picture, request.access.key))  # type: ignore[arg-type]
        _observe(name, began, None)
        _warn_of_retirement(name, picture)
        return Served(picture, attempt, self.number, f"{name}/{self.rung.operation}", time.monotonic())

    async def _call(self, request: Request, budget_s: float) -> Picture:
        try:
            async with asyncio.timeout(budget_s):
                return await self.provider.transform(request, budget_s)
        except TimeoutError:
            if budget_s == self.rung.timeout_s:
                raise ProviderError(
                    f"There was no picture from {self.rung.provider} within its {budget_s:g} s"
                ) from None
            words = f"There was no picture from {self.rung.provider} within {budget_s:.1f} s"
            if self.next_rung_s:
                raise ProviderError(f"{words}, and the rest is for the next rung", retryable=False) from None
            raise SyncTimeout(words) from None

    def _budget_s(self, *, after_s: float = 0.0) -> float:
        left_s = self.deadline - time.monotonic() - after_s
        return attempt_budget_s(
            left_s, provider_timeout_s=self.rung.timeout_s, store_s=STORE_S, next_rung_s=self.next_rung_s
        )

    # -- what the driver is given ------------------------------------------------------------------------------------

    async def _request(self) -> Request:
        """Everything the driver needs, read now: a key that was changed is in effect."""
        try:
            access = await self._patiently(lambda: self.its.access(self.provider))
            files = await self._patiently(lambda: templates.files(self.its.db, self.its.storage, self.rung.settings))
            await self._prepare()
        except Unavailable:
            raise
        except Failure as failure:
            raise AttemptFailed(failure, attempt=None) from failure
        return Request(
            operation=self.rung.operation,
            settings=self.rung.settings,
            photo=self.its.storage.path(self.claim.payload_path),
            max_pixels=self.claim.max_pixels,
            result=self.result,
            run_guarded=self._guarded,
            access=access,
            scratch=self._scratch,
            publish=lambda path, mime: self._publish(access, path, mime),
            remember=self._remember,
            reference=self.reference,
            templates=files,
            sent=self.sent,
        )

    async def _prepare(self) -> None:
        """Writes the photo as it is sent away, once: upright, stripped, scaled to ``send_edge``, a JPEG."""
        if self.sent is not None or self.reference is not None or "send_edge" not in self.rung.settings:
            return
        sent = self._scratch()
        photo = self.its.storage.path(self.claim.payload_path)
        edge = self.rung.settings["send_edge"]
        try:
            await self._guarded(images.prepare, photo, sent, self.claim.max_pixels, edge)
        except TimeoutError:
            raise SyncTimeout("The photo was not made ready to be sent in time") from None
        self.sent = sent

    async def _patiently(self, read: Callable[[], Awaitable[T]]) -> T:
        """``read()``, again and again while PostgreSQL is away and the job still has time."""
        while True:
            try:
                return await read()
            except Unavailable:
                if time.monotonic() + RETRY_PAUSE_S >= self.deadline:
                    raise
                await asyncio.sleep(RETRY_PAUSE_S)

    def _guarded(self, work: Callable[..., Any], /, *args: Any) -> Awaitable[Any]:
        return self.its.pool.run(work, *args, timeout_s=max(self._budget_s(), 0.1))

    def _scratch(self) -> Path:
        self.scratched.append(self.its.storage.temporary())
        return self.scratched[-1]

    async def _publish(self, access: Access, path: Path, mime: str) -> str:
        if not access.public_base_url:
            raise InvalidSettings(f"{self.rung.provider} fetches the photos from this server: set public_base_url")
        copy = self._scratch()
        await asyncio.to_thread(shutil.copyfile, path, copy)
        patience_s = self.deadline - time.monotonic()
        media_id = await media.publish(
            self.its.db, self.its.storage, self.claim.job_id, copy, mime, patience_s=patience_s
        )
        if media_id is None:
            raise NotOurs
        self.published.append(media_id)
        return f"{access.public_base_url}/public/media/{media_id}"

    async def _remember(self, reference: str | None, *, cost: float = 0.0) -> None:
        self.reference = reference
        whole = f"{self.provider.name}/{reference}" if reference is not None else None
        await jobs.remember(self.its.db, self.claim, whole, attempt=self.attempt, cost=cost)


def _unlink(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _another_rung_may_help(failure: Failure, rung: Rung) -> bool:
    """Not where the photo itself is at fault, nor a full disk; a refusal as the rung says."""
    if isinstance(failure, ProviderRefused):
        return rung.on_refusal == "next"
    return not isinstance(failure, InvalidRequest | ImageTooLarge | UnsupportedMediaType | StorageFull)


def _pause_s(failure: Failure, rung: Rung) -> float | None:
    """Seconds before another try; ``None`` where another one would end the same."""
    if isinstance(failure, ProviderQuota):
        return failure.retry_after_s
    if not isinstance(failure, ProviderFailure) or not failure.retryable:
        return None
    if isinstance(failure, ProviderNoImage):
        return NO_IMAGE_PAUSE_S
    return failure.retry_after_s if failure.retry_after_s is not None else rung.pause_s


def _as_failure(error: Exception, provider: str) -> Failure:
    """What a driver raised, as a failure; what it should not have raised goes to the log with its trace."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, OSError):
        full = full_or(error)
        if isinstance(full, Failure):
            return full
    logs.event("driver.broken", exc_info=True, provider=provider)
    return InternalError(f"{type(error).__name__} in the {provider} driver; the log has the details")


def _fit_to_tell(words: str, key: str) -> str:
    """A provider's words without our key (some repeat it), without what no row and no log can hold, not too long."""
    if key:
        words = words.replace(key, "[the key]")
    return words.encode("utf-8", "replace").decode().replace("\x00", "\N{REPLACEMENT CHARACTER}")[:MAX_DETAIL]


def _told(said: Picture | ProviderFailure, key: str) -> dict[str, str]:
    """What the provider said of a picture or failure beside its words, made fit to tell."""
    found = {name: getattr(said, name) for name in ("finish_reason", "request_id", "model")}
    return {name: _fit_to_tell(str(value), key) for name, value in found.items() if value is not None}


_warned: set[tuple[str, str]] = set()


def _warn_of_retirement(provider: str, picture: Picture) -> None:
    """Says once a process and day that a model is about to go."""
    if picture.model_retires_at is None or picture.model is None:
        return
    metrics.MODEL_RETIRES.labels(provider, picture.model).set(picture.model_retires_at.timestamp())
    key = (picture.model, time.strftime("%Y-%m-%d", time.gmtime()))
    if key not in _warned:
        _warned.add(key)
        at = picture.model_retires_at.isoformat()
        logs.event("model.retiring", provider=provider, model=picture.model, at=at)


def _observe(provider: str, began: float, cause: str | None) -> None:
    seconds = time.monotonic() - began
    metrics.PROVIDER_SECONDS.labels(provider).observe(seconds)
    logs.event("job.provider_responded", provider=provider, seconds=round(seconds, 3), cause=cause)
