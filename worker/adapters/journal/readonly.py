"""A journal that is only read: what is applied comes from it, what would follow is kept in memory."""

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager

from worker.adapters.journal.memory import MEMORY, MemoryJournal
from worker.adapters.journal.opening import file_to_come
from worker.adapters.journal.sql import SqlJournal
from worker.adapters.journal.upgrading import Standing, refuse, standing
from worker.core.fields import INT64_MIN
from worker.core.journal import OrderRow, StoredOrder


class ReadOnlyJournal(MemoryJournal):
    """Implements all ports of the journal on top of ``behind``, which is asked what is known of an order when that is
    claimed first, and is never written to: no claim, no history, no letters. Without one nothing is known."""

    def __init__(self, behind: SqlJournal | None) -> None:
        super().__init__(worker="dry run")
        self._behind = behind

    async def claim(self, order_ids: Collection[int], *, wall_us: int) -> Mapping[int, OrderRow]:
        """Claim the orders, here only. Raises JournalUnavailable where the one behind does not answer."""
        unread = [order_id for order_id in order_ids if not self._is_known(order_id)]
        if self._behind is not None and unread:
            for order_id, values in (await self._behind.known(unread)).items():
                self._put(order_id, StoredOrder(values=values))
        return await super().claim(order_ids, wall_us=wall_us)

    async def horizon_us(self) -> int:
        """Before that nothing can be judged, by the journal behind."""
        return INT64_MIN if self._behind is None else await self._behind.horizon_us()


@asynccontextmanager
async def journal_to_read(url: str) -> AsyncIterator[ReadOnlyJournal]:
    """The journal at ``url``, to be read only. One that is not there yet is not made: nothing is known then.

    Raises JournalOutdated where a person has to upgrade it first, and JournalUnavailable.
    """
    if url == MEMORY or file_to_come(url) is not None:
        yield ReadOnlyJournal(None)
        return
    behind = SqlJournal(url)
    try:
        found = await behind.database.run(standing)
        if found is Standing.MISSING and behind.database.is_sqlite:
            yield ReadOnlyJournal(None)
        else:
            refuse(found)
            yield ReadOnlyJournal(behind)
    finally:
        await behind.close()
