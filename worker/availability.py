"""Whether the worker may call and consume: outages of the platform, pauses by people, and the way back from both.

The breaker decides; this carries out: hands back to the broker, consumes again, and has one task at a time probe for a
platform that is away. Whoever finds a reason to stop says so here, from whatever task.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass

import structlog

from worker.core.backoff import full_jitter, retry_after_s
from worker.core.breaker import Breaker, Mode
from worker.core.coalesce import Coalescer
from worker.core.entry import Batch
from worker.core.history import Pause, PauseKind
from worker.core.outage import Outage, OutageKind
from worker.core.slots import Slots
from worker.core.storm import StormGuard
from worker.core.suspects import Suspects
from worker.pausing import Pausing
from worker.permits import Permits
from worker.ports import Clock, Intake, Sink
from worker.recovery import Recovery
from worker.settling import Unsettled
from worker.steadyjournal import SteadyJournal

log = structlog.get_logger(__name__)

FINISH_S = 5.0
"""How long a release waits for calls and settlements under way, so that what is decided is also done."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Host:
    """What the pipeline lends: its sink, its tasks, a way to send a probe (True: something was accepted), and how to
    wake its loop. ``own`` starts a task that lives no longer than the pipeline."""

    sink: Sink
    tasks: Collection[asyncio.Task[None]]
    probe: Callable[[Batch], Awaitable[bool]]
    wake: Callable[[], None]
    own: Callable[[Callable[[], Coroutine[object, object, None]], str], asyncio.Task[None]]
    stop: asyncio.Event


