"""What is looked at while photos come: the queue, the provider's calls, the web process's memory, connections."""

from __future__ import annotations

import time
from dataclasses import dataclass

import psutil
import psycopg
from psycopg.rows import class_row

from ops.load.stage import Simulated
from tests.installation import Installation

EVERY_S = 0.5

_SQL = """
SELECT count(*) FILTER (WHERE state = 'queued')::int AS waiting,
       count(*) FILTER (WHERE state = 'consumed')::int AS running,
       (SELECT count(*)::int FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
            AND backend_type = 'client backend') AS connections
FROM dramatiq.queue
"""


@dataclass
class Sample:
    """One look: messages ``waiting`` and ``running``, calls ``flying``; ``at_s`` from the run's begin."""

    waiting: int
    running: int
    connections: int
    flying: int = 0
    web_mb: float = 0.0
    at_s: float = 0.0


class Watch:
    """Looks whenever it is asked to, on connections of its own."""

    def __init__(self, database_url: str, provider: Simulated, installation: Installation) -> None:
        self.samples: list[Sample] = []
        self._sql = psycopg.connect(database_url, autocommit=True, row_factory=class_row(Sample))
        self._provider = provider
        self._installation = installation
        self._web = installation.part("web")
        self._began = time.monotonic()

    def look(self) -> None:
        sample = self._sql.execute(_SQL.encode()).fetchone()
        assert sample is not None
        sample.flying = self._provider.counted()["flying"]
        sample.web_mb = self._web_mb()
        sample.at_s = time.monotonic() - self._began
        self.samples.append(sample)

    def close(self) -> None:
        self._sql.close()

    def _web_mb(self) -> float:
        try:
            return float(self._web.memory_info().rss) / 1e6
        except psutil.Error:  # it has ended, and the supervisor starts it again
            self._web = self._installation.part("web")
            return 0.0
