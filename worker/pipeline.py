"""The asyncio shell around the core: deliveries -> coalescer -> calls -> outcomes -> settlements.

It decides nothing. It asks the coalescer for a batch whenever a call can start, has it carried through
(``carrying.py``), and settles what follows. One timer, armed from ``next_deadline``, wakes it when nothing else does.
Whether calls may start at all, and what happens while they may not, is ``availability.py``.

Order of effects for a batch: read the journal, send, write what was applied, and only then settle. A crash between
any two of these steps makes the broker deliver again, and the versions make that harmless.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

import structlog

from worker.availability import Availability, Host
from worker.caller import Caller
from worker.carrying import Carrier
from worker.core.breaker import Breaker
from worker.core.coalesce import Coalescer
from worker.core.decode import EventSchema
from worker.core.entry import Batch, FlushReason
from worker.core.history import PauseKind
from worker.core.horizon import Horizon
from worker.core.model import Ack, Dead, Delivery, Reason, Settlement, Update
from worker.core.outcome import Effects, Outcomes
from worker.core.readiness import Activity
from worker.core.slots import Slots
from worker.core.storm import StormGuard
from worker.core.versions import KnownVersions
from worker.echoes import Echoes
from worker.pausing import Pausing
from worker.permits import Permits
from worker.ports import Clock, Intake, Settler, WallClock, WorkerJournal, wall_us
from worker.settling import EARLY_AT_MOST, Early, Unsettled
from worker.steadyjournal import SteadyJournal

log = structlog.get_logger(__name__)

KNOWN_ORDERS = 50_000

Work = Callable[[], Coroutine[object, object, None]]
"""A coroutine that is made when its task runs first: one cancelled before that leaves nothing that is never awaited."""


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
    """Implements ``ports.Sink`` for the intake, and owns every task between a delivery and its settlement."""

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
        clock: Clock = time.monotonic,
        wall_us: WallClock = wall_us,
    ) -> None:
        self._schema = schema
        self._coalescer = coalescer
        self._outcomes = outcomes
        self._storm = storm
        self._intake = intake
        self._limits = limits
        self._clock = clock
        self._journal = SteadyJournal(journal, wall_us=wall_us)
        self._pausing = Pausing(self._journal, queue=queue, worker=name, wall_us=wall_us)
        self._unsettled = Unsettled(
            settler, prefetch=limits.prefetch, index=self._journal.index, partitions=limits.partitions
        )
        self.counts = self._unsettled.counts
        self._known = KnownVersions(KNOWN_ORDERS)
        self._early = Early(self._unsettled)
        self._slots = Slots(limits.max_in_flight)
        self._permits = Permits(limits.calls_per_hour)
        self._permit_at = 0.0
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._group = asyncio.TaskGroup()
        self._carrier = Carrier(
            coalescer=coalescer,
            outcomes=outcomes,
            caller=caller,
            journal=self._journal,
            slots=self._slots,
            known=self._known,
            counts=self.counts,
            horizon=horizon or Horizon(days=0),
            worker=name,
            clock=clock,
            wall_us=wall_us,
        )
        self._echoes = Echoes(
            journal=self._journal,
            coalescer=coalescer,
            caller=caller,
            slots=self._slots,
            permits=self._permits,
            counts=self.counts,
            may=self._may_echo,
            clock=clock,
            wall_us=wall_us,
        )
        host = Host(
            sink=self, tasks=self._tasks, probe=self._probe, wake=self._wake.set, own=self._own, stop=self._stop
        )
        self.availability = Availability(
            host,
            breaker=breaker,
            storm=storm,
            slots=self._slots,
            permits=self._permits,
            coalescer=coalescer,
            suspects=outcomes.suspects,
            intake=intake,
            unsettled=self._unsettled,
            journal=self._journal,
            pausing=self._pausing,
            max_unsettled_s=limits.max_unsettled_s,
            worn_from=max(1, limits.delivery_limit // 2),
            clock=clock,
        )

    # -- the sink: called by the intake for every delivery ----------------------------------------------------------

    def deliver(self, delivery: Delivery) -> None:
        """Decode and buffer one delivery."""
        # Not even decoded where it came back too often: that may be what it does harm in.
        decoded = self._crash_suspect(delivery) or self._schema.decode(delivery)
        now = self._clock()
        if isinstance(decoded, Update):
            if (version := self._unsettled.version_of(delivery)) is not None:
                decoded = replace(decoded, version=version)
            self._unsettled.add(delivery, decoded, now)
            if (covered := self._known.standing(decoded)) is not None:
                self._decide_early(Settlement(delivery=delivery, disposition=Ack(covered), update=decoded))
            else:
                self._buffer(decoded, now)
        else:
            self._unsettled.add(delivery, None, now)
            self._decide_early(Settlement(delivery=delivery, disposition=decoded))

    def _crash_suspect(self, delivery: Delivery) -> Dead | None:
        if delivery.unexplained < self._limits.crash_suspect_from:
            return None
        detail = f"came back {delivery.unexplained} times without a decision: it may be what kills the worker"
        return Dead(reason=Reason.CRASH_SUSPECT, detail=detail)

    def _decide_early(self, settlement: Settlement) -> None:
        """Needs no call: settled with the next call that ends, so that acknowledgements stay few, or at once if
        idle."""
        self._early.add(settlement)
        if not self._slots.in_flight or len(self._early) == EARLY_AT_MOST:
            self._wake.set()

    def _buffer(self, update: Update, now: float) -> None:
        was_empty = not self._coalescer.buffered
        self._coalescer.add(update, now)
        # The loop is only woken for a timer to arm or a call to start; whatever frees a slot wakes it as well.
        if was_empty or (self._coalescer.full and self._slots.free):
            self._wake.set()

    def lost(self, generation: int) -> None:
        """Forget what the broker delivers again."""
        self._unsettled.lost(generation)
        self._coalescer.lost(generation)
        self._outcomes.suspects.lost()
        self._wake.set()

    # -- life -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until ``stop`` was called and everything is settled or released. Raises what kills one of its tasks.

        However it ends, no task is left, and the broker gets back what is unsettled.
        """
        # Learns whether the platform takes empty lists while it is well: later this tells its faults from a message's.
        self._coalescer.urge(self._coalescer.batch((), FlushReason.CONTROL))
        try:
            await _owned(self._live)
        finally:
            await self._intake.release()

    async def _live(self) -> None:
        async with self._group:
            follow = partial(self._pausing.run, self.availability.begin, self.availability.follow)
            self._following = self._own(follow, "follow pauses")
            self._echoing = self._own(self._echoes.run, "echoes")
            await self._work()
            await self._drain()

    def stop(self) -> None:
        """Begin to drain. Calling it twice is harmless."""
        self._stop.set()
        self._wake.set()

    async def _work(self) -> None:
        while not self._stop.is_set():
            self._start_work()
            await self._sleep(self._next_deadline())
            await self.availability.hand_back()

    async def _drain(self) -> None:
        deadline = self._clock() + self._limits.drain_grace_s
        await self._intake.cancel()
        self._coalescer.drain()
        self._start_work()  # what needs no call is settled even where no call can start
        while not self._drained() and self._clock() < deadline:
            self._start_work()
            await self._sleep(min(deadline, self._next_call() or deadline))
        for task in self._tasks:
            task.cancel()
        self.availability.end()
        self._echoing.cancel()
        self._following.cancel()
        released = len(self._unsettled)
        await self._intake.release()
        self.counts["released"] += released

    def _drained(self) -> bool:
        """Nothing is left to do, or nothing more can be done because the platform is away."""
        return not self._tasks and ((self._coalescer.idle and not self._early) or not self.availability.running)

    async def _sleep(self, until: float | None) -> None:
        """Wait for something to happen, at most until the given time."""
        timer = None
        if until is not None:
            delay = max(0.0, until - self._clock())
            timer = asyncio.get_running_loop().call_later(delay, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            if timer is not None:
                timer.cancel()
        self._wake.clear()

    def _next_deadline(self) -> float | None:
        times = (self._next_call(), self.availability.next_overdue())
        return min((moment for moment in times if moment is not None), default=None)

    def _next_call(self) -> float | None:
        if not self._can_start:
            return None
        due = self._coalescer.next_deadline(self._slots.in_flight)
        return None if due is None else max(due, self._permit_at)

    def _own(self, work: Work, name: str) -> asyncio.Task[None]:
        return self._group.create_task(_owned(work), name=name)

    def _spawn(self, work: Work, name: str) -> None:
        task = self._own(work, name)
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._wake.set()

    # -- calls ----------------------------------------------------------------------------------------------------

    @property
    def _can_start(self) -> bool:
        return self.availability.running and self._slots.free

    def _start_work(self) -> None:
        if self._early and (not self._slots.in_flight or len(self._early) >= EARLY_AT_MOST):
            early = self._admitted(self._early.take())
            if early:
                self._spawn(partial(self._settle_early, early), "settle early")
        while self._can_start and self._permitted():
            batch = self._coalescer.pop_ready(self._clock(), self._slots.in_flight)
            if batch is None:
                return
            self._slots.take()
            self._spawn(partial(self._process, batch), f"call {batch.id}")

    def _permitted(self) -> bool:
        """Whether the budget of calls bears the one that is due. Until it does its batch goes on filling."""
        if not self._permits.limited:
            return True
        now = self._clock()
        why = self._coalescer.due(now, self._slots.in_flight)
        wait_s = 0.0 if why is None else self._permits.wait_s(now, full=why is not FlushReason.LINGER)
        self._permit_at = now + wait_s
        return why is not None and not wait_s

    def _admitted(self, settlements: Sequence[Settlement]) -> list[Settlement]:
        """Those the storm guard lets pass; called as soon as they are decided. What it withholds stays unsettled, and
        the pause hands it back.

        A delivery that is gone comes again and is decided again: only the second time counts.
        """
        before = self._storm.tripped
        admitted = self._storm.admit(each for each in settlements if each.delivery in self._unsettled)
        if self._storm.tripped and not before:
            log.error("storm.paused", detail=self._storm.detail)
            self.availability.stop_for_a_person(PauseKind.STORM, self._storm.detail)
        return admitted

    async def _settle_early(self, early: Sequence[Settlement]) -> None:
        await self._carrier.note(early)
        await self._unsettled.settle(early)

    async def _process(self, batch: Batch) -> None:
        """Its slot is free as soon as it is decided: what the journal still has to write is no call, and whatever comes
        next has to pass the journal, too."""
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
        self._wake.set()

    def _decide(self, batch: Batch, effects: Effects) -> Sequence[Settlement]:
        if batch.entries and effects.accepted:
            self.availability.breaker.applied()
        if effects.outage is not None:
            self.availability.trip(effects.outage)
        return self._admitted([*effects.settlements, *self._early.take()])

    async def _probe(self, batch: Batch) -> bool:
        accepted = False

        def decide(effects: Effects) -> Sequence[Settlement]:
            nonlocal accepted
            accepted = effects.accepted
            return self._decide(batch, effects)

        settlements = await self._carrier.carry(batch, decide)
        self._spawn(partial(self._unsettled.settle, settlements), f"settle {batch.id}")
        return accepted

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
        )


async def _owned(work: Callable[[], Awaitable[None]]) -> None:
    """Make a cancellation that nobody asked for an error: a task group would let the task end in silence.

    aiormq cancels whoever waits on a connection that got stuck; the adapters translate that, so here it would be a bug.
    """
    try:
        await work()
    except asyncio.CancelledError as cancelled:
        task = asyncio.current_task()
        if task is not None and task.cancelling() == 0:
            raise RuntimeError(f"{task.get_name()} was cancelled by a library") from cancelled
        raise
