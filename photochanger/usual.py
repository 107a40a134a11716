"""How long a provider's call usually takes and what it costs: measured by recent attempts, else as its driver says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from photochanger.db import Database
from photochanger.providers import CallOptions, Provider
from photochanger.slots import Rung

#: Attempts looked at: the newest of all, the newest of each kind among them, none older than this.
NEWEST = 2000
NEWEST_OF_A_KIND = 200
NEWEST_H = 1
#: The driver's own figure counts as this many calls beside those that were measured: three quick ones prove little.
PRIOR_CALLS = 10

_MEASURE = f"""
WITH newest AS (SELECT * FROM attempt ORDER BY id DESC LIMIT {NEWEST})
, known AS (
    SELECT a.provider, a.operation,
           coalesce(job.snapshot #>> ARRAY['route', 'rungs', a.rung::text, 'settings', 'model'], '') AS model,
           extract(epoch FROM a.responded_at - a.dispatched_at)::float8 AS seconds, a.cause, a.cost, a.id
    FROM newest a JOIN job ON job.id = a.job_id
    WHERE a.responded_at > clock_timestamp() - interval '{NEWEST_H} hours' AND a.cause IS DISTINCT FROM 'cancelled'
), ranked AS (
    SELECT *, row_number() OVER (PARTITION BY provider, operation, model ORDER BY id DESC) AS place FROM known
)
INSERT INTO usual_time (provider, operation, model, calls, p50_s, p90_s, mean_s, mean_cost)
SELECT provider, operation, model, count(*),
       percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) FILTER (WHERE cause IS NULL),
       percentile_cont(0.9) WITHIN GROUP (ORDER BY seconds) FILTER (WHERE cause IS NULL),
       avg(seconds), avg(cost) FILTER (WHERE cause IS NULL)
FROM ranked WHERE place <= {NEWEST_OF_A_KIND}
GROUP BY provider, operation, model HAVING count(*) FILTER (WHERE cause IS NULL) > 0
ON CONFLICT (provider, operation, model) DO UPDATE SET
    calls = EXCLUDED.calls, p50_s = EXCLUDED.p50_s, p90_s = EXCLUDED.p90_s, mean_s = EXCLUDED.mean_s,
    mean_cost = EXCLUDED.mean_cost, measured_at = clock_timestamp()
RETURNING 1 AS measured
"""  # noqa: S608 - our own constants


@dataclass(frozen=True)
class Usual:
    """Seconds nine of ten good calls stay under, seconds the average call takes, its average cost, and of how many."""

    p90_s: float
    mean_s: float
    mean_cost: float = 0.0
    calls: int = NEWEST_OF_A_KIND


class Times:
    """What was measured, by provider, operation and model."""

    def __init__(self, measured: Mapping[tuple[str, str, str], Usual]) -> None:
        self._measured = measured

    def of(self, rung: Rung, provider: Provider, options: Any) -> Usual:
        """Of one rung's calls: as measured, drawn towards the driver's figure where there are few."""
        usual_s = provider.usual_for(rung.settings, options)
        key = (rung.provider, rung.operation, str(rung.settings.get("model") or ""))
        found = self._measured.get(key)
        if found is None:
            return Usual(usual_s, usual_s, calls=0)
        share = PRIOR_CALLS / (PRIOR_CALLS + found.calls)
        return Usual(
            found.p90_s + share * (usual_s - found.p90_s),
            found.mean_s + share * (usual_s - found.mean_s),
            found.mean_cost,
            found.calls,
        )

    def price_of(self, rung: Rung, provider: Provider, options: Any) -> float:
        """What one call is expected to cost: as set, else as measured."""
        if not isinstance(options, CallOptions):
            return 0.0
        return options.prices.get(rung.operation, self.of(rung, provider, options).mean_cost)

    def listing(self) -> list[tuple[str, Usual]]:
        """Everything measured, by ``provider/operation/model``."""
        return [("/".join(filter(None, key)), usual) for key, usual in sorted(self._lately(), key=lambda one: one[0])]

    def _lately(self) -> Iterable[tuple[tuple[str, str, str], Usual]]:
        return ((key, usual) for key, usual in self._measured.items() if usual.calls)

    def least_by_provider(self) -> dict[str, float]:
        """Seconds of each provider's quickest operation."""
        least: dict[str, float] = {}
        for (provider, _, _), usual in self._lately():
            least[provider] = min(usual.p90_s, least.get(provider, usual.p90_s))
        return least


async def load(db: Database) -> Times:
    """What was measured. Times of long ago count as none: a rung that is not asked because it once was slow must be
    asked again one day. What calls have cost stays known."""
    rows = await db.fetch(
        "SELECT provider, operation, model, p90_s, mean_s, mean_cost::float8 AS cost, "
        "CASE WHEN measured_at > clock_timestamp() - %(hours)s * interval '1 hour' THEN calls ELSE 0 END AS calls "
        "FROM usual_time",
        {"hours": NEWEST_H},
    )
    return Times(
        {
            (row["provider"], row["operation"], row["model"]): Usual(
                row["p90_s"], row["mean_s"], row["cost"], row["calls"]
            )
            for row in rows
        }
    )


async def measure(db: Database) -> int:
    """Rolls the newest attempts up; how many kinds of calls there were."""
    return len(await db.fetch(_MEASURE))
