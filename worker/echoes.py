"""Echoes: known values, sent once more, because a call of somebody else may have been executed after ours.

An echo is an entry without deliveries. It is owed by the journal's row of the order (``core/journal.py``) and due when
the other claim has expired. They go out in batches of their own, never along with news: a call that is refused must
speak of one event only. An order that is at work waits for its echo until it has nothing to do.

Echoes use the same slots and budget as every other call, and are late by nature: one that fails is owed on, and the
platform's outages are found by the calls that carry news. Those of orders that are not ``allowed`` are owed on.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import structlog

from worker.caller import Caller
from worker.core.allowed import EVERY_ORDER, Allowed, is_allowed
from worker.core.bookkeeping import outcome_of
from worker.core.coalesce import Coalescer
from worker.core.errors import JournalUnavailable
from worker.core.journal import BatchRecord, OrderRow
from worker.core.measures import CallKind, Measures
from worker.core.model import Fields
from worker.core.request import CONFIRMED, values_of
from worker.core.slots import Slots
from worker.core.verdict import Call, Judgement
from worker.permits import Permits
from worker.ports import Clock, WallClock
from worker.steadyjournal import SteadyJournal

log = structlog.get_logger(__name__)

EVERY_S = 10.0
"""How late an echo may be, beyond the time that it is due. Jittered: two workers that looked at the same time for ever
would find each other's claims for ever."""
AT_MOST = 100
GIVE_UP_AFTER = 5
"""Refusals of one echo: the platform does not want these values again, and said so. The order is as it is."""


class Echoes:
    """Looks for due echoes and sends them, while ``may`` says that calls may start."""

    def __init__(
        self,
        *,
        journal: SteadyJournal,
        coalescer: Coalescer,
        caller: Caller,
        slots: Slots,
        permits: Permits,
        counts: Counter[str],
        measures: Measures,
        may: Callable[[], bool],
        clock: Clock,
        wall_us: WallClock,
        allowed: Allowed = EVERY_ORDER,
    ) -> None:
        self._allowed = allowed
        self._journal = journal
        self._coalescer = coalescer
        self._caller = caller
        self._slots = slots
        self._permits = permits
        self._counts = counts
        self._measures = measures
        self._may = may
        self._clock = clock
        self._wall_us = wall_us
        self._refused: Counter[int] = Counter()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S * random.uniform(0.5, 1.0))  # noqa: S311 - spreads the looks
            try:
                while self._may() and self._slots.free and await self._send_due():
                    pass
            except JournalUnavailable as error:
                log.info("echo.postponed", detail=str(error))

    async def _send_due(self) -> bool:
        """Send one batch of what is due; False when nothing was, or nothing may be sent."""
        due = await self._journal.due_echoes(AT_MOST)
        lent = [order_id for order_id in due if is_allowed(order_id, self._allowed) and self._coalescer.lend(order_id)]
        if not lent:
            return False
        try:
            if self._permits.wait_s(self._clock(), full=False):
                return False
            self._slots.take()
            try:
                return await self._echo(lent)
            finally:
                self._slots.give_back()
        finally:
            for order_id in lent:
                self._coalescer.give_back(order_id)

    async def _echo(self, order_ids: Sequence[int]) -> bool:
        rows, at_us = await self._journal.claim(order_ids), self._wall_us()
        fields: dict[int, Fields] = {order_id: values for order_id, row in rows.items() if (values := values_of(row))}
        judgement = await self._call(fields) if fields else Judgement(call=Call.ANSWERED)
        echoed, ended_us = self._echoed(rows, fields, judgement), self._wall_us()
        outcomes = {
            order_id: outcome_of(
                row,
                applied={},
                known=judgement.call is not Call.UNKNOWN or order_id not in fields,
                wall_us=ended_us,
                echoed_at_us=at_us if order_id in echoed else None,
            )
            for order_id, row in rows.items()
        }
        await self._journal.record(BatchRecord(wall_us=ended_us, orders=outcomes))
        self._counts["echoed"] += len(echoed.intersection(fields))
        return bool(echoed)

    async def _call(self, fields: Mapping[int, Fields]) -> Judgement:
        started = self._clock()
        judgement = await self._caller.call(fields)
        self._measures.called(CallKind.ECHO, judgement.call, self._clock() - started)
        return judgement

    def _echoed(self, rows: Mapping[int, OrderRow], fields: Mapping[int, Fields], judgement: Judgement) -> set[int]:
        """The orders whose echo is over: it was applied, there is nothing to send, or it is of no use to go on."""
        done = set(rows).difference(fields)
        for order_id in fields:
            verdict = judgement.items.get(order_id)
            if verdict is not None and verdict.item in CONFIRMED:
                self._refused.pop(order_id, None)
                done.add(order_id)
            elif judgement.call in (Call.ANSWERED, Call.REFUSED) and self._wearied(order_id):
                log.warning("echo.given_up", order_id=order_id, detail=judgement.detail)
                done.add(order_id)
        return done

    def _wearied(self, order_id: int) -> bool:
        self._refused[order_id] += 1
        if self._refused[order_id] < GIVE_UP_AFTER:
            return False
        del self._refused[order_id]
        return True
