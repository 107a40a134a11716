"""What every resource of the admin API is made with: who may call it, and how it is asked and answers.

A resource has one responder a method (``on_get`` …, no suffixes), each marked by ``needs``; ``Authority`` looks at
the mark before anything else happens. A request's body and query are read into Pydantic models.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeVar, get_origin
from uuid import UUID

import falcon
import falcon.asgi
import orjson
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from photochanger.failures import (
    FieldError,
    InvalidRequest,
    PayloadTooLarge,
    UnsupportedMediaType,
    VersionRequired,
)
from photochanger.permissions import Permission
from photochanger.settings import invalid

M = TypeVar("M", bound=BaseModel)
R = TypeVar("R", bound=Callable[..., Any])

#: Anybody may call it: signing in, and what proves itself by its own cookie.
OPEN: Literal["open"] = "open"
MAX_BODY_BYTES = 1024 * 1024
#: Objects and arrays inside each other.
MAX_DEPTH = 64
#: Of numbers in a body; our own JSON holds no larger integer.
MOST_NUMBER = 2**63
_VERSION = re.compile(r'"([0-9]{1,9})"')
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]")
_MARK = "needed"
#: How the text in a cursor becomes what it was.
_READ: dict[type, Callable[[str], object]] = {str: str, UUID: UUID, datetime: datetime.fromisoformat}


# -- who may call it ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Needed:
    """What a responder asks of its caller. No permission: that somebody is signed in."""

    permission: Permission | Literal["open"] | None
    while_must_change: bool


def needs(permission: Permission | Literal["open"] | None, *, while_must_change: bool = False) -> Callable[[R], R]:
    """Marks a responder with the permission it takes; ``None``: any signed-in account.

    ``while_must_change``: also for an account that must choose a password of its own first.
    """

    def mark(responder: R) -> R:
        setattr(responder, _MARK, Needed(permission, while_must_change))
        return responder

    return mark


def needed_by(responder: object) -> Needed | None:
    """A responder's mark; ``None``: it has none, and must not be called."""
    found = getattr(responder, _MARK, None)
    return found if isinstance(found, Needed) else None


# -- how it is asked ------------------------------------------------------------------------------------------------


async def body(req: falcon.asgi.Request, model: type[M]) -> M:
    """The request's JSON as ``model``.

    Raises:
        UnsupportedMediaType: it is not called JSON.
        PayloadTooLarge: it has more than ``MAX_BODY_BYTES``.
        InvalidRequest: it is not JSON, or not fit to be kept.
        InvalidSettings: it is not what ``model`` says; ``errors`` names each field.
    """
    expect(req, falcon.MEDIA_JSON)
    return parsed(await _read(req), model)


def expect(req: falcon.asgi.Request, kind: str) -> None:
    """
    Raises:
        UnsupportedMediaType: the body is called something else; case and parameters do not matter (RFC 9110, 8.3.1).
    """
    if (req.content_type or "").split(";")[0].strip().lower() != kind:
        raise UnsupportedMediaType(f"The body must be {kind}")


async def form(req: falcon.asgi.Request, kind: str) -> Any:
    """The request's form of media type ``kind``, as Falcon reads it.

    Raises:
        UnsupportedMediaType: it is called something else.
        InvalidRequest: it is malformed.
    """
    expect(req, kind)
    try:
        handler = req.options.media_handlers[kind]
        return await handler.deserialize_async(req.stream, req.content_type, req.content_length)
    except falcon.HTTPError as error:
        raise InvalidRequest(error.description or "The form is malformed") from None


