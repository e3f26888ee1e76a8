"""The journal as the pipeline uses it: it tries for as long as it takes, and says so meanwhile.

Nothing may be acknowledged that is not journalled, so a journal that is away is an outage like any other: no call
starts, what was decided waits, and readiness has the reason.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TypeVar

import structlog

from worker.core.errors import JournalUnavailable
from worker.core.history import IndexedLetter
from worker.core.journal import BatchRecord, OrderRow
from worker.journalports import Pauses, WorkerJournal
from worker.ports import WallClock
from worker.retrying import until_done

log = structlog.get_logger(__name__)

T = TypeVar("T")


class SteadyJournal:
    """``wall_us`` is asked anew for every try: a claim that was long in coming must not be an old one."""

    def __init__(self, ledger: WorkerJournal, *, wall_us: WallClock) -> None:
        self._ledger = ledger
        self._wall_us = wall_us
        self._stuck: dict[int, str] = {}
        self._tries = 0

    @property
    def stuck(self) -> str:
        """Why something waits for the journal; empty if nothing does."""
        return next(iter(self._stuck.values()), "")

    async def claim(self, order_ids: Collection[int]) -> Mapping[int, OrderRow]:
        """Claim the orders of a call, and read what is known of them."""
        return await self.steadily(lambda: self._ledger.claim(order_ids, wall_us=self._wall_us()))

    async def record(self, record: BatchRecord) -> None:
        """Take down what came of a batch. Only then may its deliveries be settled."""
        if record.orders or record.history:
            await self.steadily(lambda: self._ledger.record(record))

    async def index(self, letters: Sequence[IndexedLetter]) -> None:
        """Put dead letters into the index. Only then may their messages be acknowledged."""
        if letters:
            await self.steadily(lambda: self._ledger.add(letters))

    async def due_echoes(self, limit: int) -> Sequence[int]:
        """The orders whose echo is due. Tried once: JournalUnavailable where that fails."""
        return await self._ledger.due_echoes(self._wall_us(), limit)

    @property
    def pauses(self) -> Pauses:
        """The pauses of all workers. Each is tried once: JournalUnavailable where that fails."""
        return self._ledger

    async def steadily(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do it, again and again, for as long as it raises JournalUnavailable; ``stuck`` meanwhile."""
        self._tries += 1
        number = self._tries

        def noticed(error: Exception, attempt: int, wait_s: float) -> None:
            self._stuck[number] = f"the journal: {error}"
            log.error("journal.unavailable", detail=str(error), attempt=attempt, next_try_s=round(wait_s, 3))

        try:
            return await until_done(work, first_s=0.25, cap_s=5.0, retry_on=(JournalUnavailable,), noticed=noticed)
        finally:
            if self._stuck.pop(number, None) and not self._stuck:
                log.info("journal.available")
