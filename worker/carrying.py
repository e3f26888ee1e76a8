"""One batch, carried through: claim its orders, send what is still news, journal what came of it, only then let go.

In that order: a crash between any two of these steps makes the broker deliver again, and the versions make that
harmless. The orders stay out until the journal has everything: whoever calls for them next reads it there.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence

import structlog

from worker.caller import Caller
from worker.core.bookkeeping import History, record_of
from worker.core.coalesce import Coalescer
from worker.core.entry import Batch, FlushReason
from worker.core.horizon import Horizon
from worker.core.journal import BatchRecord
from worker.core.measures import CallKind, Measures
from worker.core.model import Settlement
from worker.core.outcome import Outcomes
from worker.core.request import Request, applied_by, request_of
from worker.core.slots import Slots
from worker.core.turn import Effects
from worker.core.verdict import Call, Judgement
from worker.core.versions import KnownVersions
from worker.ports import Clock, WallClock
from worker.steadyjournal import SteadyJournal

log = structlog.get_logger(__name__)

Decide = Callable[[Effects], Sequence[Settlement]]
"""From what follows to what is carried out now. Called once, as soon as it is decided."""


class Carrier:
    """Knows the way of a batch, and nothing of deliveries, the broker, or when a call may start.

    ``worker`` is the name of this process in the journal.
    """

    def __init__(
        self,
        *,
        coalescer: Coalescer,
        outcomes: Outcomes,
        caller: Caller,
        journal: SteadyJournal,
        slots: Slots,
        known: KnownVersions,
        counts: Counter[str],
        measures: Measures,
        horizon: Horizon,
        worker: str,
        clock: Clock,
        wall_us: WallClock,
    ) -> None:
        self._coalescer = coalescer
        self._outcomes = outcomes
        self._caller = caller
        self._journal = journal
        self._slots = slots
        self._known = known
        self._counts = counts
        self._measures = measures
        self._horizon = horizon
        self._worker = worker
        self._clock = clock
        self._wall_us = wall_us

    async def carry(self, batch: Batch, decide: Decide) -> Sequence[Settlement]:
        """What is to be settled now: it is journalled. Nothing else of it is carried out yet."""
        order_ids = [entry.order_id for entry in batch.entries]
        self._coalescer.hold(order_ids)
        try:
            return await self._carry(batch, order_ids, decide)
        finally:
            self._coalescer.let_go(order_ids)

    async def note(self, settlements: Sequence[Settlement]) -> None:
        """Journal what was decided without a call."""
        wall_us = self._wall_us()
        history = History(settlements, wall_us=wall_us, worker=self._worker)
        await self._journal.record(BatchRecord(wall_us=wall_us, history=history))

    async def _carry(self, batch: Batch, order_ids: Sequence[int], decide: Decide) -> Sequence[Settlement]:
        rows = await self._journal.claim(order_ids) if order_ids else {}
        terminal = self._caller.terminal_statuses
        request = self._cover(batch, request_of(batch, rows, terminal, horizon=self._horizon))
        if request.fields or batch.reason is FlushReason.CONTROL:
            judgement = await self._send(batch, request)
        else:
            judgement = Judgement(call=Call.ANSWERED)
        applied = applied_by(request, judgement)
        settlements = decide(self._effects(batch, request, judgement))
        record = record_of(rows, request, judgement, applied, settlements, wall_us=self._wall_us(), worker=self._worker)
        await self._journal.record(record)
        self._known.learn(applied)
        return settlements

    def _cover(self, batch: Batch, request: Request) -> Request:
        batch.entries = request.entries
        for entry in request.covered:
            self._outcomes.suspects.settled(entry.order_id)
            self._coalescer.finish(entry)
        return request

    def _effects(self, batch: Batch, request: Request, judgement: Judgement) -> Effects:
        effects = self._outcomes.complete(
            batch,
            judgement,
            sent=request.fields,
            now=self._clock(),
            jitter=random.random(),  # noqa: S311 - spreads retries
        )
        if effects.remapped:
            self._counts["remapped"] += effects.remapped
        for order_id in effects.suspected:
            log.warning("order.suspect", order_id=order_id, batch_id=batch.id, reason=judgement.call)
        effects.settlements += request.settlements
        return effects

    async def _send(self, batch: Batch, request: Request) -> Judgement:
        started, orders, again = self._clock(), len(request.fields), _sent_before(batch)
        log.debug("batch.sent", batch_id=batch.id, orders=orders, why=batch.reason)
        judgement = await self._caller.call(request.fields)
        now = self._clock()
        self._slots.heard(judgement.call, started=started, now=now, orders=orders, again=again)
        self._note_call(batch, judgement, now - started)
        return judgement

    def _note_call(self, batch: Batch, judgement: Judgement, took_s: float) -> None:
        self._counts["calls"] += 1
        self._measures.called(CallKind.ORDERS if batch.entries else CallKind.CONTROL, judgement.call, took_s)
        if batch.entries:
            self._measures.left(batch.reason, len(batch.entries))
        self._counts["sent"] += len(batch.entries)
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


def _sent_before(batch: Batch) -> bool:
    """Whether some of it went out already, and nobody knows what became of that."""
    return batch.unknowns > 0 or any(entry.unknowns for entry in batch.entries)
