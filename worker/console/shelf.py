"""The journal as the console has it: opened at the start, checked when it is there, so that a console may be started
before its journal."""

from types import TracebackType
from typing import Self

from worker.adapters.journal.memory import MEMORY
from worker.adapters.journal.opening import AnyJournal, check, journal_at
from worker.core.errors import UsageError
from worker.replay.books import Books


class Shelf:
    """Open while in ``async with``. Raises UsageError where the journal keeps nothing."""

    def __init__(self, url: str) -> None:
        if url == MEMORY:
            raise UsageError(
                "ORDER_WORKER_JOURNAL_URL: memory ends with its process, so there is no index of dead letters to show; "
                "set it to sqlite:///FILE or postgresql://... for the worker and for the console"
            )
        self._url = url
        self._journal: AnyJournal = journal_at(url)
        self._checked = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._journal.close()

    async def books(self) -> Books:
        """The journal, with tables of this version. Raises JournalUnavailable and JournalOutdated, until it is."""
        if not self._checked:
            await check(self._journal, self._url)
            self._checked = True
        return self._journal