def parsed(data: bytes, model: type[M], *, what: str = "The body", context: Any = None) -> M:
    """JSON of somebody else's as ``model``, whose validators are given ``context``.

    Raises:
        InvalidRequest: it is not JSON, or not fit to be kept.
        InvalidSettings: it is not what ``model`` says; ``errors`` names each field.
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidRequest(f"{what} is not JSON: {error.msg} ({where})") from None
    _check_sound(value, what)
    try:
        # Strictly: a word is no number, and a number is no instant.
        return model.model_validate_json(data, strict=True, context=context)
    except ValidationError as error:
        raise invalid(error) from None


async def _read(req: falcon.asgi.Request) -> bytes:
    if (req.content_length or 0) > MAX_BODY_BYTES:
        raise PayloadTooLarge(f"The body has more than {MAX_BODY_BYTES} bytes")
    data = bytearray()
    async for chunk in req.stream:
        data += chunk
        if len(data) > MAX_BODY_BYTES:
            raise PayloadTooLarge(f"The body has more than {MAX_BODY_BYTES} bytes")
    return bytes(data)


def _check_sound(value: object, what: str) -> None:
    """Refuses what JSON allows and a database does not, and what is nested for no good."""
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        if not level:
            return
        inside: list[object] = []
        for one in level:
            if isinstance(one, dict):
                inside += [*one.keys(), *one.values()]
            elif isinstance(one, list):
                inside += one
            elif isinstance(one, str) and "\0" in one:
                raise InvalidRequest(f"{what} holds a NUL character")
            elif isinstance(one, float) and not abs(one) < MOST_NUMBER:
                raise InvalidRequest(f"{what} holds a number that is none, or a huge one")
        level = inside
    if level:
        raise InvalidRequest(f"{what} is nested more than {MAX_DEPTH} deep")


def _written(value: object) -> object:
    if isinstance(value, str) and not _DATE.match(value):
        raise ValueError("This is no instant; write one like 2026-11-25T20:00:00Z")
    return value


#: An instant in a query: RFC 3339, not the seconds since 1970 that Pydantic would take too.
Instant = Annotated[AwareDatetime, BeforeValidator(_written)]


def query(req: falcon.asgi.Request, model: type[M]) -> M:
    """The request's query as ``model``. A name may come several times where its field is a list.

    Raises:
        InvalidRequest: a name is unknown or its value is not what ``model`` says; ``errors`` names each.
    """
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    given: Mapping[str, Any] = req.params
    errors = [FieldError(name, "unknown", "This is not a parameter here") for name in given if name not in fields]
    errors += [
        FieldError(name, "invalid", "It holds a NUL character") for name in given if "\0" in "".join(given[name])
    ]
    if not errors:
        lists = {name for name, field in fields.items() if get_origin(field.annotation) is list}
        try:
            return model.model_validate(
                {name: [value] if name in lists and isinstance(value, str) else value for name, value in given.items()}
            )
        except ValidationError as error:
            errors = list(invalid(error).errors)
    raise InvalidRequest(f"{errors[0].field}: {errors[0].message}", errors=errors)


class Page(BaseModel):
    """The query of a list that is read page by page; ``next`` of one page is ``after`` of the one behind it."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=200)] = 50
    after: Annotated[str, Field(max_length=1024)] | None = None


def cursor(*values: str | int | datetime | UUID) -> str:
    """Where a page has ended, for ``Page.after``: nothing in it is secret.

    >>> cursor(7, "slot-001")
    'WzcsInNsb3QtMDAxIl0'
    """
    return base64.urlsafe_b64encode(orjson.dumps(values)).rstrip(b"=").decode()


def position(after: str | None, *kinds: type) -> list[Any] | None:
    """The values of a ``cursor``, one of each of ``kinds`` (``str``, ``int``, ``datetime``, ``UUID``); ``None`` for
    the first page.

    Raises:
        InvalidRequest: it is none of ours.

    >>> position("WzcsInNsb3QtMDAxIl0", int, str)
    [7, 'slot-001']
    """
    if after is None:
        return None
    try:
        values = orjson.loads(base64.b64decode(after + "=" * (-len(after) % 4), altchars=b"-_", validate=True))
        if not isinstance(values, list) or len(values) != len(kinds):
            raise ValueError(after)
        return [_of(kind, value) for kind, value in zip(kinds, values, strict=True)]
    except (ValueError, binascii.Error, TypeError):
        words = "This is not where a page has ended"
        raise InvalidRequest(f"after: {words}", errors=[FieldError("after", "invalid", words)]) from None


def _of(kind: type, value: object) -> object:
    if kind is int and isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63:
        return value
    if isinstance(value, str) and "\0" not in value and kind in _READ:
        return _READ[kind](value)
    raise ValueError(kind)


def if_match(req: falcon.asgi.Request) -> int:
    """The version that the caller has read and changes, from ``If-Match``.

    Raises:
        VersionRequired: there is none.
        InvalidRequest: it is not one version of ours.
    """
    given = req.get_header("If-Match")
    if given is None:
        raise VersionRequired("Send If-Match with the ETag of what you have read")
    match = _VERSION.fullmatch(given.strip())
    if match is None:
        raise InvalidRequest('If-Match must be one ETag of ours, like "7"')
    return int(match[1])


# -- how it answers -------------------------------------------------------------------------------------------------


def etag(version: int) -> str:
    """A version as a strong ETag.

    >>> etag(7)
    '"7"'
    """
    return f'"{version}"'


def answer(resp: falcon.asgi.Response, value: object, status: int = 200) -> None:
    """Makes ``value`` (a model, or what orjson writes) the answer."""
    resp.status = status
    resp.content_type = "application/json"
    resp.data = orjson.dumps(value, default=_plain, option=orjson.OPT_UTC_Z)


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(type(value).__name__)
