"""The asyncio shell around the core: deliveries -> coalescer -> calls -> outcomes -> settlements.

It decides nothing. ``arriving.py`` fills the coalescer; the loop here has calls started whenever they can start
(``calls.py``), each of which is carried through (``carrying.py``) and settles what follows. One timer, armed from
``next_start``, wakes it when nothing else does. Whether calls may start at all, and what happens while they may not, is
``availability.py``.

Order of effects for a batch: read the journal, send, write what was applied, and only then settle. A crash between
any two of these steps makes the broker deliver again, and the versions make that harmless.
"""

import asyncio
import time
from dataclasses import dataclass
from functools import partial

import structlog

from worker.arriving import Arrivals
from worker.availability import Availability, Host
from worker.caller import Caller
from worker.calls import Calls
from worker.carrying import Carrier
from worker.core.allowed import EVERY_ORDER, Allowed
from worker.core.breaker import Breaker
from worker.core.coalesce import Coalescer
from worker.core.decode import EventSchema
from worker.core.entry import Batch, FlushReason
from worker.core.horizon import Horizon
from worker.core.measures import Measures
from worker.core.outcome import Outcomes
from worker.core.readiness import Activity
from worker.core.slots import Slots
from worker.core.storm import StormGuard
from worker.core.suspects import Suspects
from worker.core.versions import KnownVersions
from worker.echoes import Echoes
from worker.journalports import WorkerJournal
from worker.pausing import Pausing
from worker.permits import Permits
from worker.ports import Clock, Intake, Settler, Tracer, WallClock, wall_us
from worker.settling import Early, Unsettled
from worker.steadyjournal import SteadyJournal
from worker.tasks import Alarm, Tasks, owned

log = structlog.get_logger(__name__)

