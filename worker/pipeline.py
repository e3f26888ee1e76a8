"""The asyncio shell around the core: deliveries -> coalescer -> calls -> outcomes -> settlements.

It decides nothing. It asks the coalescer for a batch whenever a call can start, has it sent and judged, lets
``Outcomes`` say what follows, and carries that out. One timer, armed from ``next_deadline``, wakes it when nothing
else does.

Order of effects for a batch: read the journal, send, write what was applied, and only then settle. A crash between
any two of these steps makes the broker deliver again, and the versions make that harmless.
"""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from functools import partial

import structlog

from worker.caller import Caller
from worker.core.backoff import full_jitter, retry_after_s
from worker.core.breaker import Breaker, Mode
from worker.core.coalesce import Coalescer
from worker.core.decode import EventSchema
from worker.core.entry import Batch, FlushReason
from worker.core.model import Ack, Dead, Delivery, Reason, Settlement, Update
from worker.core.outage import Outage, OutageKind
from worker.core.outcome import Effects, Outcomes
from worker.core.readiness import Activity
from worker.core.request import Request, applied_by, request_of
from worker.core.storm import StormGuard
from worker.core.verdict import Call, Judgement
from worker.core.versions import KnownVersions
from worker.ports import Clock, Intake, Journal, Settler
from worker.recovery import Recovery
from worker.settling import EARLY_AT_MOST, Early, Unsettled

log = structlog.get_logger(__name__)

KNOWN_ORDERS = 50_000
FINISH_S = 5.0
"""How long a pause by hand waits for calls and settlements under way, so that what is decided is also done."""

