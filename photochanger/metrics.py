"""Every metric, by name. Counters and histograms of all processes of this machine are added up at the scrape."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from photochanger.db import Database, Row
from photochanger.failures import BY_CODE, ProviderFailure, Unavailable

#: Seconds. The default deadline is 48 s, the longest 60 s.
_LATENCY = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 25, 35, 45, 60)

#: ``provider``: who made the picture or was asked last; ``none``: nobody was. ``outcome``: ``succeeded``, ``accepted``
#: (202) or a failure code.
INGESTS = Counter("photochanger_ingests", "Photos answered", ["slot", "provider", "outcome"])
#: Outcomes that are told from the first scrape on: of a series that comes with its first failure no increase is seen.
_UNASKED = ("budget_spent", "internal_error", "invalid_password", "provider_auth", "provider_quota", "queue_full",
            "sync_timeout")  # fmt: skip
_ASKED = (*(code for code, cls in BY_CODE.items() if issubclass(cls, ProviderFailure)), "internal_error",
          "sync_timeout", "worker_lost")  # fmt: skip
INGEST_SECONDS = Histogram("photochanger_ingest_seconds", "Request begin to answer", ["slot"], buckets=_LATENCY)
QUEUE_SECONDS = Histogram("photochanger_queue_wait_seconds", "Request begin to claim", buckets=_LATENCY)
PROVIDER_SECONDS = Histogram("photochanger_provider_seconds", "One attempt", ["provider"], buckets=_LATENCY)
STORAGE_SECONDS = Histogram("photochanger_storage_seconds", "Making a result durable", buckets=_LATENCY)
MODEL_RETIRES = Gauge(
    "photochanger_model_retires_timestamp_seconds",
    "When a model the provider is asked for will be retired",
    ["provider", "model"],
    multiprocess_mode="mostrecent",
)
RETRIES = Counter("photochanger_retries", "Jobs claimed again after a crash, attempts tried again", ["provider"])
TIMEOUTS = Counter("photochanger_timeouts", "Jobs that were not ready in time")
POLLS = Counter("photochanger_polls", "Reads of job rows for waiting requests")
CLEANUPS = Counter("photochanger_cleaned_files", "Files deleted after their time", ["kind"])

#: How the queue stands: ``queued``, ``running``, ``dead``, ``oldest_s`` and ``workers``.
QUEUE = """
SELECT count(*) FILTER (WHERE state = 'queued')::int AS queued,
       count(*) FILTER (WHERE state = 'consumed')::int AS running,
       count(*) FILTER (WHERE state = 'rejected')::int AS dead,
       coalesce(extract(epoch FROM clock_timestamp() - min(due_at) FILTER (WHERE state = 'queued')), 0)::float8
           AS oldest_s,
       (SELECT count(*)::int FROM dramatiq.worker WHERE beat_at > clock_timestamp() - interval '5 s') AS workers
FROM dramatiq.queue
"""
_BUDGETS = """
SELECT budget.key, budget.most FROM slot CROSS JOIN LATERAL (VALUES
    ('budget/' || id || '/day', (options ->> 'budget_per_day')::float8),
    ('budget/' || id || '/period/' || (options #>> '{budget_period,name}'),
     (options #>> '{budget_period,amount}')::float8)) AS budget (key, most)
WHERE archived_at IS NULL AND budget.most IS NOT NULL ORDER BY budget.key
"""
_GAUGES = {
    "queued": ("photochanger_queue_depth", "Messages waiting"),
    "running": ("photochanger_queue_running", "Messages claimed by workers"),
    "dead": ("photochanger_queue_dead_letters", "Messages that failed and wait for an administrator"),
    "oldest_s": ("photochanger_queue_oldest_seconds", "Age of the oldest waiting message"),
    "workers": ("photochanger_workers", "Live worker processes"),
}
_DISK = {
    "free_bytes": ("photochanger_disk_free_bytes", "Free on the disk that holds the pictures"),
    "total_bytes": ("photochanger_disk_total_bytes", "Size of that disk"),
    "reserve_bytes": ("photochanger_disk_reserve_bytes", "With less free, photos are refused"),
}


def expect(slot: str, providers: Iterable[str]) -> None:
    """Has the counts of a slot's failures, at the providers it may ask, begin with zero."""
    for provider, outcomes in (("none", _UNASKED), *((name, _ASKED) for name in providers)):
        for outcome in outcomes:
            INGESTS.labels(slot, provider, outcome)


async def scrape(db: Database, disk: Mapping[str, float]) -> bytes:
    """Everything in Prometheus's text form; what the database knows is read now. ``disk``: what is known of it, by the
    names of ``_DISK``."""
    registry = CollectorRegistry()
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        for metric in (INGESTS, INGEST_SECONDS, QUEUE_SECONDS, PROVIDER_SECONDS, STORAGE_SECONDS, RETRIES, TIMEOUTS,
                       POLLS, CLEANUPS, MODEL_RETIRES):  # fmt: skip
            registry.register(metric)
    gauges = [GaugeMetricFamily(*_DISK[name], value=value) for name, value in disk.items() if name in _DISK]
    registry.register(_Ready(gauges + await _from_database(db)))
    return generate_latest(registry)


async def _from_database(db: Database) -> list[GaugeMetricFamily]:
    """What only the database knows; while it is away, that it is."""
    try:
        queue = (await db.fetch(QUEUE))[0]
        runs = await db.fetch(
            "SELECT name, extract(epoch FROM last_run_at)::float8 AS at, (last_result ? 'failed')::int AS failed "
            "FROM scheduled_run ORDER BY name"
        )
        breakers = await db.fetch(
            "SELECT provider, cause, (open_until IS NOT NULL)::int AS open FROM breaker ORDER BY provider"
        )
        used = await db.fetch(
            "SELECT key, sum(amount)::float8 AS used FROM limit_use WHERE expires_at > clock_timestamp() "
            "AND key !~ '^[a-z]+/address/' GROUP BY key ORDER BY key"
        )
        budgets = await db.fetch(_BUDGETS)
    except Unavailable:
        return [GaugeMetricFamily("photochanger_database_up", "PostgreSQL answers", value=0)]
    return [
        GaugeMetricFamily("photochanger_database_up", "PostgreSQL answers", value=1),
        *(GaugeMetricFamily(name, words, value=queue[column]) for column, (name, words) in _GAUGES.items()),
        _family("photochanger_last_run_timestamp_seconds", "Last run of a task", runs, "at", task="name"),
        _family("photochanger_last_run_failed", "The last run of a task failed", runs, "failed", task="name"),
        _family("photochanger_breaker_open", "The provider is not asked", breakers, "open",
                provider="provider", cause="cause"),
        _family("photochanger_limit_used", "Used of a limit or budget", used, "used", limit="key"),
        _family("photochanger_limit_max", "What a budget allows", budgets, "most", limit="key"),
    ]  # fmt: skip


def _family(name: str, words: str, rows: Sequence[Row], value: str, **labels: str) -> GaugeMetricFamily:
    """A gauge with one sample a row; ``value`` and ``labels`` name its columns."""
    family = GaugeMetricFamily(name, words, labels=list(labels))
    for row in rows:
        family.add_metric([row[column] for column in labels.values()], row[value])
    return family


class _Ready(Collector):
    def __init__(self, families: list[GaugeMetricFamily]) -> None:
        self._families = families

    def collect(self) -> list[GaugeMetricFamily]:
        return self._families


def prepare_dir(folder: Path) -> None:
    """Empties the folder through which the processes of this machine add up their numbers. Call before any starts."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
