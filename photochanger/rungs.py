"""One rung of one job: its tries inside the time it is given, each a recorded call through the provider's gate."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4
from zoneinfo import ZoneInfo

from photochanger import images, jobs, logs, media, metrics, templates
from photochanger.access import fit_to_tell
from photochanger.db import RETRY_PAUSE_S, Database
from photochanger.deadlines import STORE_S, attempt_budget_s
from photochanger.failures import (
    Cancelled,
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
from photochanger.gate import Call, Gate, Pass, cost_of
from photochanger.image_pool import ImagePool
from photochanger.jobs import LATE_S, Claim
from photochanger.providers import Access, Picture, Provider, Request
from photochanger.settings import Settings
from photochanger.slots import Rung
from photochanger.storage import Storage
from photochanger.storage.local import full_or
from photochanger.usual import Times

T = TypeVar("T")

#: Seconds before another try where the provider answered quickly and without a picture: such answers cost about a
#: second each, and the next one is usually right.
NO_IMAGE_PAUSE_S = 0.2
#: Seconds in which what is paid for may still be fetched.
FETCH_S = 1.0
#: Bytes free on the media root's disk below which no provider is paid for a picture that may find no room.
ROOM_BYTES = 64 * 1024**2
#: Seconds in the queue after which a rung that no longer fits leaves its time to the next one.
LATE_CLAIM_S = 1.0


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
class Surroundings:
    """What a rung needs beside the job: the drivers and their access, the store, the guarded image processes, the gate
    before every call, and what was measured."""

    db: Database
    storage: Storage
    pool: ImagePool
    registry: Mapping[str, Provider]
    access: Callable[[Provider], Awaitable[Access]]
    gate: Gate
    times: Callable[[], Awaitable[Times]]
    settings: Callable[[], Awaitable[Settings]]


@dataclass
class Step:
    """One rung of one job: its tries, and what they leave behind. ``next_rung_s``: seconds to keep for the next;
    ``keeps_late``: its call may go on past the deadline."""

    its: Surroundings
    claim: Claim
    number: int
    rung: Rung
    deadline: float
    next_rung_s: float
    keeps_late: bool = False
    scratched: list[Path] = field(default_factory=list)
    published: list[str] = field(default_factory=list)
    reference: str | None = None
    attempt: int | None = None
    sent: Path | None = None
    #: What the call now running is known to be billed already.
    billed: float = 0.0
    #: Monotonic instant at which the call now running began.
    called_at: float | None = None
    times: Times = field(default_factory=lambda: Times({}))

    def __post_init__(self) -> None:
        self.result = self._scratch()
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
        self.times = await self._patiently(self.its.times)
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
        """Whether a rung that begins late, after a long wait, a crash or another rung, would be paid for nothing."""
        begun_late = self.claim.claim_no > 1 or self.number > 0 or self.claim.queue_wait_s > LATE_CLAIM_S
        return begun_late and self.reference is None and not self._fits(request)

    async def give_up(self, failed: AttemptFailed, following: Rung | None) -> None:
        """Closes the last attempt; the next rung takes over, or runs already."""
        await self._close(failed)
        if self.reference is not None:
            await self._remember(None)
        logs.event(
            "job.fell_back",
            provider=self.rung.provider,
            cause=failed.failure.code,
            detail=failed.failure.detail,
            to=f"{following.provider}/{following.operation}" if following else "the one that runs",
        )

    def _fits(self, request: Request, *, after_s: float = 0.0) -> bool:
        """Whether the time that is left then holds a call as it usually goes; what is paid for is only fetched."""
        if self.reference is not None:
            return self._budget_s(after_s=after_s) >= FETCH_S
        return self._budget_s(after_s=after_s) >= self._usual_s(request)

    def _usual_s(self, request: Request) -> float:
        usual_s = self.times.of(self.rung, self.provider, request.access.options).p90_s
        return min(usual_s, self.rung.timeout_s or usual_s)

    async def clean(self, *, but: Path | None = None) -> None:
        """Deletes scratch files, all but the picture that was made, and ends temporary links."""
        try:
            if left := [path for path in self.scratched if path != but]:
                await asyncio.to_thread(_unlink, left)
            if self.published:
                await media.revoke(self.its.db, self.its.storage, self.published)
        except Unavailable:  # they are dead with the job; a sweep deletes the files
            return
        except OSError:  # none must leave an actor, where a picture may have been made
            logs.event("scratch.left", exc_info=True)

    async def not_needed(self, end: Served | BaseException) -> None:
        """Closes the attempt of a rung that ended in the same breath as the one that won."""
        if isinstance(end, Served):
            slower = Cancelled("Another step was quicker")
            await jobs.close_attempt(self.its.db, end.attempt, slower, picture=end.picture)
        elif isinstance(end, AttemptFailed):
            await self._close(end)

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
        """One provider call: let through the gate, recorded before it begins, and its permits given back."""
        if self._budget_s() <= 0:
            raise AttemptFailed(SyncTimeout("No time was left to ask a provider"), attempt=None)
        allowed = await self._allowed(request)
        failure: Failure | None = Cancelled()
        cost: float | None = 0.0  # until a call is recorded
        self.billed = 0.0
        try:
            await self._dispatch()
            cost = None
            served = await self._recorded(request)
            failure, cost = None, max(served.picture.cost, self.billed)
            return served
        except AttemptFailed as failed:
            failure = self._as_told(failed, request)
            known = cost_of(failed.failure)
            cost = max(known, self.billed) if known is not None else None
            raise
        finally:
            self.called_at = None
            if allowed is not None:
                await asyncio.shield(_left(allowed, failure, cost))

    def _as_told(self, failed: AttemptFailed, request: Request) -> Failure:
        """What a failure says of the provider: one that did not answer in the time it usually takes is out of order;
        one that was given less has shown nothing."""
        if not isinstance(failed.failure.__cause__, TimeoutError):
            return failed.failure
        if failed.at - (self.called_at or failed.at) < self._usual_s(request):
            return Cancelled()
        return ProviderError(failed.failure.detail)

    async def _allowed(self, request: Request) -> Pass | None:
        """A pass through the gate; waiting for one leaves the time that a call usually takes.

        Raises:
            AttemptFailed: the provider must not be called now.
        """
        options = request.access.options
        late_s = LATE_S if self.keeps_late else 0.0
        call = Call(
            holder=uuid4().hex,
            provider=self.rung.provider,
            options=options,
            slot_id=self.claim.slot_id,
            slot=self.claim.options,
            price=self.times.price_of(self.rung, self.provider, options),
            lasts_s=self.deadline - time.monotonic() + late_s,
            is_paid=self.reference is not None,
        )
        until = time.monotonic() + self._budget_s() - self._usual_s(request)
        try:
            self._room()
            return await self._patiently(lambda: self._enter(call, until))
        except Failure as failure:
            if _away(failure):
                raise
            raise AttemptFailed(failure, attempt=None) from failure

    async def _enter(self, call: Call, until: float) -> Pass | None:
        return await self.its.gate.enter(call, until=until, time_zone=(await self.its.settings()).time_zone)

    def _room(self) -> None:
        if self.provider.needs_key and self.its.storage.free_bytes() < ROOM_BYTES:
            raise StorageFull("The disk that holds the pictures is nearly full: no provider is paid for one more")

    async def _dispatch(self) -> None:
        attempt = await jobs.dispatch(
            self.its.db,
            self.claim,
            rung=self.number,
            provider=self.rung.provider,
            operation=self.rung.operation,
            patience_s=self.deadline - time.monotonic(),
        )
        if attempt is None:
            raise NotOurs
        self.attempt = attempt
        if self.reference is not None:
            await self._remember(self.reference)

    async def _recorded(self, request: Request) -> Served:
        """The call itself; its attempt is there already."""
        name, attempt, budget_s = self.rung.provider, self.attempt, self._budget_s()
        assert attempt is not None
        logs.event("job.dispatched", provider=name, operation=self.rung.operation, budget_s=round(budget_s, 2))
        self.called_at = began = time.monotonic()
        try:
            picture = await self._call(request, budget_s)
        except (asyncio.CancelledError, NotOurs):
            _observe(name, began, "cancelled")
            late = time.monotonic() >= self.deadline
            cut = (SyncTimeout if late else Cancelled)("The call was cut off: the job had ended, or needed it no more")
            await asyncio.shield(jobs.close_attempt(self.its.db, attempt, cut))
            raise
        except Exception as error:
            failure = _as_failure(error, name)
            failure.detail = fit_to_tell(failure.detail, request.access.key) or failure.title()
            if isinstance(failure, ProviderFailure):
                vars(failure).update(_told(failure, request.access.key))
            _observe(name, began, failure.code)
            raise AttemptFailed(failure, attempt=attempt) from error
        is_new = request.reference is None  # what is only fetched was billed before
        price = self.times.price_of(self.rung, self.provider, request.access.options) if is_new else 0.0
        said = _told(picture, request.access.key)
        picture = replace(picture, cost=picture.cost or price, **said)  # type: ignore[arg-type]
        _observe(name, began, None)
        _warn_of_retirement(name, picture)
        return Served(picture, attempt, self.number, f"{name}/{self.rung.operation}", time.monotonic())

    async def _call(self, request: Request, budget_s: float) -> Picture:
        allowed_s = budget_s
        if self.keeps_late:
            late_s = self.deadline - time.monotonic() + LATE_S
            allowed_s = min(late_s, self.rung.timeout_s or late_s)
        try:
            async with asyncio.timeout(allowed_s):
                return await self.provider.transform(request, allowed_s)
        except TimeoutError as error:
            if allowed_s == self.rung.timeout_s:
                raise ProviderError(
                    f"There was no picture from {self.rung.provider} within its {allowed_s:g} s"
                ) from error
            words = f"There was no picture from {self.rung.provider} within {allowed_s:.1f} s"
            if self.next_rung_s:
                raise ProviderError(f"{words}, and the rest is for the next step", retryable=False) from error
            raise SyncTimeout(words) from error

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
            zone = ZoneInfo((await self._patiently(self.its.settings)).time_zone)
            photo = await self.its.storage.here(self.claim.payload_path)
            await self._prepare(photo)
        except Failure as failure:
            if _away(failure):
                raise
            raise AttemptFailed(failure, attempt=None) from failure
        return Request(
            operation=self.rung.operation,
            settings=self.rung.settings,
            photo=photo,
            came_on=self.claim.created_at.astimezone(zone).date(),
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
            begin=self._begin,
        )

    def _begin(self) -> None:
        if time.monotonic() >= self.deadline:
            raise SyncTimeout(f"The deadline passed before {self.rung.provider} could be asked for the picture")

    async def _prepare(self, photo: Path) -> None:
        """Writes the photo as it is sent away, once: upright, stripped, scaled to ``send_edge``, a JPEG."""
        if self.sent is not None or self.reference is not None or "send_edge" not in self.rung.settings:
            return
        sent = self._scratch()
        edge = self.rung.settings["send_edge"]
        try:
            await self._guarded(images.rewrite, photo, sent, "image/jpeg", self.claim.max_pixels, edge)
        except TimeoutError:
            raise SyncTimeout("The photo was not made ready to be sent in time") from None
        self.sent = sent

    async def _patiently(self, read: Callable[[], Awaitable[T]]) -> T:
        """``read()``, again and again while PostgreSQL is away and the job still has time."""
        while True:
            try:
                return await read()
            except Unavailable as failure:
                if not _away(failure) or time.monotonic() + RETRY_PAUSE_S >= self.deadline:
                    raise
                await asyncio.sleep(RETRY_PAUSE_S)

    def _guarded(self, work: Callable[..., Any], /, *args: Any) -> Awaitable[Any]:
        late_s = self.deadline + LATE_S - time.monotonic() if self.keeps_late else 0.0
        return self.its.pool.run(work, *args, timeout_s=max(self._budget_s(), late_s, 0.1))

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
        self.billed += cost
        whole = f"{self.provider.name}/{reference}" if reference is not None else None
        await jobs.remember(self.its.db, self.claim, whole, attempt=self.attempt, cost=cost)


def _away(failure: Failure) -> bool:
    """The database cannot be reached; what else is unavailable is a failure like any other."""
    return type(failure) is Unavailable


async def _left(allowed: Pass, failure: Failure | None, cost: float | None) -> None:
    """Leaves the gate. Whatever goes wrong there takes no picture away: permits run out, and breakers are told by the
    next call."""
    try:
        await allowed.leave(failure, cost=cost)
    except Unavailable:
        return
    except Exception:
        logs.event("loop.failed", loop="gate", exc_info=True)


def _unlink(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def another_rung_may_help(failure: Failure, rung: Rung) -> bool:
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


def _told(said: Picture | ProviderFailure, key: str) -> dict[str, str]:
    """What the provider said of a picture or failure beside its words, made fit to tell."""
    found = {name: getattr(said, name) for name in ("finish_reason", "request_id", "model")}
    return {name: fit_to_tell(str(value), key) for name, value in found.items() if value is not None}


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
