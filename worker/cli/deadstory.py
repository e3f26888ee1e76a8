"""What the journal adds to a dead letter that ``dead show`` shows: its history, what is known of its order, and so what
a replay would do."""

from contextlib import AsyncExitStack
from typing import Any

from worker.adapters.journal.memory import MEMORY
from worker.adapters.journal.opening import AnyJournal, checked_journal
from worker.cli.deadqueue import say, schema_of
from worker.cli.order import event_json, known_json
from worker.config import Settings
from worker.core.deadletter import DeadLetter
from worker.core.errors import JournalOutdated, JournalUnavailable
from worker.core.forecast import Grounds, forecast_decoded
from worker.core.history import HistoryRow
from worker.core.letterindex import decoded
from worker.core.model import Update
from worker.ports import wall_us

PAGE = 1000
MOST_PAGES = 10
"""Of the history of one order; a million events of one order are looked up with ``order-worker order``."""


async def open_journal(settings: Settings, stack: AsyncExitStack) -> "AnyJournal | None":
    """The durable journal. None where there is none now: then the queue is shown all the same."""
    if settings.journal_url == MEMORY:
        return None
    try:
        return await stack.enter_async_context(checked_journal(settings.journal_url))
    except (JournalUnavailable, JournalOutdated) as error:
        say(f"without what the journal knows: {error}")
        return None


async def story(journal: AnyJournal, letter: DeadLetter, settings: Settings) -> dict[str, Any]:
    """Its rows of the history, and the values that are applied; nothing where the journal went away meanwhile."""
    try:
        return await _story(journal, letter, settings)
    except JournalUnavailable as error:
        say(f"without what the journal knows: {error}")
        return {}


async def _story(journal: AnyJournal, letter: DeadLetter, settings: Settings) -> dict[str, Any]:
    now_us = wall_us()
    update = decoded(letter, schema_of(settings), now_us=now_us)
    order_id = update.order_id if isinstance(update, Update) else letter.order_id
    rows, known = [], None
    if order_id is not None:
        rows = await _history(journal, order_id, letter.message_id)
        known = (await journal.known([order_id])).get(order_id)
    grounds = Grounds(
        terminal=settings.event.terminal_statuses,
        latest_us=now_us + round(settings.event.max_clock_skew_s * 1_000_000),
        horizon_us=await journal.horizon_us(),
        allowed=settings.event.allowed,
    )
    forecast = forecast_decoded(update, known, grounds)
    return {
        "history": [event_json(each) for each in rows],
        "known": known_json(known or {}),
        "replay": {"would": forecast.kind.value, "detail": forecast.detail},
    }


async def _history(journal: AnyJournal, order_id: int, message_id: str) -> list[HistoryRow]:
    """What was decided about this message, the oldest first."""
    rows: list[HistoryRow] = []
    after = 0
    for _ in range(MOST_PAGES):
        page = await journal.history(order_id, after=after, limit=PAGE)
        rows += [row for _, row in page if row.message_id == message_id]
        if len(page) < PAGE:
            break
        after = page[-1][0]
    return rows
