"""The Falcon app: ``uvicorn web.app:app``. Every route is in the list below."""

from __future__ import annotations

import logging
from typing import Any

import falcon
import falcon.asgi
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from photochanger import config, logs
from photochanger.config import Config
from photochanger.failures import Failure
from web import exchange, problems
from web.api.archive import ResultZip
from web.api.audit import AuditTrail
from web.api.authority import Authority
from web.api.backups import BackupList
from web.api.events import Events
from web.api.galleries import OneShare, ResultList, Shares
from web.api.jobs import JobCancelling, JobOriginal, JobRerun, Jobs, JobsCancel, JobsRerun, JobSuggestions, OneJob
from web.api.me import Me, MyPassword
from web.api.media import (
    CachePurge,
    MediaRegister,
    OneTemplate,
    TemplateList,
    TemplatePicture,
    TemplateRegister,
)
from web.api.providers import OneProvider, ProviderKey, ProviderReset, Providers, ProviderTest
from web.api.reference import ContractFile, Reference
from web.api.settings import IngestPasswordResource, SettingsResource
from web.api.sign_in import Login, Logout, Refresh
from web.api.slots import OneSlot, SlotArchive, SlotDuplicate, SlotResetStats, SlotRestore, Slots
from web.api.stats import GlobalStats, SlotStats
from web.api.system import DeadLetterRequeue, DeadLetters, OneDeadLetter, PublicAddress, ScheduleList, System
from web.api.trial import SlotTestRun
from web.api.users import SignOut, User, UserPassword, Users
from web.health import Health, Metrics, Ready
from web.ingest import Ingest
from web.middleware import HostCheck, Lifespan, RequestLog
from web.pages import WEB, Pages
from web.pages.audit import AuditPage
from web.pages.gallery import GalleryPage, ResultQr, SharePage, SlideshowPage
from web.pages.jobs import JobPage, JobsPage
from web.pages.overview import OverviewPage
from web.pages.refusals import Refusals
from web.pages.settings import SettingsPage
from web.pages.sign_in import PasswordPage, SignInPage, SignOutPage
from web.pages.slots import SlotPage, SlotsPage
from web.pages.statistics import StatisticsPage
from web.pages.system import SystemPage
from web.pages.template_media import TemplatesPage
from web.pages.users import UsersPage
from web.public.gallery import GalleryPictureResource, PublicGallery
from web.public.job_status import JobCancel, JobStatusResource
from web.public.media import Media
from web.public.results import Results
from web.services import Services
from web.uploads import MAX_PART_HEAD_BYTES, MAX_PARTS


def create_app(settings: Config) -> exchange.App:
    """The ASGI application; it connects at the lifespan's start."""
    app: Any = exchange.exchanges(falcon_app(settings))  # type: ignore[arg-type]
    if settings.trusted_proxies:  # here, not by an option of uvicorn's, whatever command has started it
        app = ProxyHeadersMiddleware(app, settings.trusted_proxies)
    return app  # type: ignore[no-any-return]


