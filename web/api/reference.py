"""The contract of this very server, open to everyone: as JSON for programs, as a page for people."""

from __future__ import annotations

import gzip

import falcon
import falcon.asgi

from web.api import OPEN, contract, description, needs
from web.pages import Pages


class ContractFile:
    """``GET /api/openapi.json``: for generators, tests and whoever reads OpenAPI."""

    @needs(OPEN)
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        present = contract.present()
        resp.set_header("Cache-Control", "no-cache")
        resp.etag = present.etag
        if any(tag == "*" or tag == present.etag for tag in req.if_none_match or []):
            resp.status = falcon.HTTP_304
            return
        resp.content_type = "application/json"
        resp.data = present.data


class Reference:
    """``GET /api/docs``: the same to read, with a command to try for every operation."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    @needs(OPEN)
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        self._pages.render(
            req, resp, "reference.html", its=description.present(), address=f"{req.scheme}://{req.netloc}"
        )
        resp.set_header("Vary", "Accept-Encoding, Accept-Language")
        if "gzip" in (req.get_header("Accept-Encoding") or "") and resp.text is not None:
            resp.data, resp.text = gzip.compress(resp.text.encode(), compresslevel=5), None  # a tenth of its size
            resp.set_header("Content-Encoding", "gzip")
