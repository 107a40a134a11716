"""``GET /public/media/{media_id}``: a picture that a provider fetches while its job runs, and nobody afterwards."""

from __future__ import annotations

import falcon.asgi

from photochanger import media
from photochanger.failures import MediaExpired, MediaNotFound, ResultExpired
from web.pictures import PICTURE_CSP
from web.services import Services


class Media:
    """Temporary media by their unguessable id."""

    def __init__(self, services: Services) -> None:
        self._its = services

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, media_id: str) -> None:
        row = await media.find(self._its.db, media_id.replace("\x00", ""))
        if row is None:
            raise MediaNotFound()
        if not row["live"]:
            raise MediaExpired()
        resp.content_type = row["mime"]
        resp.set_header("Cache-Control", "private, no-store")
        resp.set_header("X-Content-Type-Options", "nosniff")
        resp.set_header("Content-Security-Policy", PICTURE_CSP)
        try:
            await self._its.pictures.send(resp, row["storage_key"], row["bytes"])
        except ResultExpired:  # revoked while we looked
            raise MediaExpired() from None

    on_head = on_get
