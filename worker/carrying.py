"""One batch, carried through: read the journal, send what is still news, write what was applied, decide what follows.

In that order: a crash between any two of these steps makes the broker deliver again, and the versions make that
harmless.
"""

import random
from collections import Counter

import structlog

from worker.caller import Caller
from worker.core.coalesce import Coalescer
from worker.core.entry import Batch, FlushReason
from worker.core.outcome import Effects, Outcomes
from worker.core.request import Request, applied_by, request_of
from worker.core.slots import Slots
from worker.core.verdict import Call, Judgement
from worker.core.versions import KnownVersions
from worker.ports import Clock, Journal

log = structlog.get_logger(__name__)


class Carrier:
    """Knows the way of a batch, and nothing of deliveries, the broker, or when a call may start."""

    def __init__(
        self,
        *,
        coalescer: Coalescer,
        outcomes: Outcomes,
        caller: Caller,
        journal: Journal,
        slots: Slots,
        known: KnownVersions,
        counts: Counter[str],
        clock: Clock,
    ) -> None:
        self._coalescer = coalescer
        self._outcomes = outcomes
        self._caller = caller
        self._journal = journal
        self._slots = slots
        self._known = known
        self._counts = counts
        self._clock = clock

    async def carry(self, batch: Batch) -> Effects:
        """What follows from the call; nothing of it is carried out yet, except that the journal knows."""
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
            self._counts["remapped"] += effects.remapped
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
        started, orders, again = self._clock(), len(request.fields), _sent_before(batch)
        log.debug("batch.sent", batch_id=batch.id, orders=orders, why=batch.reason)
        judgement = await self._caller.call(request.fields)
        now = self._clock()
        self._slots.heard(judgement.call, started=started, now=now, orders=orders, again=again)
        self._note_call(batch, judgement, now - started)
        return judgement

    def _note_call(self, batch: Batch, judgement: Judgement, took_s: float) -> None:
        self._counts["calls"] += 1
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