Work = Callable[[], Coroutine[object, object, None]]
"""A coroutine that is made when its task runs first: one cancelled before that leaves nothing that is never awaited."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Limits:
    """Bounds of the shell: calls at once, seconds a delivery may stay unsettled, seconds a drain may take, deliveries
    held, and how often one may come back before it is held to be what kills the process."""

    max_in_flight: int
    max_unsettled_s: float
    drain_grace_s: float
    prefetch: int
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
        journal: Journal,
        settler: Settler,
        intake: Intake,
        limits: Limits,
        clock: Clock = time.monotonic,
    ) -> None:
        self._schema = schema
        self._coalescer = coalescer
        self._outcomes = outcomes
        self._breaker = breaker
        self._storm = storm
        self._caller = caller
        self._journal = journal
        self._intake = intake
        self._limits = limits
        self._clock = clock
        self._unsettled = Unsettled(settler, prefetch=limits.prefetch)
        self.counts = self._unsettled.counts
        self._known = KnownVersions(KNOWN_ORDERS)
        self._early = Early(self._unsettled)
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._begun = False
        self._turn = asyncio.Lock()
        self._released = False
        self._in_flight = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._recovering: asyncio.Task[None] | None = None
        self._group = asyncio.TaskGroup()

    # -- the sink: called by the intake for every delivery ----------------------------------------------------------

    def deliver(self, delivery: Delivery) -> None:
        """Decode and buffer one delivery."""
        # Not even decoded where it came back too often: that may be what it does harm in.
        decoded = self._crash_suspect(delivery) or self._schema.decode(delivery)
        now = self._clock()
        if isinstance(decoded, Update):
            if (version := self._unsettled.version_of(delivery)) is not None:
                decoded = replace(decoded, version=version)
            self._unsettled.add(delivery, decoded.version, now)
            if (covered := self._known.standing(decoded)) is not None:
                self._decide_early(Settlement(delivery=delivery, disposition=Ack(covered), update=decoded))
            else:
                self._buffer(decoded, now)
        else:
            self._unsettled.add(delivery, None, now)
            self._decide_early(Settlement(delivery=delivery, disposition=decoded))

    def _crash_suspect(self, delivery: Delivery) -> Dead | None:
        if delivery.returns < self._limits.crash_suspect_from:
            return None
        detail = f"came back {delivery.returns} times without a decision: it may be what kills the worker"
        return Dead(reason=Reason.CRASH_SUSPECT, detail=detail)

    def _decide_early(self, settlement: Settlement) -> None:
        """Needs no call: settled with the next call that ends, so that acknowledgements stay few, or at once if
        idle."""
        self._early.add(settlement)
        if not self._in_flight or len(self._early) == EARLY_AT_MOST:
            self._wake.set()

    def _buffer(self, update: Update, now: float) -> None:
        was_empty = not self._coalescer.buffered
        self._coalescer.add(update, now)
        # The loop is only woken for a timer to arm or a call to start; whatever frees a slot wakes it as well.
        if was_empty or (self._coalescer.full and self._in_flight < self._limits.max_in_flight):
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
            self._begun = True
            if not self._released:  # paused by hand before it began
                await self._intake.open(self)
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
            await self._hand_back()

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
        if self._recovering is not None:
            self._recovering.cancel()
        released = len(self._unsettled)
        await self._intake.release()
        self.counts["released"] += released

    def _drained(self) -> bool:
        """Nothing is left to do, or nothing more can be done because the platform is away."""
        return not self._tasks and ((self._coalescer.idle and not self._early) or not self._breaker.running)

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
        times = (self._next_call(), self._next_overdue())
        return min((moment for moment in times if moment is not None), default=None)

    def _next_call(self) -> float | None:
        can_start = self._breaker.running and self._in_flight < self._limits.max_in_flight
        return self._coalescer.next_deadline(self._in_flight) if can_start else None

    def _next_overdue(self) -> float | None:
        oldest = self._unsettled.oldest
        return None if self._released or oldest is None else oldest + self._limits.max_unsettled_s

    def _spawn(self, work: Work, name: str) -> None:
        task = self._group.create_task(_owned(work), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._wake.set()

    # -- calls ----------------------------------------------------------------------------------------------------

    def _start_work(self) -> None:
        if self._early and (not self._in_flight or len(self._early) >= EARLY_AT_MOST):
            early = self._admitted(self._early.take())
            if early:
                self._spawn(partial(self._unsettled.settle, early), "settle early")
        while self._breaker.running and self._in_flight < self._limits.max_in_flight:
            batch = self._coalescer.pop_ready(self._clock(), self._in_flight)
            if batch is None:
                return
            self._in_flight += 1
            self._spawn(partial(self._process, batch), f"call {batch.id}")

    def _admitted(self, settlements: Sequence[Settlement]) -> list[Settlement]:
        """Those the storm guard lets pass; called as soon as they are decided. What it withholds stays unsettled, and
        the pause hands it back.

        A delivery that is gone comes again and is decided again: only the second time counts.
        """
        before = self._storm.tripped
        admitted = self._storm.admit(each for each in settlements if each.delivery in self._unsettled)
        if self._storm.tripped and not before:
            log.error("storm.paused", detail=self._storm.detail)
            self._pause_by_hand(Outage(kind=OutageKind.STORM, detail=self._storm.detail))
        return admitted

    async def _process(self, batch: Batch) -> None:
        in_flight = True
        try:
            effects = await self._call(batch)
            self._in_flight -= 1
            in_flight = False
            self._wake.set()
            await self._unsettled.settle(self._admitted([*effects.settlements, *self._early.take()]))
            log.debug("batch.settled", batch_id=batch.id, orders=len(batch.entries))
        finally:
            if in_flight:
                self._in_flight -= 1

    async def _call(self, batch: Batch) -> Effects:
        """Send what of the batch is still news, journal what was applied, and decide what follows."""
        request = await self._request(batch)
        if request.fields or batch.reason is FlushReason.CONTROL:
            judgement = await self._send(batch, request)
        else:
            judgement = Judgement(call=Call.ANSWERED)
        if applied := applied_by(request, judgement):
            await self._journal.write(applied)
            self._known.learn(applied)
        effects = self._outcomes.complete(
            batch,
            judgement,
            sent=request.fields,
            now=self._clock(),
            jitter=random.random(),  # noqa: S311 - spreads retries
        )
        if effects.remapped:
            self.counts["remapped"] += effects.remapped
        if effects.outage is not None:
            self._trip(effects.outage)
        for order_id in effects.suspected:
            log.warning("order.suspect", order_id=order_id, batch_id=batch.id, reason=judgement.call)
        effects.settlements += request.settlements
        return effects

    async def _request(self, batch: Batch) -> Request:
        known = await self._journal.read([entry.order_id for entry in batch.entries]) if batch.entries else {}
        request = request_of(batch, known)
        batch.entries = request.entries
        for entry in request.covered:
            self._outcomes.suspects.settled(entry.order_id)
            self._coalescer.finish(entry)
        return request

    async def _send(self, batch: Batch, request: Request) -> Judgement:
        started = self._clock()
        log.debug("batch.sent", batch_id=batch.id, orders=len(request.fields), why=batch.reason)
        judgement = await self._caller.call(request.fields)
        self._note_call(batch, judgement, self._clock() - started)
        return judgement

    def _note_call(self, batch: Batch, judgement: Judgement, took_s: float) -> None:
        self.counts["calls"] += 1
        self.counts["sent"] += len(batch.entries)
        if judgement.call is not Call.ANSWERED:
            log.warning(
                "call.failed",
                reason=judgement.call,
                status=judgement.status or None,
                detail=judgement.detail,
                batch_id=batch.id,
                orders=len(batch.entries),
                order_id=batch.entries[0].order_id if len(batch.entries) == 1 else None,
                took_s=round(took_s, 3),
            )

    # -- outages --------------------------------------------------------------------------------------------------

    def _trip(self, outage: Outage, *, pause: bool = False) -> None:
        before = self._breaker.mode
        wait_s = self._asked_wait(outage)
        self._breaker.trip(outage, now=self._clock(), wait_s=wait_s)
        if pause:
            self._breaker.pause()
        if self._breaker.mode is not before:
            event = "platform.paused" if self._breaker.mode is Mode.PAUSED else "platform.hold"
            log.error(event, reason=outage.kind, detail=outage.detail, wait_s=wait_s)
        self._recover()
        self._wake.set()

    def _recover(self) -> None:
        """Have somebody probe, unless only a person can end it; a drain hands back what cannot be sent and probes no
        more."""
        wanted = not self._breaker.running and not self._breaker.by_hand and not self._stop.is_set()
        if wanted and (self._recovering is None or self._recovering.done()):
            recovery = Recovery(
                self._breaker,
                self._coalescer,
                self._outcomes.suspects,
                self,
                self._probe,
                clock=self._clock,
                stop=self._stop,
            )
            self._recovering = self._group.create_task(_owned(recovery.run), name="recovery")

    def _asked_wait(self, outage: Outage) -> float | None:
        wait_s = retry_after_s(outage.retry_after, wall_s=time.time())
        if wait_s is None and outage.kind is OutageKind.THROTTLED:
            jitter = random.random()  # noqa: S311 - spreads retries
            wait_s = 1.0 + full_jitter(self._breaker.throttled + 1, first_s=1.0, cap_s=299.0, jitter=jitter)
        return wait_s

    async def _probe(self, batch: Batch) -> bool:
        effects = await self._call(batch)
        self._spawn(partial(self._unsettled.settle, self._admitted(effects.settlements)), f"settle {batch.id}")
        return effects.accepted

    async def _hand_back(self) -> None:
        """Release as soon as we are paused, whoever found a reason. Recovery alone would be too late: it may be sitting
        out a Retry-After.

        No delivery stays unsettled longer than the limit: that is such a reason, too.
        """
        overdue = self._next_overdue()
        if overdue is not None and self._clock() >= overdue:
            detail = f"a delivery was unsettled for {self._limits.max_unsettled_s:.0f} s"
            needs_entry = self._outcomes.suspects.control_usable is False
            self._trip(Outage(kind=OutageKind.UNAVAILABLE, detail=detail, needs_entry=needs_entry), pause=True)
        if self._breaker.mode is Mode.PAUSED:
            await self.release()

    async def release(self) -> None:
        """Hand everything unsettled back and stop consuming (see ``recovery.Consumption``)."""
        async with self._turn:
            if self._released:
                return
            if self._breaker.by_hand and self._tasks:
                await asyncio.wait(self._tasks, timeout=FINISH_S)
            self._released = True
            self.counts["released"] += len(self._unsettled)
            await self._intake.release()

    async def resume(self) -> None:
        """Consume again, unless the worker is on its way out."""
        async with self._turn:
            if self._released and not self._stop.is_set() and self._breaker.mode is not Mode.PAUSED:
                self._released = False
                if self._begun:
                    await self._intake.open(self)
        if self._breaker.running:
            self._outcomes.suspects.recovered()
        self._wake.set()

    # -- people ---------------------------------------------------------------------------------------------------

    def _pause_by_hand(self, outage: Outage) -> None:
        self._breaker.pause_by_hand(outage, now=self._clock())
        self._wake.set()

    async def pause(self, detail: str) -> None:
        """A person wants it to stop consuming: everything unsettled goes back, until ``resume_by_hand``."""
        log.warning("worker.paused", reason=OutageKind.MANUAL, detail=detail)
        self._pause_by_hand(Outage(kind=OutageKind.MANUAL, detail=detail))
        await self.release()

    async def resume_by_hand(self) -> bool:
        """End a pause by hand or after a storm; False if there was none. An outage goes on being probed for."""
        if self._breaker.by_hand:
            # What the storm guard withheld is decided no more: it has to come again, however soon the person was.
            await self.release()
        if not self._breaker.by_hand or self._stop.is_set():
            return False
        self._storm.restart()
        self._breaker.let_go(now=self._clock())
        log.info("worker.resumed")
        if self._breaker.mode is not Mode.PAUSED:
            await self.resume()
        self._recover()
        return True

    @property
    def activity(self) -> Activity:
        """A snapshot of now, for readiness and people."""
        outage, oldest, now = self._breaker.outage, self._unsettled.oldest, self._clock()
        return Activity(
            mode=self._breaker.mode,
            reason=None if outage is None else outage.kind,
            detail=outage.detail if outage is not None else "",
            since_s=0.0 if outage is None else now - self._breaker.since,
            draining=self._stop.is_set(),
            unsettled=len(self._unsettled),
            oldest_s=0.0 if oldest is None else now - oldest,
            in_flight=self._in_flight,
            buffered=self._coalescer.buffered,
            counts=dict(self.counts),
        )


async def _owned(work: Work) -> None:
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
