"""Use cases on a dead-letter queue that is taken: bring the index up to date, export letters, discard them.

Memory is bounded by a window of letters, however long the queue is. What is not removed goes back to its place when the
taking ends, and whatever happens here, a letter is removed only after it is in a file and in the journal.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from worker.core.deadletter import DeadLetter
from worker.core.decode import EventSchema
from worker.core.history import HistoryRow, IndexedLetter, LetterState, Sought
from worker.core.journal import BatchRecord
from worker.core.letterfile import letter_line
from worker.core.letterindex import decoded, indexed
from worker.journalports import Ledger, LetterIndex
from worker.ports import Taking, WallClock, wall_us

WINDOW = 500
"""Letters in memory at a time, and in one statement of the journal (1,000 at most)."""
MARGIN_US = 60_000_000
"""Letters that failed so shortly before a look are not called gone: their copy may have been placed after it began, or
by a worker whose clock is behind."""
DISCARDED = "discarded"
"""The disposition in the history."""

Progress = Callable[[int], None]
"""Hears how many letters of the queue were looked at so far."""


class LetterSink(Protocol):
    """Where exported letters go. Synchronous: a window is half a megabyte."""

    def write(self, line: bytes) -> None:
        """Add a line. Raises UsageError where there is no room for it."""
        ...

    def sync(self) -> None:
        """Returns when all lines are on the disk. Raises as ``write``."""
        ...


class DeadJournal(Ledger, LetterIndex, Protocol):
    """What discarding needs of the journal."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Synced:
    """``found`` in the queue, ``added`` to the index, ``gone`` from the queue. ``complete``: nobody else held any;
    else nothing was called gone."""

    found: int
    added: int
    gone: int
    complete: bool


@dataclass(slots=True, frozen=True, kw_only=True)
class Taken:
    """``looked`` at so many, ``chosen`` so many of them. ``complete``: nobody else held any."""

    looked: int
    chosen: int
    complete: bool


class Selection:
    """Which letters of a queue are meant, and how they are read.

    A letter that does not say when it failed is as old as the index says, where it knows it.
    """

    def __init__(
        self, sought: Sought, schema: EventSchema, *, index: LetterIndex | None = None, wall_us: WallClock = wall_us
    ) -> None:
        self.sought = sought
        self._schema = schema
        self._index = index
        self._wall_us = wall_us

    def row(self, letter: DeadLetter) -> IndexedLetter:
        """What the index has to say of this letter."""
        now_us = self._wall_us()
        update = decoded(letter, self._schema, now_us=now_us)
        return indexed(letter, queue=self.sought.queue, update=update, now_us=now_us)

    async def of(self, letters: Sequence[DeadLetter]) -> list[tuple[DeadLetter, IndexedLetter]]:
        """Those that are meant, in their order, each with its row."""
        rows = [(letter, self.row(letter)) for letter in letters]
        if self._index is not None and (self.sought.since_us is not None or self.sought.until_us is not None):
            timeless = [row.copy_id for letter, row in rows if letter.failed_us is None]
            first = await self._first_seen(self._index, timeless)
            rows = [(letter, replace(row, failed_us=first.get(row.copy_id, row.failed_us))) for letter, row in rows]
        return [(letter, row) for letter, row in rows if self.sought.matches(row)]

    async def _first_seen(self, index: LetterIndex, copy_ids: Sequence[str]) -> dict[str, int]:
        if not copy_ids:
            return {}
        known = await index.page(Sought(queue=self.sought.queue, message_ids=tuple(copy_ids)), limit=len(copy_ids))
        return {row.copy_id: row.failed_us for row in known}


async def sync(
    taking: Taking,
    index: LetterIndex,
    selection: Selection,
    *,
    wall_us: WallClock = wall_us,
    progress: Progress = lambda _: None,
) -> Synced:
    """Go through the whole queue once: add what the index lacks, and mark as removed what is no longer there.

    ``selection`` names the queue and how to read it. Raises ConnectionLost and JournalUnavailable; what was added
    until then stays, and repeating it is harmless.
    """
    start_us = wall_us()
    found = added = gone = 0
    async for letters in taking.windows(WINDOW):
        rows = list({row.copy_id: row for row in map(selection.row, letters)}.values())
        added += await _see(index, rows, wall_us=wall_us)
        found += len(letters)
        progress(found)
    if taking.complete:
        queue = selection.sought.queue
        gone = await index.forget_unseen(queue, start_us, margin_us=MARGIN_US, wall_us=wall_us())
    return Synced(found=found, added=added, gone=gone, complete=taking.complete)


async def _see(index: LetterIndex, rows: Sequence[IndexedLetter], *, wall_us: WallClock) -> int:
    """Have these letters in the index, as seen now; how many of them are new to it."""
    copy_ids = [row.copy_id for row in rows]
    known = await index.seen(copy_ids, wall_us=wall_us())
    if known == len(copy_ids):
        return 0
    await index.add(rows)
    return await index.seen(copy_ids, wall_us=wall_us()) - known


async def export(
    taking: Taking, selection: Selection, sink: LetterSink, *, progress: Progress = lambda _: None
) -> Taken:
    """Write the letters that are meant to ``sink``, oldest first.

    Raises ConnectionLost, JournalUnavailable, and what the sink raises.
    """
    looked = chosen = 0
    async for letters in taking.windows(WINDOW):
        for letter, _ in await selection.of(letters):
            sink.write(letter_line(letter))
            chosen += 1
        looked += len(letters)
        progress(looked)
    sink.sync()
    return Taken(looked=looked, chosen=chosen, complete=taking.complete)


async def discard(
    taking: Taking,
    selection: Selection,
    sink: LetterSink,
    journal: DeadJournal,
    *,
    by: str,
    wall_us: WallClock = wall_us,
    progress: Progress = lambda _: None,
) -> Taken:
    """Remove the letters that are meant from the queue, each after it is in ``sink`` and in the journal.

    ``by`` says who did it, for the history. Raises as ``export``; then all that was removed is in the file, and of the
    last window some may be in the file and the history and yet still in the queue: repeating it is harmless.
    """
    looked = chosen = 0
    async for letters in taking.windows(WINDOW):
        meant = await selection.of(letters)
        if meant:
            for letter, _ in meant:
                sink.write(letter_line(letter))
            sink.sync()
            await _take_down(journal, [row for _, row in meant], by=by, now_us=wall_us())
            await taking.remove([letter for letter, _ in meant])
            chosen += len(meant)
        looked += len(letters)
        progress(looked)
    return Taken(looked=looked, chosen=chosen, complete=taking.complete)


async def _take_down(journal: DeadJournal, rows: Sequence[IndexedLetter], *, by: str, now_us: int) -> None:
    """The history first: a letter that the index calls removed must have been removed by somebody."""
    history = [_discarded(row, by=by, now_us=now_us) for row in rows]
    await journal.record(BatchRecord(wall_us=now_us, history=history))
    # Those that the index never knew are put there as removed.
    await journal.add([replace(row, state=LetterState.REMOVED, state_us=now_us) for row in rows])
    await journal.mark([row.copy_id for row in rows], LetterState.REMOVED, wall_us=now_us)


def _discarded(row: IndexedLetter, *, by: str, now_us: int) -> HistoryRow:
    return HistoryRow(
        at_us=now_us,
        disposition=DISCARDED,
        reason=row.reason,
        order_id=row.order_id,
        message_id=row.message_id,
        event_id=row.event_id,
        fields=row.fields,
        version=row.version,
        attempt=row.attempt,
        detail=row.detail,
        replay_id=row.replay_id,
        worker=by,
    )
