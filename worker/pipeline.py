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
from collections.abc import Callable, Coroutine
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
from worker.core.request import Request, applied_by, request_of
from worker.core.verdict import Call, Judgement
from worker.core.versions import KnownVersions
from worker.ports import Clock, Intake, Journal, Settler
from worker.recovery import Recovery
from worker.settling import Unsettled

log = structlog.get_logger(__name__)

KNOWN_ORDERS = 50_000
EARLY_AT_MOST = 200
"""Settlements that need no call and wait for one that ends; beyond this they are settled by themselves."""

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
        self._caller = caller
        self._journal = journal
        self._intake = intake
        self._limits = limits
        self._clock = clock
        self._unsettled = Unsettled(settler, prefetch=limits.prefetch)
        self.counts = self._unsettled.counts
        self._known = KnownVersions(KNOWN_ORDERS)
        self._early: list[Settlement] = []
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
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
        self._early.append(settlement)
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
        return not self._tasks and not self._early and (self._coalescer.idle or not self._breaker.running)

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
            self._spawn(partial(self._unsettled.settle, self._take_early()), "settle early")
        while self._breaker.running and self._in_flight < self._limits.max_in_flight:
            batch = self._coalescer.pop_ready(self._clock(), self._in_flight)
            if batch is None:
                return
            self._in_flight += 1
            self._spawn(partial(self._process, batch), f"call {batch.id}")

    def _take_early(self) -> list[Settlement]:
        early, self._early = self._early, []
        return early

    async def _process(self, batch: Batch) -> None:
        in_flight = True
        try:
            effects = await self._call(batch)
            self._in_flight -= 1
            in_flight = False
            self._wake.set()
            await self._unsettled.settle([*effects.settlements, *self._take_early()])
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
        # A drain hands back what cannot be sent, and probes no more.
        if not self._stop.is_set() and (self._recovering is None or self._recovering.done()):
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
        self._wake.set()

    def _asked_wait(self, outage: Outage) -> float | None:
        wait_s = retry_after_s(outage.retry_after, wall_s=time.time())
        if wait_s is None and outage.kind is OutageKind.THROTTLED:
            jitter = random.random()  # noqa: S311 - spreads retries
            wait_s = 1.0 + full_jitter(self._breaker.throttled + 1, first_s=1.0, cap_s=299.0, jitter=jitter)
        return wait_s

    async def _probe(self, batch: Batch) -> bool:
        effects = await self._call(batch)
        self._spawn(partial(self._unsettled.settle, effects.settlements), f"settle {batch.id}")
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
        if not self._released:
            self._released = True
            self.counts["released"] += len(self._unsettled)
            await self._intake.release()

    async def resume(self) -> None:
        """Consume again, unless the worker is on its way out."""
        if self._released and not self._stop.is_set():
            self._released = False
            await self._intake.open(self)
        if self._breaker.running:
            self._outcomes.suspects.recovered()
        self._wake.set()


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
