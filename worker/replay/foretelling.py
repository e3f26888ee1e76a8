"""What the journal adds to a dead letter in hand: its history, what is known of its order, and so what a replay would
do."""

from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol

from worker.config import Settings
from worker.core.deadletter import DeadLetter
from worker.core.forecast import Forecast, forecast_decoded, forecast_letter
from worker.core.history import HistoryRow, IndexedLetter
from worker.core.letterindex import decoded
from worker.core.model import Update
from worker.core.values import Values
from worker.journalports import Archive, Ledger
from worker.lookups import history_pages
from worker.ports import wall_us
from worker.replay.reaching import grounds_of, schema_of

MOST_ROWS = 10_000
"""Of the history of one order; a million events of one order are looked up with ``order-worker order``."""


class Memory(Ledger, Archive, Protocol):
    """What is asked of the journal here."""


@dataclass(slots=True, frozen=True, kw_only=True)
class LetterStory:
    """``rows`` are what was decided about this message, the oldest first; ``known`` what is applied of its order."""

    forecast: Forecast
    rows: list[HistoryRow] = field(default_factory=list)
    known: Values = field(default_factory=dict)


async def story_of(memory: Memory, letter: DeadLetter, settings: Settings) -> LetterStory:
    """Of a letter in hand, by its body. JournalUnavailable."""
    update = decoded(letter, schema_of(settings), now_us=wall_us())
    order_id = update.order_id if isinstance(update, Update) else letter.order_id
    grounds = (await grounds_of(memory, settings))()
    if order_id is None:
        return LetterStory(forecast=forecast_decoded(update, None, grounds))
    rows = await _history(memory, order_id, letter.message_id)
    known = (await memory.known([order_id])).get(order_id)
    return LetterStory(forecast=forecast_decoded(update, known, grounds), rows=rows, known=known or {})


async def story_of_row(memory: Memory, letter: IndexedLetter, settings: Settings) -> LetterStory:
    """Of a letter that only its row in the index is known of. JournalUnavailable."""
    grounds = (await grounds_of(memory, settings))()
    if letter.order_id is None:
        return LetterStory(forecast=forecast_letter(letter, None, grounds))
    rows = await _history(memory, letter.order_id, letter.message_id)
    known = (await memory.known([letter.order_id])).get(letter.order_id)
    return LetterStory(forecast=forecast_letter(letter, known, grounds), rows=rows, known=known or {})


async def _history(memory: Archive, order_id: int, message_id: str) -> list[HistoryRow]:
    rows: list[HistoryRow] = []
    seen = 0
    async with aclosing(history_pages(memory, order_id)) as pages:
        async for page in pages:
            rows += [row for row in page if row.message_id == message_id]
            seen += len(page)
            if seen >= MOST_ROWS:
                break
    return rows
