"""Every way PhotoChanger can say no: one class per stable failure code.

    Failure
    ├── InvalidRequest ─ InvalidImage
    ├── InvalidPassword, InvalidCredentials, InvalidToken, Forbidden
    ├── NotFound ─ SlotNotFound, SlotDisabled, JobNotFound, ResultNotFound, MediaNotFound
    ├── Conflict ─ InUse, Cancelled, VersionMismatch, VersionRequired
    ├── ResultExpired, MediaExpired
    ├── PayloadTooLarge, ImageTooLarge, UnsupportedMediaType
    ├── InvalidSettings, IdempotencyMismatch
    ├── RateLimited ─ LoginThrottled
    ├── ProviderFailure ─ ProviderRefused, ProviderError, ProviderNoImage, ProviderBadOutput,
    │                     ProviderAuth, ProviderQuota
    ├── Unavailable ─ QueueFull, StorageFull, BudgetSpent, NoWorkers, WorkerLost
    ├── SyncTimeout
    └── InternalError

A class's docstring is its title: what an operator reads first. The HTTP status of a code is decided in
``web/problems.py`` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True)
class FieldError:
    """One field that was wrong: its path, a machine-readable code and words for people."""

    field: str
    code: str
    message: str


@dataclass(frozen=True)
class Concern:
    """What an administrator should know, though nothing has failed. ``code``: its kind; ``values``: what stands in its
    words, for who says it in others."""

    code: str
    words: str
    values: Mapping[str, str | float] = field(default_factory=dict)


class Failure(Exception):
    """Something went wrong"""

    code: ClassVar[str]
    #: Seconds after which it is worth coming back, where nothing better is known.
    over_after_s: ClassVar[float | None] = None
    retryable: bool = False

    def __init__(
        self,
        detail: str = "",
        *,
        retry_after_s: float | None = None,
        errors: Sequence[FieldError] = (),
    ) -> None:
        super().__init__(detail or self.title())
        self.detail = detail or self.title()
        self.retry_after_s = self.over_after_s if retry_after_s is None else retry_after_s
        self.errors = tuple(errors)

    @classmethod
    def title(cls) -> str:
        return (cls.__doc__ or cls.__name__).strip()


class InvalidRequest(Failure):
    """The request is not well formed"""

    code = "invalid_request"


class InvalidImage(InvalidRequest):
    """The picture is damaged or is not a picture"""

    code = "invalid_image"


class InvalidPassword(Failure):
    """The ingest password is wrong"""

    code = "invalid_password"


class InvalidCredentials(Failure):
    """The user name or password is wrong"""

    code = "invalid_credentials"


class InvalidToken(Failure):
    """The access token is not valid"""

    code = "invalid_token"


class Forbidden(Failure):
    """This account may not do that"""

    code = "forbidden"


class NotFound(Failure):
    """There is nothing at this address"""

    code = "not_found"


class SlotNotFound(NotFound):
    """There is no such slot"""

    code = "slot_not_found"


class SlotDisabled(NotFound):
    """This slot is switched off"""

    code = "slot_disabled"


class JobNotFound(NotFound):
    """There is no such job"""

    code = "job_not_found"


class ResultNotFound(NotFound):
    """There is no such result"""

    code = "result_not_found"


class MediaNotFound(NotFound):
    """There is no such picture"""

    code = "media_not_found"


class Conflict(Failure):
    """The request does not fit the present state"""

    code = "conflict"


class InUse(Conflict):
    """It is still in use"""

    code = "in_use"


class Cancelled(Conflict):
    """The job was cancelled"""

    code = "cancelled"


class VersionMismatch(Conflict):
    """Somebody else saved a newer version

    Args:
        version: the one that is saved now.
    """

    code = "version_mismatch"

    def __init__(self, detail: str = "", *, version: int | None = None) -> None:
        super().__init__(detail)
        self.version = version

    @classmethod
    def title(cls) -> str:
        return "Somebody else saved a newer version"


class VersionRequired(Conflict):
    """The version being changed must be named"""

    code = "version_required"


class ResultExpired(Failure):
    """This result has expired"""

    code = "result_expired"


class MediaExpired(Failure):
    """This temporary picture has expired"""

    code = "media_expired"


class PayloadTooLarge(Failure):
    """The request is larger than allowed"""

    code = "payload_too_large"


class ImageTooLarge(Failure):
    """The picture has more pixels than allowed"""

    code = "image_too_large"


class UnsupportedMediaType(Failure):
    """This kind of file is not taken"""

    code = "unsupported_media_type"


class InvalidSettings(Failure):
    """The settings are not valid"""

    code = "invalid_settings"


class IdempotencyMismatch(Failure):
    """The idempotency key was used for another photo"""

    code = "idempotency_mismatch"


class RateLimited(Failure):
    """Too many requests"""

    code = "rate_limited"
    retryable = True


class LoginThrottled(RateLimited):
    """Too many attempts to sign in"""

    code = "login_throttled"


class ProviderFailure(Failure):
    """The provider gave no usable picture

    Args:
        finish_reason: the provider's own word for how it ended, if it said one.
        request_id: the provider's own id of the call.
        model: which model answered.
        cost: what the call cost all the same, in the currency of the provider's prices.
        retryable: whether another try may succeed, where the code does not tell.
    """

    code = "provider_error"

    def __init__(
        self,
        detail: str = "",
        *,
        retry_after_s: float | None = None,
        finish_reason: str | None = None,
        request_id: str | None = None,
        model: str | None = None,
        cost: float = 0.0,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(detail, retry_after_s=retry_after_s)
        self.finish_reason = finish_reason
        self.request_id = request_id
        self.model = model
        self.cost = cost
        if retryable is not None:
            self.retryable = retryable

    @classmethod
    def title(cls) -> str:
        return super().title().splitlines()[0]


class ProviderRefused(ProviderFailure):
    """The model refused this picture or prompt"""

    code = "provider_refused"


class ProviderError(ProviderFailure):
    """The provider failed"""

    retryable = True


class ProviderNoImage(ProviderFailure):
    """The provider answered without a picture"""

    code = "provider_no_image"
    retryable = True


class ProviderBadOutput(ProviderFailure):
    """The provider answered with something that is not a usable picture"""

    code = "provider_bad_output"
    retryable = True


class ProviderAuth(ProviderFailure):
    """The provider does not accept our key"""

    code = "provider_auth"


class ProviderQuota(ProviderFailure):
    """The provider's quota is used up"""

    code = "provider_quota"


