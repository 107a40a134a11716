"""Every metric, by name. Counters and histograms of all processes of this machine are added up at the scrape."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from photochanger.db import Database
from photochanger.failures import Unavailable

#: Seconds. The default deadline is 48 s, the longest 60 s.
_LATENCY = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 25, 35, 45, 60)

INGESTS = Counter("photochanger_ingests", "Photos answered", ["slot", "provider", "outcome"])
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

_QUEUE = """
SELECT count(*) FILTER (WHERE state = 'queued')::int AS queued,
       count(*) FILTER (WHERE state = 'consumed')::int AS running,
       count(*) FILTER (WHERE state = 'rejected')::int AS dead,
       coalesce(extract(epoch FROM clock_timestamp() - min(due_at) FILTER (WHERE state = 'queued')), 0)::float8
           AS oldest_s,
       (SELECT count(*)::int FROM dramatiq.worker WHERE beat_at > clock_timestamp() - interval '5 s') AS workers
FROM dramatiq.queue
"""
_GAUGES = {
    "queued": ("photochanger_queue_depth", "Messages waiting"),
    "running": ("photochanger_queue_running", "Messages claimed by workers"),
    "dead": ("photochanger_queue_dead_letters", "Messages that failed and wait for an administrator"),
    "oldest_s": ("photochanger_queue_oldest_seconds", "Age of the oldest waiting message"),
    "workers": ("photochanger_workers", "Live worker processes"),
}


async def scrape(db: Database) -> bytes:
    """Everything in Prometheus's text form; what the database knows is read now."""
    registry = CollectorRegistry()
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        for metric in (INGESTS, INGEST_SECONDS, QUEUE_SECONDS, PROVIDER_SECONDS, STORAGE_SECONDS, RETRIES, TIMEOUTS,
                       POLLS, CLEANUPS, MODEL_RETIRES):  # fmt: skip
            registry.register(metric)
    registry.register(_Ready(await _from_database(db)))
    return generate_latest(registry)


async def _from_database(db: Database) -> list[GaugeMetricFamily]:
    """What only the database knows; while it is away, that it is."""
    try:
        queue = (await db.fetch(_QUEUE))[0]
        runs = await db.fetch("SELECT name, extract(epoch FROM last_run_at)::float8 AS at FROM scheduled_run")
        open_breakers = await db.fetch(
            "SELECT provider, (open_until IS NOT NULL)::int AS open FROM breaker ORDER BY provider"
        )
        used = await db.fetch(
            "SELECT key, sum(amount)::float8 AS used FROM limit_use WHERE expires_at > clock_timestamp() "
            "AND key NOT LIKE 'ingest/address/%' GROUP BY key ORDER BY key"
        )
    except Unavailable:
        return [GaugeMetricFamily("photochanger_database_up", "PostgreSQL answers", value=0)]
    breakers = GaugeMetricFamily("photochanger_breaker_open", "The provider is not asked", labels=["provider"])
    for row in open_breakers:
        breakers.add_metric([row["provider"]], row["open"])
    limits = GaugeMetricFamily("photochanger_limit_used", "Used of a limit or budget", labels=["limit"])
    for row in used:
        limits.add_metric([row["key"]], row["used"])
    last_run = GaugeMetricFamily("photochanger_last_run_timestamp_seconds", "Last run of a task", labels=["task"])
    for row in runs:
        last_run.add_metric([row["name"]], row["at"])
    gauges = [GaugeMetricFamily(name, words, value=queue[column]) for column, (name, words) in _GAUGES.items()]
    return [
        GaugeMetricFamily("photochanger_database_up", "PostgreSQL answers", value=1),
        *gauges,
        last_run,
        breakers,
        limits,
    ]


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
