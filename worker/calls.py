"""Calls: when the next one may start, and what is carried out of what it decides.

What travels in a call is the coalescer's, how it is carried through ``carrying.py``, and whether calls may start at all
``availability.py``.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial

import structlog

from worker.availability import Availability
from worker.carrying import Carrier
from worker.core.coalesce import Coalescer
from worker.core.entry import Batch, FlushReason
from worker.core.history import PauseKind
from worker.core.model import Settlement
from worker.core.slots import Slots
from worker.core.storm import StormGuard
from worker.core.turn import Effects
from worker.permits import Permits
from worker.ports import Clock, Tracer
from worker.settling import EARLY_AT_MOST, Early, Unsettled
from worker.tasks import Tasks

log = structlog.get_logger(__name__)

UNTRACED: AbstractContextManager[object] = nullcontext()


class Calls:
    """Each call is a task that ends with its settlements. ``wake`` wakes the pipeline's loop."""

    def __init__(
        self,
        *,
        coalescer: Coalescer,
        carrier: Carrier,
        availability: Availability,
        slots: Slots,
        permits: Permits,
        storm: StormGuard,
        unsettled: Unsettled,
        early: Early,
        tasks: Tasks,
        wake: Callable[[], None],
        clock: Clock,
        tracer: Tracer | None = None,
    ) -> None:
        self._tracer = tracer
        self._coalescer = coalescer
        self._carrier = carrier
        self._availability = availability
        self._slots = slots
        self._permits = permits
        self._permit_at = 0.0
        self._storm = storm
        self._unsettled = unsettled
        self._early = early
        self._tasks = tasks
        self._wake = wake
        self._clock = clock

    # -- starting -------------------------------------------------------------------------------------------------

    def next_start(self) -> float | None:
        """When ``start`` has to be asked again even if nothing else happens; None: not before something does."""
        if not self._can_start:
            return None
        due = self._coalescer.next_deadline(self._slots.in_flight)
        return None if due is None else max(due, self._permit_at)

    @property
    def _can_start(self) -> bool:
        return self._availability.running and self._slots.free

    def start(self) -> None:
        """Start every call that may start now, and settle what needs none."""
        if self._early and (not self._slots.in_flight or len(self._early) >= EARLY_AT_MOST):
            early = self._admitted(self._early.take())
            if early:
                self._tasks.spawn(partial(self._settle_early, early), "settle early")
        while self._can_start and self._permitted():
            batch = self._coalescer.pop_ready(self._clock(), self._slots.in_flight)
            if batch is None:
                return
            self._slots.take()
            self._tasks.spawn(partial(self._process, batch), f"call {batch.id}")

    def _permitted(self) -> bool:
        """Whether the budget of calls bears the one that is due. Until it does its batch goes on filling."""
        if not self._permits.limited:
            return True
        now = self._clock()
        why = self._coalescer.due(now, self._slots.in_flight)
        wait_s = 0.0 if why is None else self._permits.wait_s(now, full=why is not FlushReason.LINGER)
        self._permit_at = now + wait_s
        return why is not None and not wait_s

    # -- deciding -------------------------------------------------------------------------------------------------

    async def probe(self, batch: Batch) -> bool:
        """Send it although no calls may start; whether something was accepted. It settles by itself."""
        accepted = False

        def decide(effects: Effects) -> Sequence[Settlement]:
            nonlocal accepted
            accepted = effects.accepted
            return self._decide(batch, effects)

        with self._traced(batch):
            settlements = await self._carrier.carry(batch, decide)
            self._tasks.spawn(partial(self._unsettled.settle, settlements), f"settle {batch.id}")
        return accepted

    def _traced(self, batch: Batch) -> AbstractContextManager[object]:
        return UNTRACED if self._tracer is None else self._tracer.batch(batch)

    async def _settle_early(self, early: Sequence[Settlement]) -> None:
        await self._carrier.note(early)
        await self._unsettled.settle(early)

    async def _process(self, batch: Batch) -> None:
        """Its slot is free as soon as it is decided: what the journal still has to write is no call, and whatever comes
        next has to pass the journal, too."""
        with self._traced(batch):
            with ExitStack() as slot:
                slot.callback(self._call_is_over)

                def decide(effects: Effects) -> Sequence[Settlement]:
                    decided = self._decide(batch, effects)
                    slot.close()
                    return decided

                settlements = await self._carrier.carry(batch, decide)
            await self._unsettled.settle(settlements)
        log.debug("batch.settled", batch_id=batch.id, orders=len(batch.entries))

    def _call_is_over(self) -> None:
        self._slots.give_back()
        self._wake()

    def _decide(self, batch: Batch, effects: Effects) -> Sequence[Settlement]:
        if batch.entries and effects.accepted:
            self._availability.breaker.applied()
        if effects.outage is not None:
            self._availability.trip(effects.outage)
        return self._admitted([*effects.settlements, *self._early.take()])

    def _admitted(self, settlements: Sequence[Settlement]) -> list[Settlement]:
        """Those the storm guard lets pass; called as soon as they are decided. What it withholds stays unsettled, and
        the pause hands it back.

        A delivery that is gone comes again and is decided again: only the second time counts.
        """
        before = self._storm.tripped
        admitted = self._storm.admit(self._unsettled.still_open(settlements))
        if self._storm.tripped and not before:
            log.error("storm.paused", detail=self._storm.detail)
            self._availability.stop_for_a_person(PauseKind.STORM, self._storm.detail)
        return admitted
