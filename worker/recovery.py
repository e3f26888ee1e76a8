"""What happens while the platform is away: hold, then pause, and probe until it answers again. By itself, whatever
the cause.

One task at a time does this, however many calls failed. The probe is the control call, which touches no order; only
where an accepted empty list proves nothing it is one waiting entry, a different one each time.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from worker.core.breaker import Breaker, Mode
from worker.core.coalesce import Coalescer
from worker.core.entry import Batch, FlushReason
from worker.core.suspects import Suspects
from worker.permits import Permits
from worker.ports import Clock
from worker.retrying import forever

log = structlog.get_logger(__name__)

FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 5.0


class Consumption(Protocol):
    """The pipeline's hold on the broker: both may be called at any time, twice is harmless."""

    async def release(self) -> None:
        """Hand everything unsettled back and stop consuming."""
        ...

    async def resume(self) -> None:
        """Consume (again)."""
        ...


class _StillAwayError(Exception):
    """The probe was not accepted."""


class _PausedByHandError(Exception):
    """Only a person can end this pause, so there is nothing to probe for."""


class Recovery:
    """Runs probes for a breaker. ``send`` makes a call and reports whether the platform accepted something in it.

    A pause by hand ends it; whoever ends that pause starts another one, if there is still an outage.
    """

    def __init__(
        self,
        breaker: Breaker,
        coalescer: Coalescer,
        suspects: Suspects,
        consumption: Consumption,
        send: Callable[[Batch], Awaitable[bool]],
        *,
        permits: Permits,
        clock: Clock,
        stop: asyncio.Event,
    ) -> None:
        self._breaker = breaker
        self._coalescer = coalescer
        self._suspects = suspects
        self._consumption = consumption
        self._send = send
        self._permits = permits
        self._clock = clock
        self._stop = stop

    async def run(self) -> None:
        """Return when calls may start again, or when the worker stops. The caller has tripped the breaker."""
        while await self._recovered():
            await self._consumption.resume()
            # Calls started meanwhile may have tripped it again, and whoever did so saw this task at work.
            if self._breaker.running:
                return

    async def _recovered(self) -> bool:
        """Probe until the platform answers; False when the worker stops first, or a person pauses it."""
        try:
            # The call that tripped the breaker was the first try, so the loop starts with a wait.
            async for attempt in forever(
                first_s=FIRST_WAIT_S, cap_s=LONGEST_WAIT_S, stop=self._stop, retry_on=(_StillAwayError,)
            ):
                with attempt:
                    await self._try(attempt.retry_state.attempt_number)
        except (_StillAwayError, _PausedByHandError):
            return False
        return True

    async def _try(self, number: int) -> None:
        breaker = self._breaker
        self._leave_to_a_person()
        if breaker.expire(self._clock()):
            log.error("platform.paused", reason=breaker.outage and breaker.outage.kind, after_s=breaker.hold_limit_s)
        if breaker.mode is Mode.PAUSED:
            await self._consumption.release()
        if number == 1 or not await self._waited_as_asked():
            raise _StillAwayError
        self._leave_to_a_person()
        if wait_s := self._permits.wait_s(self._clock(), full=False):
            breaker.wait(wait_s, now=self._clock())
            raise _StillAwayError
        # A call that was still in flight may have been asked to wait meanwhile, and that holds for all.
        batch, accepted = await self._probe(number)
        if not accepted or breaker.retry_at > self._clock():
            log.info("platform.probe_failed", reason=breaker.outage and breaker.outage.kind, attempt=number)
            raise _StillAwayError
        took_s = self._clock() - breaker.since
        breaker.recovered(by_entry=bool(batch.entries))
        self._leave_to_a_person()
        log.info("platform.recovered", after_s=round(took_s, 3))

    def _leave_to_a_person(self) -> None:
        if self._breaker.by_hand:
            raise _PausedByHandError

    async def _waited_as_asked(self) -> bool:
        """Sit out a Retry-After, but no longer than the hold may last; False when there is still time to wait."""
        breaker = self._breaker
        until = min(breaker.retry_at, breaker.deadline() or breaker.retry_at)
        try:
            async with asyncio.timeout(max(0.0, until - self._clock())):
                await self._stop.wait()
        except TimeoutError:
            pass
        return not self._stop.is_set() and breaker.retry_at <= self._clock()

    async def _probe(self, number: int) -> tuple[Batch, bool]:
        """The next probe, and whether the platform accepted it.

        An entry that needs no call (superseded, or its order is over) is settled and says nothing of the platform, so
        the next one goes at once. Each of them leaves the coalescer, so this ends.
        """
        while True:
            batch = await self._probe_batch(number)
            accepted = await self._send(batch)
            called = batch.entries or batch.reason is FlushReason.CONTROL
            if called or accepted or self._stop.is_set():
                return batch, accepted
            self._leave_to_a_person()

    async def _probe_batch(self, number: int) -> Batch:
        breaker = self._breaker
        batch = None
        if self._takes_entry(number):
            if breaker.mode is Mode.PAUSED:
                breaker.reopen(self._clock())
                await self._consumption.resume()
            batch = self._coalescer.pop_probe()
        return batch or self._coalescer.batch((), FlushReason.CONTROL)

    def _takes_entry(self, number: int) -> bool:
        """Whether the next probe has to be an entry.

        A platform that never took an empty list may fail on every one of them, however well it is otherwise; so until
        one was accepted, every other probe of a hold is an entry.
        """
        outage = self._breaker.outage
        if outage is not None and outage.needs_entry:
            return True
        return self._suspects.control_usable is None and self._breaker.mode is Mode.HOLDING and number % 2 == 1
