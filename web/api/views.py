"""What several resources of the admin API answer with: pictures with their links, days in numbers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import falcon.asgi
from pydantic import BaseModel, Field

from photochanger import job_list
from photochanger.settings import Settings
from web.models import Url
from web.services import Services

#: Pixels of the longer side of the pictures in lists.
SMALL = 320


class PictureView(BaseModel):
    """A picture that can be fetched now."""

    job_id: UUID
    slot_id: str
    created_at: Annotated[datetime, Field(description="When the photo's upload began.")]
    finalized_at: datetime
    expires_at: Annotated[datetime, Field(description="From this instant on the links answer 410.")]
    mime: Literal["image/jpeg", "image/png", "image/webp"]
    bytes: int
    width: int
    height: int
    served_by: Annotated[str, Field(description="Provider and operation that made it.", examples=["local/filter"])]
    late: Annotated[bool, Field(description="It came after its job had timed out.")]
    url: Annotated[Url, Field(description="The guest's link: anyone who has it may see the picture.")]
    thumbnail_url: Annotated[Url, Field(description=f"The same, {SMALL} pixels at most, as WebP.")]


def picture(its: Services, req: falcon.asgi.Request, current: Settings, one: job_list.Picture) -> PictureView:
    """A stored picture with its links."""
    url = its.result_url(req, current, one.job_id, one.result_expires_at)
    seen = one.model_dump(exclude={"result_expires_at"})
    return PictureView(**seen, expires_at=one.result_expires_at, url=url, thumbnail_url=f"{url}&size={SMALL}")
