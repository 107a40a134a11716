"""What the HTTP API answers in JSON, as Pydantic models: the contract's schemas are made from these."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field
from pydantic.json_schema import SkipJsonSchema

from photochanger.states import JobStatus
from web.problems import STATUS

Url = Annotated[str, Field(json_schema_extra={"format": "uri"})]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
SlotId = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{0,62}$")]


def _absent(value: object) -> bool:
    return value is None


def left_out(schema: dict[str, Any]) -> None:
    """A member that is absent, never null."""
    del schema["default"]


class FieldError(BaseModel):
    """One field that was wrong."""

    field: Annotated[str, Field(description="The field's path, such as route.rungs.0.settings.filter.")]
    code: Annotated[str, Field(description="What is wrong with it, for programs.")]
    message: Annotated[str, Field(description="What is wrong with it, in words.")]


class Problem(BaseModel):
    """A failure (RFC 9457). More members may come; ignore those you do not know."""

    type: Annotated[str, Field(pattern="^urn:photochanger:failure:[a-z_]+$", json_schema_extra={"format": "uri"})]
    title: Annotated[str, Field(description="The kind of failure, in words; the same for every failure of a code.")]
    status: Annotated[int, Field(ge=400, le=599, description="The HTTP status.")]
    detail: Annotated[str, Field(description="What happened, in words; in English, but for pages of ours.")]
    code: Annotated[
        str,
        Field(
            description="The kind of failure, for programs; x-failure-codes has the statuses.",
            json_schema_extra={"enum": list(STATUS)},
        ),
    ]
    retryable: Annotated[bool, Field(description="Whether the same request may succeed later.")]
    job_id: UUID | SkipJsonSchema[None] = Field(
        None, description="The job, where there is one.", json_schema_extra=left_out, exclude_if=_absent
    )
    result_url: Url | SkipJsonSchema[None] = Field(
        None,
        description="Where the picture will be, of a job that timed out while its slot keeps late results.",
        json_schema_extra=left_out,
        exclude_if=_absent,
    )
    errors: Annotated[list[FieldError], Field(min_length=1)] | SkipJsonSchema[None] = Field(
        None,
        description="The fields that were wrong, where there are any.",
        json_schema_extra=left_out,
        exclude_if=_absent,
    )


class Accepted(BaseModel):
    """The photo is in and its job runs. Each link carries a token of its own: keep the cancel link from guests."""

    job_id: UUID
    status_url: Annotated[Url, Field(description="GET: how far the job is.")]
    result_url: Annotated[Url, Field(description="GET: the picture, once it is made. This is the guest's link.")]
    cancel_url: Annotated[Url, Field(description="POST: cancels the job.")]


class Result(BaseModel):
    """A job's picture."""

    url: Annotated[Url, Field(description="The public link; anyone who has it may see the picture.")]
    mime: Literal["image/jpeg", "image/png", "image/webp"]
    bytes: Annotated[int, Field(ge=1)]
    sha256: Annotated[Sha256, Field(description="SHA-256 of the picture's file in hex; also its ETag.")]
    width: Annotated[int, Field(ge=1, description="Pixels.")]
    height: Annotated[int, Field(ge=1, description="Pixels.")]
    expires_at: Annotated[datetime, Field(description="From this instant on the link answers 410.")]
    served_by: Annotated[str, Field(description="Provider and operation that made it.", examples=["local/filter"])]


class JobState(BaseModel):
    """How far a job is. ``failure`` is there when it did not end in time with a picture, ``result`` when there is a
    picture; both are, where it came late and its slot keeps it."""

    job_id: UUID
    slot_id: SlotId
    status: JobStatus
    created_at: Annotated[datetime, Field(description="When the upload began.")]
    expires_at: Annotated[datetime, Field(description="When the job is given up; the camera has its answer by then.")]
    finalized_at: datetime | None
    failure: Problem | None
    result: Result | None


class PictureBlock(BaseModel):
    """The JSON part before the picture, for slots that answer in Breeze Booth's multipart shape."""

    job_id: UUID
    result_url: Url
    expires_at: datetime


class Checks(BaseModel):
    """What was looked at."""

    database: Literal["ok"]
    migrations: Literal["ok"]
    storage: Literal["ok"]
    room: Literal["ok"]
    queue: Literal["ok"]


class Ready(BaseModel):
    """Photos can be served."""

    status: Literal["ready"]
    checks: Checks


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"]


class MediaObject(BaseModel):
    """A temporary public copy of a picture that a provider fetches by URL while its job runs, or that an administrator
    has registered."""

    id: Annotated[str, Field(pattern="^[0-9a-f]{40}$")]
    job_id: Annotated[UUID | None, Field(description="Null: it was registered.")]
    url: Url
    mime: Literal["image/jpeg", "image/png", "image/webp"]
    bytes: Annotated[int, Field(ge=1)]
    expires_at: Annotated[
        datetime, Field(description="From this instant on the link answers 410, or as soon as its job ends.")
    ]


class TemplateMedia(BaseModel):
    """A permanent reference picture (frame, background, style) that slot settings name by its id."""

    id: UUID
    name: str
    mime: Literal["image/jpeg", "image/png"]
    width: Annotated[int, Field(ge=1, description="Pixels.")]
    height: Annotated[int, Field(ge=1, description="Pixels.")]
    bytes: Annotated[int, Field(ge=1)]
    created_at: datetime
