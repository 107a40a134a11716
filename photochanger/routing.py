"""Walks a slot's route inside the job's budget: which rung is tried, when the next one takes over, and when two race.

It and ``rungs`` are the only places where a provider call is decided on, and the only ones where anything is tried
again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path

from photochanger import logs
from photochanger.deadlines import STORE_S
from photochanger.failures import Failure, Unavailable
from photochanger.jobs import Claim
from photochanger.rungs import AttemptFailed, NotOurs, Served, Step, Surroundings, another_rung_may_help
from photochanger.slots import Route, Rung

#: Seconds from one rung's end to the next one's beginning: its attempt is closed, the next is recorded.
HAND_OVER_S = 0.25
#: A hedged route starts its next rung when the one before has taken this many times what nine calls of ten take.
HEDGE_AFTER = 1.25


@dataclass(frozen=True)
class Router:
    """Serves jobs by their slots' routes."""

    its: Surroundings

    async def usual_s(self) -> dict[str, float]:
        """Seconds a call takes at least, usually, by provider."""
        measured: dict[str, float] = {}
        with contextlib.suppress(Unavailable):  # a claim is patient, and may be without it
            measured = (await self.its.times()).least_by_provider()
        return {name: measured.get(name, provider.usual_s) for name, provider in self.its.registry.items()}

    async def serve(self, claim: Claim, *, deadline: float) -> Served | None:
        """Makes the job's picture by ``deadline`` (monotonic), in a file of its own. ``None``: the job is no longer
        ours.

        Raises:
            AttemptFailed: with the failure to end the job with.
        """
        # A newer version's slots may have fields that this one does not know.
        route = Route.model_validate(claim.route, extra="ignore")
        paid = (claim.reference or "").partition("/")[0]
        # rungs before one that something is paid for had failed before the worker did that left it
        begin = next((number for number, rung in enumerate(route.rungs) if rung.provider == paid), 0)
        walk = _Walk(self.its, claim, route, deadline, begin)
        made: Path | None = None
        try:
            served = await walk.go()
            made = served.picture.path
            return served
        except NotOurs:
            return None
        finally:
            await asyncio.shield(walk.end(but=made))


@dataclass
class _Walk:
    """One job's way along its route. ``next``: the number of the rung to be started next."""

    its: Surroundings
    claim: Claim
    route: Route
    deadline: float
    next: int
    begun: list[Step] = field(default_factory=list)
    running: dict[asyncio.Task[Served], Step] = field(default_factory=dict)
    hedged: bool = False

    async def go(self) -> Served:
        """The first picture that any rung makes.

        Raises:
            AttemptFailed, NotOurs, Unavailable: none did.
        """
        await self._start()
        while True:
            after_s = await self._hedge_after_s()
            if after_s is not None and after_s <= 0:
                await self._hedge()
                continue
            done, _ = await asyncio.wait(self.running, timeout=after_s, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                step = self.running.pop(task)
                try:
                    return task.result()
                except (NotOurs, asyncio.CancelledError):
                    raise
                except Unavailable:
                    if not self.running:
                        raise
                except Exception as error:
                    await self._failed(step, error if isinstance(error, AttemptFailed) else step.broken(error))

    async def end(self, *, but: Path | None) -> None:
        """Cuts off what still runs, and deletes what it leaves, all but the picture that was made."""
        for task in self.running:
            task.cancel()
        ended = await asyncio.gather(*self.running, return_exceptions=True)
        for step, end in zip(self.running.values(), ended, strict=True):
            with contextlib.suppress(Unavailable):
                await step.not_needed(end)
        for step in self.begun:
            await step.clean(but=but)

    async def _start(self) -> None:
        rung, following = self._at(self.next), self._at(self.next + 1)
        assert rung is not None
        # Nothing is kept for a rung that could not be begun even now.
        usual_s = await self._usual_s(following) if following else 0.0
        kept_s = usual_s + HAND_OVER_S if following and self._left_s() >= usual_s else 0.0
        step = Step(
            self.its,
            self.claim,
            self.next,
            rung,
            self.deadline,
            kept_s,
            keeps_late=not kept_s and self.claim.options.keep_late_result,
        )
        self.next += 1
        self.begun.append(step)
        self.running[asyncio.create_task(step.tries())] = step

    async def _failed(self, step: Step, failed: AttemptFailed) -> None:
        """The next rung takes over, or is under way already; a hedge that fails takes nothing from the one before.

        Raises:
            AttemptFailed: there is none, it no longer fits, or it could not help.
        """
        following = self._at(self.next)
        before = any(one.number < step.number for one in self.running.values())
        if not before and not another_rung_may_help(failed.failure, step.rung):
            raise failed
        if not self.running and not (following and await self._fits(following)):
            raise failed
        await step.give_up(failed, following)
        if not self.running:
            await self._start()

    def _at(self, number: int) -> Rung | None:
        return self.route.rungs[number] if number < len(self.route.rungs) else None

    async def _fits(self, rung: Rung) -> bool:
        usual_s = await self._usual_s(rung)
        return self._left_s() >= usual_s

    def _left_s(self) -> float:
        """Seconds in which a rung that begins now must have its picture."""
        return self.deadline - time.monotonic() - STORE_S

    async def _usual_s(self, rung: Rung) -> float:
        """Seconds a call of this rung usually takes."""
        provider = self.its.registry.get(rung.provider)
        if provider is None:
            return 0.0
        times = await self.its.times()
        with contextlib.suppress(Failure):  # it will say so itself when its turn comes
            return times.of(rung, provider, (await self.its.access(provider)).options).p90_s
        return provider.usual_s

    # -- hedging -------------------------------------------------------------------------------------------------------

    async def _hedge_after_s(self) -> float | None:
        """Seconds until the next rung is started beside the one that runs; ``None``: it is not to be."""
        following = self._at(self.next)
        if not self.route.hedge or self.hedged or following is None or len(self.running) != 1:
            return None
        (step,) = self.running.values()
        patience_s = HEDGE_AFTER * await self._usual_s(step.rung)
        began = step.called_at
        return patience_s if began is None else began + patience_s - time.monotonic()

    async def _hedge(self) -> None:
        self.hedged = True
        following = self._at(self.next)
        if following is None or not await self._fits(following):
            return
        (step,) = self.running.values()
        after_s = time.monotonic() - (step.called_at or time.monotonic())
        logs.event("job.hedged", to=f"{following.provider}/{following.operation}", after_s=round(after_s, 2))
        await self._start()