KNOWN_ORDERS = 4_000
"""Orders whose applied versions are known without asking the journal: two windows of a large prefetch. They only spare
a journal some questions, so more would gain little, at 700 bytes each."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Limits:
    """Bounds of the shell: calls at once and per hour, seconds a delivery may stay unsettled, seconds a drain may take,
    deliveries held, how many partitions they come from, how often the broker redelivers, and how often one may come
    back unexplained before it is held to be what kills the process."""

    max_in_flight: int
    max_unsettled_s: float
    drain_grace_s: float
    prefetch: int
    partitions: int = 1
    calls_per_hour: int | None = None
    delivery_limit: int = 100
    crash_suspect_from: int = 50


class Pipeline:
    """Puts the parts together, and owns every task between a delivery and its settlement."""

    def __init__(
        self,
        *,
        schema: EventSchema,
        coalescer: Coalescer,
        outcomes: Outcomes,
        breaker: Breaker,
        storm: StormGuard,
        caller: Caller,
        journal: WorkerJournal,
        settler: Settler,
        intake: Intake,
        limits: Limits,
        name: str = "worker",
        queue: str = "order-updates.work",
        horizon: Horizon | None = None,
        allowed: Allowed = EVERY_ORDER,
        tracer: Tracer | None = None,
        clock: Clock = time.monotonic,
        wall_us: WallClock = wall_us,
    ) -> None:
        self._allowed = allowed
        self._tracer = tracer
        self._coalescer = coalescer
        self._storm = storm
        self._intake = intake
        self._limits = limits
        self._clock = clock
        self._wall_us = wall_us
        self._journal = SteadyJournal(journal, wall_us=wall_us)
        self._pausing = Pausing(self._journal, queue=queue, worker=name, wall_us=wall_us)
        self.measures = Measures()
        self._unsettled = Unsettled(
            settler,
            prefetch=limits.prefetch,
            index=self._journal.index,
            partitions=limits.partitions,
            measures=self.measures,
            wall_us=wall_us,
        )
        self.counts = self._unsettled.counts
        self._known = KnownVersions(KNOWN_ORDERS)
        self._early = Early(self._unsettled)
        self._slots = Slots(limits.max_in_flight)
        self._permits = Permits(limits.calls_per_hour)
        self._alarm = Alarm(clock)
        self._stop = asyncio.Event()
        self._tasks = Tasks(self._alarm)
        self.sink = self._make_arrivals(schema, outcomes.suspects)
        self._carrier = self._make_carrier(outcomes, caller, horizon, name)
        self._echoes = self._make_echoes(caller)
        self.availability = self._make_availability(breaker, outcomes.suspects)
        self._calls = self._make_calls()

    # -- parts ----------------------------------------------------------------------------------------------------

    def _make_arrivals(self, schema: EventSchema, suspects: Suspects) -> Arrivals:
        return Arrivals(
            schema=schema,
            coalescer=self._coalescer,
            suspects=suspects,
            slots=self._slots,
            known=self._known,
            unsettled=self._unsettled,
            early=self._early,
            crash_suspect_from=self._limits.crash_suspect_from,
            wake=self._alarm.ring,
            clock=self._clock,
            allowed=self._allowed,
        )

    def _make_carrier(self, outcomes: Outcomes, caller: Caller, horizon: Horizon | None, name: str) -> Carrier:
        return Carrier(
            coalescer=self._coalescer,
            outcomes=outcomes,
            caller=caller,
            journal=self._journal,
            slots=self._slots,
            known=self._known,
            counts=self.counts,
            measures=self.measures,
            horizon=horizon or Horizon(days=0),
            worker=name,
            clock=self._clock,
            wall_us=self._wall_us,
        )

    def _make_echoes(self, caller: Caller) -> Echoes:
        return Echoes(
            journal=self._journal,
            coalescer=self._coalescer,
            caller=caller,
            slots=self._slots,
            permits=self._permits,
            counts=self.counts,
            measures=self.measures,
            may=self._may_echo,
            clock=self._clock,
            wall_us=self._wall_us,
            allowed=self._allowed,
        )

    def _make_availability(self, breaker: Breaker, suspects: Suspects) -> Availability:
        host = Host(
            sink=self.sink,
            tasks=self._tasks.passing,
            probe=self._probe,
            wake=self._alarm.ring,
            own=self._tasks.own,
            stop=self._stop,
        )
        return Availability(
            host,
            breaker=breaker,
            storm=self._storm,
            slots=self._slots,
            permits=self._permits,
            coalescer=self._coalescer,
            suspects=suspects,
            intake=self._intake,
            unsettled=self._unsettled,
            journal=self._journal,
            pausing=self._pausing,
            max_unsettled_s=self._limits.max_unsettled_s,
            worn_from=max(1, self._limits.delivery_limit // 2),
            clock=self._clock,
        )

    def _make_calls(self) -> Calls:
        return Calls(
            coalescer=self._coalescer,
            carrier=self._carrier,
            availability=self.availability,
            slots=self._slots,
            permits=self._permits,
            storm=self._storm,
            unsettled=self._unsettled,
            early=self._early,
            tasks=self._tasks,
            wake=self._alarm.ring,
            clock=self._clock,
            tracer=self._tracer,
        )

    # -- life -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until ``stop`` was called and everything is settled or released. Raises what kills one of its tasks.

        However it ends, no task is left, and the broker gets back what is unsettled.
        """
        # Learns whether the platform takes empty lists while it is well: later this tells its faults from a message's.
        self._coalescer.urge(self._coalescer.batch((), FlushReason.CONTROL))
        try:
            await owned(self._live)
        finally:
            await self._intake.release()

    async def _live(self) -> None:
        async with self._tasks.group:
            follow = partial(self._pausing.run, self.availability.begin, self.availability.follow)
            self._following = self._tasks.own(follow, "follow pauses")
            self._echoing = self._tasks.own(self._echoes.run, "echoes")
            await self._work()
            await self._drain()

    def stop(self) -> None:
        """Begin to drain. Calling it twice is harmless."""
        self._stop.set()
        self._alarm.ring()

    async def _work(self) -> None:
        while not self._stop.is_set():
            self._calls.start()
            await self._alarm.wait(self._next_deadline())
            await self.availability.hand_back()

    async def _drain(self) -> None:
        deadline = self._clock() + self._limits.drain_grace_s
        await self._intake.cancel()
        self._coalescer.drain()
        self._calls.start()  # what needs no call is settled even where no call can start
        while not self._drained() and self._clock() < deadline:
            self._calls.start()
            await self._alarm.wait(min(deadline, self._calls.next_start() or deadline))
        for task in self._tasks.passing:
            task.cancel()
        self.availability.end()
        self._echoing.cancel()
        self._following.cancel()
        released = len(self._unsettled)
        await self._intake.release()
        self.counts["released"] += released

    def _drained(self) -> bool:
        """Nothing is left to do, or nothing more can be done because the platform is away."""
        return not self._tasks.passing and ((self._coalescer.idle and not self._early) or not self.availability.running)

    def _next_deadline(self) -> float | None:
        times = (self._calls.next_start(), self.availability.next_overdue())
        return min((moment for moment in times if moment is not None), default=None)

    async def _probe(self, batch: Batch) -> bool:
        return await self._calls.probe(batch)

    def _may_echo(self) -> bool:
        return self.availability.running

    @property
    def activity(self) -> Activity:
        """A snapshot of now, for readiness and people."""
        breaker, outage = self.availability.breaker, self.availability.outage
        oldest, now = self._unsettled.oldest, self._clock()
        return Activity(
            mode=breaker.mode,
            reason=None if outage is None else outage.kind,
            detail=outage.detail if outage is not None else "",
            since_s=0.0 if breaker.outage is None else now - breaker.since,
            draining=self._stop.is_set(),
            unsettled=len(self._unsettled),
            oldest_s=0.0 if oldest is None else now - oldest,
            in_flight=self._slots.in_flight,
            calls_allowed=self._slots.limit,
            buffered=self._coalescer.buffered,
            counts=dict(self.counts),
            journal_up=not self._journal.stuck and not self._pausing.away,
            storm_tripped=self._storm.tripped,
            storm_share=self._storm.share,
            budget=self._permits.per_hour,
            budget_left=self._permits.left(now),
        )