class Availability:
    """Owns the breaker, and with it every decision to consume or not.

    No delivery stays unsettled longer than ``max_unsettled_s``; one that came back ``worn_from`` times is not released
    again but copied, which costs it nothing of the broker's delivery limit.
    """

    def __init__(
        self,
        host: Host,
        *,
        breaker: Breaker,
        storm: StormGuard,
        slots: Slots,
        permits: Permits,
        coalescer: Coalescer,
        suspects: Suspects,
        intake: Intake,
        unsettled: Unsettled,
        journal: SteadyJournal,
        pausing: Pausing,
        max_unsettled_s: float,
        worn_from: int,
        clock: Clock,
    ) -> None:
        self.breaker = breaker
        self._host = host
        self._storm = storm
        self._slots = slots
        self._permits = permits
        self._coalescer = coalescer
        self._suspects = suspects
        self._intake = intake
        self._unsettled = unsettled
        self._journal = journal
        self._pausing = pausing
        self._max_unsettled_s = max_unsettled_s
        self._worn_from = worn_from
        self._clock = clock
        self._begun = False
        self._released = False
        self._turn = asyncio.Lock()
        self._recovering: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether calls may start: the platform is there, and what was decided can be carried out."""
        return self.breaker.running and not self._unsettled.stuck and not self._journal.stuck

    @property
    def outage(self) -> Outage | None:
        """Why not, or None."""
        if self.breaker.outage is None and self._unsettled.stuck:
            return Outage(kind=OutageKind.COPIES, detail=self._unsettled.stuck)
        if self.breaker.outage is None and self._journal.stuck:
            return Outage(kind=OutageKind.JOURNAL, detail=self._journal.stuck)
        return self.breaker.outage

    async def begin(self) -> None:
        """Consume, unless somebody paused the worker before it began, or it is on its way out."""
        async with self._turn:
            self._begun = True
            if not self._released and not self._host.stop.is_set():
                await self._intake.open(self._host.sink)

    def end(self) -> None:
        """Probe no more."""
        if self._recovering is not None:
            self._recovering.cancel()

    # -- outages --------------------------------------------------------------------------------------------------

    def trip(self, outage: Outage, *, pause: bool = False) -> None:
        """A call, or a limit that was passed, says that the platform is away."""
        before = self.breaker.mode
        wait_s = self._asked_wait(outage)
        self.breaker.trip(outage, now=self._clock(), wait_s=wait_s)
        if pause:
            self.breaker.pause()
        if self.breaker.mode is not before:
            event = "platform.paused" if self.breaker.mode is Mode.PAUSED else "platform.hold"
            log.error(event, reason=outage.kind, detail=outage.detail, wait_s=wait_s)
        self._recover()
        self._host.wake()

    def _asked_wait(self, outage: Outage) -> float | None:
        wait_s = retry_after_s(outage.retry_after, wall_s=time.time())
        if wait_s is None and outage.kind is OutageKind.THROTTLED:
            jitter = random.random()  # noqa: S311 - spreads retries
            wait_s = 1.0 + full_jitter(self.breaker.throttled + 1, first_s=1.0, cap_s=299.0, jitter=jitter)
        return wait_s

    def _recover(self) -> None:
        """Have somebody probe, unless only a person can end it; a drain hands back what cannot be sent and probes no
        more."""
        wanted = not self.breaker.running and not self.breaker.by_hand and not self._host.stop.is_set()
        if wanted and (self._recovering is None or self._recovering.done()):
            recovery = Recovery(
                self.breaker,
                self._coalescer,
                self._suspects,
                self,
                self._host.probe,
                permits=self._permits,
                clock=self._clock,
                stop=self._host.stop,
            )
            self._recovering = self._host.own(recovery.run, "recovery")

    def next_overdue(self) -> float | None:
        """When the oldest delivery will have been unsettled for too long; None without one."""
        oldest = self._unsettled.oldest
        return None if self._released or oldest is None else oldest + self._max_unsettled_s

    async def hand_back(self) -> None:
        """Release as soon as we are paused, whoever found a reason. Recovery alone would be too late: it may be sitting
        out a Retry-After.

        No delivery stays unsettled longer than the limit: that is such a reason, too.
        """
        overdue = self.next_overdue()
        if overdue is not None and self._clock() >= overdue:
            detail = f"a delivery was unsettled for {self._max_unsettled_s:.0f} s"
            if stuck := self._unsettled.stuck or self._journal.stuck:
                detail += f"; {stuck}"
            needs_entry = self._suspects.control_usable is False
            self.trip(Outage(kind=OutageKind.UNAVAILABLE, detail=detail, needs_entry=needs_entry), pause=True)
        if self.breaker.mode is Mode.PAUSED:
            await self.release()

    async def release(self) -> None:
        """Hand everything unsettled back and stop consuming (see ``recovery.Consumption``)."""
        async with self._turn:
            if self._released:
                return
            if self._host.tasks and (self.breaker.by_hand or self._slots.in_flight):
                await asyncio.wait(self._host.tasks, timeout=FINISH_S)
                if self.breaker.mode is not Mode.PAUSED:
                    return  # it was over before anything was handed back
            self._released = True
            await self._renew()
            self._unsettled.counts["released"] += len(self._unsettled)
            await self._intake.release()

    async def _renew(self) -> None:
        if worn := self._unsettled.worn(self._worn_from):
            try:
                async with asyncio.timeout(FINISH_S):
                    await self._unsettled.settle(worn)
            except TimeoutError:
                log.warning("broker.not_renewed", messages=len(worn), detail=self._unsettled.stuck)

    async def resume(self) -> None:
        """Consume again, unless the worker is on its way out."""
        async with self._turn:
            if self._released and not self._host.stop.is_set() and self.breaker.mode is not Mode.PAUSED:
                self._released = False
                if self._begun:
                    await self._intake.open(self._host.sink)
        if self.breaker.running:
            self._slots.recovered()
            self._suspects.recovered()
        self._host.wake()

    # -- people ---------------------------------------------------------------------------------------------------

    def stop_for_a_person(self, kind: PauseKind, detail: str) -> None:
        """Nothing goes on until ``resume_by_hand``, at all workers of the queue. The next ``hand_back`` releases."""
        self._stop_for(self._pausing.put_down(kind, detail))

    def _stop_for(self, pause: Pause) -> None:
        self.breaker.pause_by_hand(Outage(kind=OutageKind(pause.kind), detail=pause.told), now=self._clock())
        self._host.wake()

    async def pause(self, detail: str) -> None:
        """A person wants it to stop consuming: everything unsettled goes back, until ``resume_by_hand``.

        It holds for all workers of the queue; for this one at once, whether the journal answers or not.
        """
        log.warning("worker.paused", reason=OutageKind.MANUAL, detail=detail)
        self.stop_for_a_person(PauseKind.MANUAL, detail)
        await self.release()
        await self._pausing.shared()

    async def resume_by_hand(self) -> bool:
        """End the pauses by hand or after a storm, at all workers of the queue; False if there was none. An outage goes
        on being probed for."""
        if self._host.stop.is_set():
            return False
        self._pausing.end()
        was_paused = await self._go_on()
        return await self._pausing.shared() or was_paused

    async def follow(self, pauses: Sequence[Pause]) -> None:
        """What holds for the queue, whoever decided it: pause with it, or go on."""
        if self._host.stop.is_set():
            return
        if not pauses:
            await self._go_on()
            return
        first, known = pauses[0], self.breaker.outage
        if not self.breaker.by_hand:
            log.warning("worker.paused", reason=first.kind, detail=first.told)
        if known is None or known.kind is not OutageKind(first.kind) or known.detail != first.told:
            self._stop_for(first)
        await self.hand_back()

    async def _go_on(self) -> bool:
        if self.breaker.by_hand:
            # What the storm guard withheld is decided no more: it has to come again, however soon the person was.
            await self.release()
        if not self.breaker.by_hand or self._host.stop.is_set():
            return False
        self._storm.restart()
        self.breaker.let_go(now=self._clock())
        log.info("worker.resumed")
        if self.breaker.mode is not Mode.PAUSED:
            await self.resume()
        self._recover()
        return True
