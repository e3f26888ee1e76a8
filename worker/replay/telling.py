"""What became of a replay, from the journal: counts, and every message with its latest outcome."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from worker.core.history import Fate, HistoryRow, IndexedLetter, ItemState, LetterState, Replay, ReplayItem, Sought
from worker.replay.books import PAGE, Books


@dataclass(slots=True, frozen=True, kw_only=True)
class Standing:
    """How far it is: messages by their state, and copies by what the workers said last."""

    replay: Replay
    states: Mapping[ItemState, int]
    fates: Mapping[Fate, int]

    @property
    def total(self) -> int:
        """Messages in the plan."""
        return sum(self.states.values())


@dataclass(slots=True, frozen=True, kw_only=True)
class Story:
    """One message of a replay. None where nobody knows any more, or yet."""

    item: ReplayItem
    letter: IndexedLetter | None
    outcome: HistoryRow | None

    @property
    def order_id(self) -> int | None:
        """Whose order it is, as far as anybody could read it."""
        for told in (self.outcome, self.letter):
            if told is not None and told.order_id is not None:
                return told.order_id
        return None

    @property
    def message_id(self) -> str:
        """The producer's."""
        return next((told.message_id for told in (self.outcome, self.letter) if told is not None), "")


async def standing(books: Books, replay: Replay) -> Standing:
    """The counts. JournalUnavailable."""
    states = await books.states(replay.replay_id)
    return Standing(replay=replay, states=states, fates=await books.fates(replay.replay_id))


async def stories(books: Books, replay: Replay, *, after: int = -1, most: int = PAGE) -> AsyncIterator[Sequence[Story]]:
    """Every message behind the place ``after``, in the order of the plan, in pages of ``most``."""
    while items := await books.items(replay.replay_id, after=after, limit=most):
        outcomes = await books.outcomes(replay.replay_id, after=after, limit=len(items))
        letters = await _letters(books, replay.queue, [item.copy_id for item in items])
        after = items[-1].place
        yield [Story(item=item, letter=letters.get(item.copy_id), outcome=outcomes.get(item.place)) for item in items]


async def _letters(books: Books, queue: str, copy_ids: Sequence[str]) -> dict[str, IndexedLetter]:
    """What the index knows of these letters, wherever they are now."""
    found: dict[str, IndexedLetter] = {}
    for state in LetterState:
        after = 0
        sought = Sought(queue=queue, message_ids=tuple(copy_ids), state=state)
        while letters := await books.page(sought, after=after, limit=PAGE):
            found |= {letter.copy_id: letter for letter in letters}
            after = letters[-1].seq
    return found
