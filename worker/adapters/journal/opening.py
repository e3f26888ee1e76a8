"""From ``JOURNAL_URL`` to a journal that is ready.

SQLAlchemy and Alembic are imported where a database is asked for: they take a third of what a worker occupies before it
has any work (33 of 102 MB), and one that keeps its journal in memory has no use for them.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from worker.adapters.journal.memory import CLAIM_S, MEMORY, MemoryJournal

if TYPE_CHECKING:
    from worker.adapters.journal.sql import SqlJournal

AnyJournal: TypeAlias = "MemoryJournal | SqlJournal"


def journal_at(url: str, *, worker: str = "order-worker", claim_s: float = CLAIM_S) -> AnyJournal:
    """The journal at ``url``; nothing is connected yet. Whoever uses it calls ``check`` first, and closes it."""
    if url == MEMORY:
        return MemoryJournal(worker=worker, claim_s=claim_s)
    from worker.adapters.journal.sql import SqlJournal

    return SqlJournal(url, worker=worker, claim_s=claim_s)


async def check(journal: AnyJournal, url: str) -> None:
    """Hold its tables against this version. An SQLite file that has none yet gets them.

    Raises JournalOutdated where a person has to upgrade it, and JournalUnavailable.
    """
    if isinstance(journal, MemoryJournal):
        return
    from worker.adapters.journal.upgrading import Standing, refuse, standing, upgrade

    found = await journal.database.run(standing)
    if found is Standing.MISSING and journal.database.is_sqlite:
        await upgrade(url)
    else:
        refuse(found)


def file_to_come(url: str) -> Path | None:
    """The SQLite file that the first start will make; None where there is nothing to make."""
    if url == MEMORY or not url.startswith("sqlite"):
        return None
    from sqlalchemy.engine import make_url

    path = Path(make_url(url).database or "")
    return None if path.exists() else path


@asynccontextmanager
async def checked_journal(url: str) -> AsyncIterator[AnyJournal]:
    """The journal at ``url``, checked; closed in the end. Raises as ``check``."""
    journal = journal_at(url)
    try:
        await check(journal, url)
        yield journal
    finally:
        await journal.close()
