"""What browsers get outside of the contract where programs get a problem: a page that says what to do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import falcon.asgi

from photochanger import logs
from photochanger.failures import Failure
from web.api.authority import caller_of
from web.pages import AGAIN_S, details, wants_page
from web.pages.frame import Framed

Handler = Callable[[falcon.asgi.Request, falcon.asgi.Response, Any, dict[str, Any]], Awaitable[None]]

#: First parts of addresses where everybody gets a problem, and of those where the contract says what one gets.
_PROGRAMS = ("api", "ingest")
_CONTRACT = ("public", "healthz", "readyz", "metrics")
#: What to do, by status: the words are ``refused.<name>``.
_ADVICE = {403: "forbidden", 404: "missing", 410: "missing", 429: "busy", 500: "broken", 503: "unavailable"}


class Refusals(Framed):
    """Turns a problem that an error handler has written into a page, where a browser has asked."""

    def paged(self, handler: Handler) -> Handler:
        """The same handler, with a page behind it."""

        async def within(
            req: falcon.asgi.Request, resp: falcon.asgi.Response, error: Any, params: dict[str, Any]
        ) -> None:
            if isinstance(error, Failure):
                details.tell_page(req, error)
            await handler(req, resp, error, params)
            if _is_for_people(req):
                await self._page(req, resp)

        return within

    async def _page(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        failure: Failure = resp.context.failure
        status = resp.status_code
        if status < 500 and not hasattr(req.context, "account"):
            with suppress(Failure):  # nobody is signed in: there is a page for them, too
                req.context.account = await caller_of(self._its, req)
        resp.append_header("Vary", "Accept, Accept-Language")
        self.show(
            req,
            resp,
            "refused.html",
            status=status,
            failure=failure,
            advice=_ADVICE.get(status, "request"),
            request_id=logs.request_id.get(),
            again_s=AGAIN_S if status == 503 else None,
        )


def _is_for_people(req: falcon.asgi.Request) -> bool:
    """Whether a browser asks, for an address that is no program's."""
    part = req.path.lstrip("/").split("/")[0]
    if part in _PROGRAMS or (req.uri_template and part in _CONTRACT):
        return False
    return wants_page(req)