def falcon_app(settings: Config) -> falcon.asgi.App[Any, Any]:
    """The routes, resources and error handlers, before ``exchange`` goes around them."""
    services = Services(settings)
    pages = Pages()
    around: list[Any] = [RequestLog(), HostCheck(), Authority(services), Lifespan(services)]
    app: falcon.asgi.App[Any, Any] = falcon.asgi.App(middleware=around)
    app.set_error_serializer(lambda req, resp, error: None)
    refusals = Refusals(services, pages)
    app.add_error_handler(Exception, refusals.paged(problems.on_exception))
    app.add_error_handler(falcon.HTTPError, refusals.paged(problems.on_http_error))
    app.add_error_handler(Failure, refusals.paged(problems.on_failure))
    _limit_forms(app)

    app.add_route("/", OverviewPage(services, pages))
    app.add_route("/sign-in", SignInPage(services, pages))
    app.add_route("/sign-out", SignOutPage(services, pages))
    app.add_route("/password", PasswordPage(services, pages))
    app.add_route("/jobs", JobsPage(services, pages))
    app.add_route("/jobs/{job_id}", JobPage(services, pages))
    app.add_route("/statistics", StatisticsPage(services, pages))
    app.add_route("/settings", SettingsPage(services, pages))
    app.add_route("/users", UsersPage(services, pages))
    app.add_route("/system", SystemPage(services, pages))
    app.add_route("/audit", AuditPage(services, pages))
    app.add_route("/slots", SlotsPage(services, pages))
    app.add_route("/slots/{slot_id}", SlotPage(services, pages))
    app.add_route("/templates", TemplatesPage(services, pages))
    app.add_route("/gallery", GalleryPage(services, pages))
    app.add_route("/gallery/slideshow", SlideshowPage(services, pages))
    app.add_route("/gallery/shares/{share_id}", SharePage(services, pages))
    app.add_route("/gallery/results/{job_id}/qr", ResultQr(services, pages))
    app.add_route("/ingest/{slot_id}", Ingest(services))
    app.add_route("/public/jobs/{job_id}", JobStatusResource(services))
    app.add_route("/public/jobs/{job_id}/cancel", JobCancel(services))
    app.add_route("/public/media/{media_id}", Media(services))
    app.add_route("/public/results/{job_id}", Results(services, pages))
    app.add_route("/api/login", Login(services))
    app.add_route("/api/refresh", Refresh(services))
    app.add_route("/api/logout", Logout(services))
    app.add_route("/api/me", Me(services))
    app.add_route("/api/me/password", MyPassword(services))
    app.add_route("/api/users", Users(services))
    app.add_route("/api/users/{name}", User(services))
    app.add_route("/api/users/{name}/password", UserPassword(services))
    app.add_route("/api/users/{name}/sign-out", SignOut(services))
    app.add_route("/api/audit", AuditTrail(services))
    app.add_route("/api/slots", Slots(services))
    app.add_route("/api/slots/{slot_id}", OneSlot(services))
    app.add_route("/api/slots/{slot_id}/archive", SlotArchive(services))
    app.add_route("/api/slots/{slot_id}/restore", SlotRestore(services))
    app.add_route("/api/slots/{slot_id}/duplicate", SlotDuplicate(services))
    app.add_route("/api/slots/{slot_id}/test-run", SlotTestRun(services))
    app.add_route("/api/slots/{slot_id}/reset-stats", SlotResetStats(services))
    app.add_route("/api/settings", SettingsResource(services))
    app.add_route("/api/settings/ingest-password", IngestPasswordResource(services))
    app.add_route("/api/providers", Providers(services))
    app.add_route("/api/providers/{name}", OneProvider(services))
    app.add_route("/api/providers/{name}/key", ProviderKey(services))
    app.add_route("/api/providers/{name}/test", ProviderTest(services))
    app.add_route("/api/providers/{name}/reset", ProviderReset(services))
    app.add_route("/api/media/register", MediaRegister(services))
    app.add_route("/api/media/cache/purge", CachePurge(services))
    app.add_route("/api/template-media", TemplateList(services))
    app.add_route("/api/template-media/register", TemplateRegister(services))
    app.add_route("/api/template-media/{template_id}", OneTemplate(services))
    app.add_route("/api/template-media/{template_id}/picture", TemplatePicture(services))
    app.add_route("/api/jobs", Jobs(services))
    app.add_route("/api/jobs/suggestions", JobSuggestions(services))
    app.add_route("/api/jobs/cancel", JobsCancel(services))
    app.add_route("/api/jobs/rerun", JobsRerun(services))
    app.add_route("/api/jobs/{job_id}", OneJob(services))
    app.add_route("/api/jobs/{job_id}/original", JobOriginal(services))
    app.add_route("/api/jobs/{job_id}/cancel", JobCancelling(services))
    app.add_route("/api/jobs/{job_id}/rerun", JobRerun(services))
    app.add_route("/api/results", ResultList(services))
    app.add_route("/api/results/zip", ResultZip(services))
    app.add_route("/api/stats/global", GlobalStats(services))
    app.add_route("/api/stats/{slot_id}", SlotStats(services))
    app.add_route("/api/events", Events(services))
    app.add_route("/api/gallery-shares", Shares(services))
    app.add_route("/api/gallery-shares/{share_id}", OneShare(services))
    app.add_route("/api/system", System(services))
    app.add_route("/api/system/backups", BackupList(services))
    app.add_route("/api/system/schedules", ScheduleList(services))
    app.add_route("/api/system/dead-letters", DeadLetters(services))
    app.add_route("/api/system/dead-letters/{message_id}", OneDeadLetter(services))
    app.add_route("/api/system/dead-letters/{message_id}/requeue", DeadLetterRequeue(services))
    app.add_route("/api/system/public-address/check", PublicAddress(services))
    app.add_route("/public/galleries/{share_id}", PublicGallery(services, pages))
    app.add_route("/public/galleries/{share_id}/pictures/{job_id}", GalleryPictureResource(services))
    app.add_route("/api/openapi.json", ContractFile())
    app.add_route("/api/docs", Reference(pages))
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
