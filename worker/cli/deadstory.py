"""What the journal adds to a dead letter that ``dead show`` shows: its history, what is known of its order, and so what
a replay would do."""

from contextlib import AsyncExitStack
from typing import Any

from worker.adapters.journal.memory import MEMORY
from worker.adapters.journal.opening import AnyJournal, checked_journal
from worker.cli.deadqueue import say
from worker.cli.order import event_json, known_json
from worker.config import Settings
from worker.core.deadletter import DeadLetter
from worker.core.errors import JournalOutdated, JournalUnavailable
from worker.replay.foretelling import story_of


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
        told = await story_of(journal, letter, settings)
    except JournalUnavailable as error:
        say(f"without what the journal knows: {error}")
        return {}
    return {
        "history": [event_json(each) for each in told.rows],
        "known": known_json(told.known),
        "replay": {"would": told.forecast.kind.value, "detail": told.forecast.detail},
    }
