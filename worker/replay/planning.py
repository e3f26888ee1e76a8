"""Planning: which dead letters a replay is about, frozen by their ids, and what would come of each.

Reads the index page by page and keeps counts, so memory stays flat however many letters there are.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from worker.core.edits import NO_EDITS, Edits
from worker.core.forecast import Forecast, Grounds, Tallies, forecast_letter
from worker.core.history import IndexedLetter, ItemState, Replay, ReplayItem, Sought
from worker.core.replayoptions import Options
from worker.replay.books import PAGE, Books, State

MOST_ALIKE: Final = 10_000
"""Letters of a page of ids: several may have one producer's id."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Plan:
    """What was planned: the replay with its id, and the counts."""

    replay: Replay
    tallies: Tallies


async def make_plan(books: Books, replay: Replay, *, grounds: Grounds, edits: Edits = NO_EDITS, wall_us: int) -> Plan:
    """Put the replay and its plan down. Until it is ``planned`` it cannot be executed. JournalUnavailable.

    ``replay.options`` say which letters; ``replay.state`` has to be ``planning``.
    """
    options = Options.from_json(replay.options)
    grounds = replace(grounds, allow_terminal=options.allow_terminal)
    tallies = Tallies()
    place = 0
    await books.begin(replay)
    async for letters in _pages(books, options):
        forecasts = await _forecasts(books, letters, grounds, edits)
        items = [ReplayItem(place=place + number, copy_id=letter.copy_id) for number, letter in enumerate(letters)]
        await books.plan(replay.replay_id, items)
        place += len(items)
        for letter, forecast in zip(letters, forecasts, strict=True):
            tallies.add(letter.reason, forecast)
    await books.turn(replay.replay_id, State.PLANNED, wall_us=wall_us)
    return Plan(replay=replay, tallies=tallies)


async def judge_again(books: Books, replay: Replay, *, grounds: Grounds, edits: Edits = NO_EDITS) -> Tallies:
    """What would come now of those of a plan that are still to go, from the index. JournalUnavailable."""
    options = Options.from_json(replay.options)
    grounds = replace(grounds, allow_terminal=options.allow_terminal)
    tallies = Tallies()
    after = -1
    while items := await books.items(replay.replay_id, after=after, limit=PAGE):
        after = items[-1].place
        wanted = {item.copy_id for item in items if item.state is ItemState.PLANNED}
        sought = Sought(queue=replay.queue, message_ids=tuple(wanted))
        letters = [each for each in await books.page(sought, limit=MOST_ALIKE) if each.copy_id in wanted]
        forecasts = await _forecasts(books, letters, grounds, edits)
        for letter, forecast in zip(letters, forecasts, strict=True):
            tallies.add(letter.reason, forecast)
    return tallies


async def _forecasts(books: Books, letters: Sequence[IndexedLetter], grounds: Grounds, edits: Edits) -> list[Forecast]:
    orders = list(dict.fromkeys(letter.order_id for letter in letters if letter.order_id is not None))
    known = await books.known(orders) if orders else {}
    return [
        forecast_letter(letter, None if letter.order_id is None else known.get(letter.order_id), grounds, edits)
        for letter in letters
    ]


async def _pages(books: Books, options: Options) -> AsyncIterator[Sequence[IndexedLetter]]:
    """The letters that are meant, in the order of the index, up to the limit."""
    after, left = 0, options.limit
    while left is None or left > 0:
        most = PAGE if left is None else min(PAGE, left)
        letters = await books.page(options.sought, after=after, limit=most)
        if letters:
            yield letters
            after = letters[-1].seq
            left = None if left is None else left - len(letters)
        if len(letters) < most:
            return
