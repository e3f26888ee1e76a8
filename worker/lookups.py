"""Questions to the journal that several tools ask: how many dead letters match, and what happened to an order."""

from collections.abc import AsyncGenerator, Sequence

from worker.core.history import GroupBy, HistoryRow, Sought, Tally
from worker.journalports import Archive, LetterIndex

MOST_REASONS = 100_000
"""All of them: a queue has as many reasons as there are, and those that others gave."""
PAGE = 1000
"""Rows of history in one question."""


async def reasons_of(index: LetterIndex, sought: Sought) -> Sequence[Tally]:
    """The letters that match, by reason. It goes through all of them, so it is not asked twice."""
    return await index.tallies(sought, GroupBy.REASON, limit=MOST_REASONS)


def total(tallies: Sequence[Tally]) -> int:
    """How many letters they are together."""
    return sum(tally.count for tally in tallies)


async def history_pages(archive: Archive, order_id: int) -> AsyncGenerator[Sequence[HistoryRow], None]:
    """The whole history of an order, the oldest first, a page at a time."""
    after = 0
    while page := await archive.history(order_id, after=after, limit=PAGE):
        yield [row for _, row in page]
        if len(page) < PAGE:
            return
        after = page[-1][0]
