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
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import structlog

from worker.caller import Caller
from worker.core.backoff import full_jitter, retry_after_s
from worker.core.breaker import Breaker, Mode
from worker.core.coalesce import Coalescer
from worker.core.decode import EventSchema
from worker.core.entry import Batch, Entry, FlushReason
from worker.core.errors import CopyFailed
from worker.core.model import Ack, AckReason, Dead, Delivery, Fields, Retry, Settlement, Update, Version
from worker.core.outage import Outage, OutageKind
from worker.core.outcome import Effects, Outcomes
from worker.core.verdict import Call, Item, Judgement
from worker.core.versions import FirstSeen, by_version, standing, unsent
from worker.ports import Clock, Intake, Journal, Settler
from worker.recovery import Recovery
from worker.retrying import forever

log = structlog.get_logger(__name__)

APPLIED = (Item.APPLIED, Item.REMAPPED)

Work = Callable[[], Coroutine[object, object, None]]
"""A coroutine that is made when its task runs first: one cancelled before that leaves nothing that is never awaited."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Limits:
    """Bounds of the shell: calls at once, seconds a delivery may stay unsettled, seconds a drain may take, deliveries
    held."""

    max_in_flight: int
    max_unsettled_s: float
    drain_grace_s: float
    prefetch: int


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
        self._settler = settler
        self._intake = intake
        self._limits = limits
        self._clock = clock
        self._first_seen = FirstSeen(limits.prefetch)
        self._times = FirstSeen(limits.prefetch)
        self._unsettled: dict[Delivery, tuple[float, Version | None]] = {}
        self._invalid: list[Settlement] = []
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._released = False
        self._in_flight = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._recovering: asyncio.Task[None] | None = None
        self._group = asyncio.TaskGroup()
        self.counts: Counter[str] = Counter()

    # -- the sink: called by the intake for every delivery ----------------------------------------------------------

    def deliver(self, delivery: Delivery) -> None:
        """Decode and buffer one delivery."""
        first_seen = self._first_seen.recall(delivery)
        decoded = self._schema.decode(delivery, first_seen_us=first_seen)
        self.counts["delivered"] += 1
        now = self._clock()
        if isinstance(decoded, Update):
            # An unstamped redelivery of before our time is older than when we saw it first: its time is kept as well.
            if (time_us := self._times.recall(delivery)) is not None:
                decoded = replace(decoded, version=decoded.version._replace(time_us=time_us))
            self._unsettled[delivery] = now, decoded.version
            self._coalescer.add(decoded, now)
        else:
            self._unsettled[delivery] = now, None
            self._invalid.append(Settlement(delivery=delivery, disposition=decoded))
        self._wake.set()

    def lost(self, generation: int) -> None:
        """Forget what the broker delivers again; remember when it happened and when it was first seen."""
        for delivery, (_, version) in list(self._unsettled.items()):
            if delivery.generation <= generation:
                del self._unsettled[delivery]
                if version is not None:
                    self._first_seen.remember(delivery, version.first_seen_us)
                    self._times.remember(delivery, version.time_us)
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
        return not self._tasks and not self._invalid and (self._coalescer.idle or not self._breaker.running)

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
        if self._released or not self._unsettled:
            return None
        oldest, _ = next(iter(self._unsettled.values()))
        return oldest + self._limits.max_unsettled_s

    def _spawn(self, work: Work, name: str) -> None:
        task = self._group.create_task(_owned(work), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._wake.set()

    # -- calls ----------------------------------------------------------------------------------------------------

    def _start_work(self) -> None:
        if self._invalid:
            self._spawn(partial(self._settle, self._invalid), "settle invalid")
            self._invalid = []
        while self._breaker.running and self._in_flight < self._limits.max_in_flight:
            batch = self._coalescer.pop_ready(self._clock(), self._in_flight)
            if batch is None:
                return
            self._in_flight += 1
            self._spawn(partial(self._process, batch), f"call {batch.id}")

    async def _process(self, batch: Batch) -> None:
        in_flight = True
        try:
            effects = await self._call(batch)
            self._in_flight -= 1
            in_flight = False
            self._wake.set()
            await self._settle(effects.settlements)
            log.debug("batch.settled", batch_id=batch.id, orders=len(batch.entries))
        finally:
            if in_flight:
                self._in_flight -= 1

    async def _call(self, batch: Batch) -> Effects:
        """Send what of the batch is still news, journal what was applied, and decide what follows."""
        requested, covered = await self._requested(batch)
        if requested or batch.reason is FlushReason.CONTROL:
            started = self._clock()
            log.debug("batch.sent", batch_id=batch.id, orders=len(requested), why=batch.reason)
            judgement = await self._caller.call(requested)
            self._note_call(batch, judgement, self._clock() - started)
        else:
            judgement = Judgement(call=Call.ANSWERED)
        await self._record(batch, requested, judgement)
        effects = self._outcomes.complete(
            batch,
            judgement,
            sent=requested,
            now=self._clock(),
            jitter=random.random(),  # noqa: S311 - spreads retries
        )
        if effects.outage is not None:
            self._trip(effects.outage)
        for order_id in effects.suspected:
            log.warning("order.suspect", order_id=order_id, batch_id=batch.id, reason=judgement.call)
        effects.settlements += covered
        return effects

    async def _requested(self, batch: Batch) -> tuple[dict[int, Fields], list[Settlement]]:
        """What to send per order. Entries that turn out to be covered by what is applied leave the batch, to be
        acknowledged."""
        known = await self._journal.read([entry.order_id for entry in batch.entries]) if batch.entries else {}
        requested: dict[int, Fields] = {}
        covered: list[Settlement] = []
        left: list[Entry] = []
        for entry in batch.entries:
            applied = known.get(entry.order_id, {})
            fields = unsent(entry.winners, applied)
            if fields:
                requested[entry.order_id] = fields
                left.append(entry)
                continue
            for update in by_version(entry.updates):
                reason = standing(update, applied) or AckReason.SUPERSEDED
                covered.append(
                    Settlement(delivery=update.delivery, disposition=Ack(reason), update=update, batch_id=batch.id)
                )
            self._coalescer.finish(entry)
        batch.entries = left
        return requested, covered

    async def _record(self, batch: Batch, requested: Mapping[int, Fields], judgement: Judgement) -> None:
        applied = {
            entry.order_id: {
                name: (entry.winners[name].version, value) for name, value in requested[entry.order_id].items()
            }
            for entry in batch.entries
            if (verdict := judgement.items.get(entry.order_id)) is not None and verdict.item in APPLIED
        }
        if applied:
            await self._journal.write(applied)

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

    # -- settling -------------------------------------------------------------------------------------------------

    async def _settle(self, settlements: Sequence[Settlement]) -> None:
        """Carry out dispositions. A copy that fails is tried again for as long as its delivery is ours to settle."""
        if not settlements:
            return
        async for attempt in forever(first_s=0.25, cap_s=5.0, retry_on=(CopyFailed,), noticed=_copy_failed):
            with attempt:
                await self._settler.settle(settlements)
        for settlement in settlements:
            if self._unsettled.pop(settlement.delivery, None) is not None:
                self._count(settlement)

    def _count(self, settlement: Settlement) -> None:
        disposition, update = settlement.disposition, settlement.update
        match disposition:
            case Ack(reason=reason):
                self.counts[reason] += 1
                return
            case Retry(reason=reason, detail=detail):
                self.counts["retried"] += 1
                event = "message.retry"
            case Dead(reason=reason, detail=detail):
                self.counts["dead"] += 1
                event = "message.dead"
            case _:
                return
        log.warning(
            event,
            reason=reason,
            detail=detail,
            order_id=update.order_id if update is not None else None,
            attempt=update.attempt if update is not None else None,
            batch_id=settlement.batch_id or None,
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
            recovery = Recovery(self._breaker, self._coalescer, self, self._probe, clock=self._clock, stop=self._stop)
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
        self._spawn(partial(self._settle, effects.settlements), f"settle {batch.id}")
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


def _copy_failed(error: Exception, attempt: int, wait_s: float) -> None:
    log.error("broker.copy_failed", reason=str(error), attempt=attempt, wait_s=round(wait_s, 3))