class Unavailable(Failure):
    """The service cannot be reached just now"""

    code = "unavailable"
    retryable = True


class QueueFull(Unavailable):
    """Too many photos are waiting"""

    code = "queue_full"


class StorageFull(Unavailable):
    """There is no room left for pictures"""

    code = "storage_full"
    over_after_s = 30.0


class BudgetSpent(Unavailable):
    """The slot's budget is spent"""

    code = "budget_spent"
    over_after_s = 600.0


class NoWorkers(Unavailable):
    """No worker is running"""

    code = "no_workers"
    over_after_s = 10.0


class WorkerLost(Unavailable):
    """The worker died and there was no time for another try"""

    code = "worker_lost"


class SyncTimeout(Failure):
    """The picture was not ready in time"""

    code = "sync_timeout"
    retryable = True


class InternalError(Failure):
    """Something went wrong inside PhotoChanger"""

    code = "internal_error"


def _tree(cls: type[Failure]) -> list[type[Failure]]:
    return [found for child in cls.__subclasses__() for found in (child, *_tree(child))]


#: Every failure code and its class; ``ProviderFailure`` is never raised itself and shares ``ProviderError``'s code.
BY_CODE: dict[str, type[Failure]] = {cls.code: cls for cls in _tree(Failure)}


def from_code(code: str, detail: str = "") -> Failure:
    """The failure a job row remembers as ``code``; an unknown code becomes ``InternalError``."""
    return BY_CODE.get(code, InternalError)(detail)
