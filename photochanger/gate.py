"""Whether a provider may be called now: its breaker, its permits and rates, the slot's budgets. Asked before each call.

Where a limit only asks for patience, the call waits for it as long as the time still holds the call itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from photochanger import breakers, limits
from photochanger.db import Database
from photochanger.failures import (
    BudgetSpent,
    Cancelled,
    Failure,
    ProviderFailure,
    ProviderQuota,
    SyncTimeout,
    Unavailable,
)
from photochanger.limits import Exhausted, Limit
from photochanger.providers import CallOptions
from photochanger.slots import Options as SlotOptions

#: Seconds past its call's last moment that a permit outlives a worker that never gives it back, yet lives.
OUTLIVES_S = 10.0
#: Seconds a permit's return may fail for want of the database before it is left to run out.
PATIENCE_S = 5.0


@dataclass(frozen=True)
class Call:
    """What is to be called, for whom. ``holder``: who is let in once, however often it asks. ``price``: what it is
    expected to cost. ``lasts_s``: seconds it may take at most. ``is_paid``: it only fetches what an earlier call has
    been paid for."""

    holder: str
    provider: str
    options: Any
    slot_id: str
    slot: SlotOptions
    price: float
    lasts_s: float
    is_paid: bool = False

    def limits(self) -> Sequence[Limit]:
        """Everything it needs."""
        return _calls(self) if self.is_paid else [*_calls(self), *_money(self)]


@dataclass
class Pass:
    """The right to make one call; ``leave`` it whatever came of it."""

    db: Database
    call: Call
    trial: bool = False

    async def leave(self, failure: Failure | None, *, cost: float | None) -> None:
        """Gives permits back and reports to the breaker. ``cost``: what it did cost; ``None`` where nobody knows, and
        the reservation stands."""
        await self.give_back(cost)
        await breakers.report(self.db, self.call.provider, failure, trial=self.trial)

    async def give_back(self, cost: float | None) -> None:
        call = self.call
        await limits.release(self.db, call.limits(), holder=call.holder, spent=cost, patience_s=PATIENCE_S)


@dataclass(frozen=True)
class Gate:
    """``worker_id``: the worker's row that permits go with."""

    db: Database
    worker_id: Callable[[], int | None]

    async def enter(self, call: Call, *, until: float, time_zone: str) -> Pass | None:
        """A pass, by ``until`` (monotonic) at the latest; ``None`` where nothing limits this provider. ``time_zone``:
        the administrator's, for calendar days.

        Raises:
            ProviderError, ProviderAuth, ProviderQuota: its breaker is open, or its calls are used up.
            BudgetSpent: the slot's money is.
            SyncTimeout: no permit was free in time.
            Unavailable: PostgreSQL cannot be reached.
        """
        if not isinstance(call.options, CallOptions):
            return None
        made = Pass(self.db, call, trial=not call.is_paid and await breakers.ask(self.db, call.provider))
        try:
            await self._granted(made, until, time_zone)
        except BaseException:
            if made.trial:
                await asyncio.shield(breakers.give_up_trial(self.db, call.provider))
            raise
        return made

    async def _granted(self, made: Pass, until: float, time_zone: str) -> None:
        while True:
            taking = asyncio.ensure_future(self._taken(made.call, time_zone))
            try:
                await asyncio.shield(taking)
                return
            except asyncio.CancelledError:
                with contextlib.suppress(Exhausted, Unavailable):  # it may be ours already: nobody else would know
                    await taking
                    await made.give_back(0.0)
                raise
            except Exhausted as short:
                waits = short.limit.kind in ("permit", "minute")
                if not waits or time.monotonic() + short.retry_after_s >= until:
                    raise _refusal(made.call, short) from None
                await asyncio.sleep(min(short.retry_after_s, 1.0))

    async def _taken(self, call: Call, time_zone: str) -> None:
        await limits.acquire(
            self.db,
            call.limits(),
            holder=call.holder,
            worker_id=self.worker_id(),
            lasts_s=call.lasts_s + OUTLIVES_S,
            time_zone=time_zone,
        )


def _calls(call: Call) -> Sequence[Limit]:
    options, key = call.options, f"calls/{call.provider}"
    found = []
    if options.max_concurrent is not None:
        found.append(Limit(f"{key}/at-once", options.max_concurrent, "permit"))
    if options.calls_per_minute is not None:
        found.append(Limit(f"{key}/minute", options.calls_per_minute, "minute"))
    if options.calls_per_day is not None:
        found.append(Limit(f"{key}/day", options.calls_per_day, "day"))
    return found


def _money(call: Call) -> Sequence[Limit]:
    key = f"budget/{call.slot_id}"
    found = []
    if call.slot.budget_per_day is not None:
        found.append(Limit(f"{key}/day", call.slot.budget_per_day, "day", call.price, is_money=True))
    if (period := call.slot.budget_period) is not None:
        name = f"{key}/period/{period.name}"
        times = {"until": period.ends_at, "begins": period.begins_at}
        found.append(Limit(name, period.amount, "period", call.price, **times, is_money=True))
    return found


def _refusal(call: Call, short: Exhausted) -> Failure:
    limit, most = short.limit, f"{short.limit.most:g}"
    if limit.key.startswith("budget/"):
        return BudgetSpent(
            f"The budget of {call.slot_id} ({limit.key.rpartition('/')[2]}: {most}) does not hold another call to "
            f"{call.provider}",
            retry_after_s=short.retry_after_s,
        )
    if limit.kind == "permit":
        return SyncTimeout(f"{call.provider} takes {most} calls at once here, and all were busy until it was too late")
    return ProviderQuota(
        f"{call.provider} may be called {most} times a {limit.kind} here, and has been",
        retry_after_s=short.retry_after_s,
    )


def cost_of(failure: Failure) -> float | None:
    """What a call that failed has cost, where the provider answered or never got it; ``None`` where it was cut off."""
    if isinstance(failure, Cancelled | SyncTimeout | Unavailable) or _cut_off(failure.__cause__):
        return None
    return failure.cost if isinstance(failure, ProviderFailure) else 0.0


def _cut_off(cause: BaseException | None) -> bool:
    """Whether the provider may have worked for nothing: its answer did not come whole."""
    if isinstance(cause, httpx.TransportError):
        return not isinstance(cause, httpx.ConnectError | httpx.ConnectTimeout)
    return isinstance(cause, TimeoutError)
