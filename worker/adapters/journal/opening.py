"""From ``JOURNAL_URL`` to a journal that is ready."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from worker.adapters.journal.memory import CLAIM_S, MEMORY, MemoryJournal
from worker.adapters.journal.sql import SqlJournal
from worker.adapters.journal.upgrading import Standing, refuse, standing, upgrade


@asynccontextmanager
async def checked_journal(
    url: str, *, worker: str = "order-worker", claim_s: float = CLAIM_S
) -> AsyncIterator[MemoryJournal | SqlJournal]:
    """The journal at ``url``, its tables checked. An SQLite file that has none yet gets them.

    Raises JournalOutdated where a person has to upgrade it, and JournalUnavailable.
    """
    if url == MEMORY:
        yield MemoryJournal(worker=worker, claim_s=claim_s)
        return
    journal = SqlJournal(url, worker=worker, claim_s=claim_s)
    try:
        await _check(journal, url)
        yield journal
    finally:
        await journal.close()


async def _check(journal: SqlJournal, url: str) -> None:
    found = await journal.database.run(standing)
    if found is Standing.MISSING and journal.database.is_sqlite:
        await upgrade(url)
    else:
        refuse(found)
