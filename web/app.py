"""The Falcon app: ``uvicorn web.app:app``. Every route is in the list below."""

from __future__ import annotations

import logging
from typing import Any

import falcon
import falcon.asgi

from photochanger import config, logs
from photochanger.config import Config
from photochanger.failures import Failure
from web import exchange, problems
from web.health import Health, Metrics, Ready
from web.ingest import Ingest
from web.middleware import Lifespan, RequestLog
from web.pages import WEB, Home, Pages
from web.public.job_status import JobCancel, JobStatusResource
from web.public.media import Media
from web.public.results import Results
from web.services import Services
from web.uploads import MAX_PART_HEAD_BYTES, MAX_PARTS


def create_app(settings: Config) -> exchange.App:
    """The ASGI application; it connects at the lifespan's start."""
    return exchange.exchanges(falcon_app(settings))  # type: ignore[arg-type]


def falcon_app(settings: Config) -> falcon.asgi.App[Any, Any]:
    """The routes, resources and error handlers, before ``exchange`` goes around them."""
    services = Services(settings)
    pages = Pages()
    around: list[Any] = [RequestLog(), Lifespan(services)]
    app: falcon.asgi.App[Any, Any] = falcon.asgi.App(middleware=around)
    app.set_error_serializer(lambda req, resp, error: None)
    app.add_error_handler(Exception, problems.on_exception)
    app.add_error_handler(falcon.HTTPError, problems.on_http_error)
    app.add_error_handler(Failure, problems.on_failure)
    _limit_forms(app)

    app.add_route("/", Home(pages))
    app.add_route("/ingest/{slot_id}", Ingest(services))
    app.add_route("/public/jobs/{job_id}", JobStatusResource(services))
    app.add_route("/public/jobs/{job_id}/cancel", JobCancel(services))
    app.add_route("/public/media/{media_id}", Media(services))
    app.add_route("/public/results/{job_id}", Results(services, pages))
    app.add_route("/healthz", Health())
    app.add_route("/readyz", Ready(services))
    app.add_route("/metrics", Metrics(services))
    app.add_static_route("/static", WEB / "static")
    return app


def _limit_forms(app: falcon.asgi.App[Any, Any]) -> None:
    handler: Any = app.req_options.media_handlers[falcon.MEDIA_MULTIPART]
    handler.parse_options.max_body_part_count = MAX_PARTS
    handler.parse_options.max_body_part_headers_size = MAX_PART_HEAD_BYTES


def __getattr__(name: str) -> Any:
    """``app``, made when the server asks for it: importing this module reads no environment."""
    if name != "app":
        raise AttributeError(name)
    settings = config.load_or_exit()
    logs.setup(settings.log_format, settings.log_level)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    try:
        return create_app(settings)
    except config.ConfigError as error:
        raise SystemExit(f"photochanger: {error}") from None
