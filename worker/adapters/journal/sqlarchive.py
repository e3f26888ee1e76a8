"""The part of the durable journal that is for people: history, retention, pauses, letters, replays, audit."""

from collections.abc import Mapping, Sequence

from worker.adapters.journal.archive import history_page, horizon_us, prune
from worker.adapters.journal.audit import add_deed, deeds_page
from worker.adapters.journal.database import Database
from worker.adapters.journal.letters import (
    add_letters,
    letter_tallies,
    letters_bulk,
    letters_page,
    mark_letters,
    remove_unseen,
    see_letters,
)
from worker.adapters.journal.packs import packed_page
from worker.adapters.journal.replays import (
    add_pause,
    add_replay,
    end_pauses,
    holder_of,
    item_fates,
    item_states,
    items_of,
    items_page,
    note_holder,
    outcomes_page,
    pauses_of,
    put_items,
    replay_of,
    replays_page,
    turn_replay,
)
from worker.adapters.journal.statements import insert_for
from worker.adapters.journal.ways import Kind
from worker.core.audit import Deed
from worker.core.history import (
    Fate,
    GroupBy,
    HistoryRow,
    Holder,
    IndexedLetter,
    ItemState,
    LetterState,
    Pause,
    Replay,
    ReplayItem,
    Sought,
    Tally,
)


class SqlArchive:
    """Implements all ports of the journal but the ledger on a ``Database``."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._insert = insert_for(database.dialect)
        self._add_letters = letters_bulk(database.dialect, self._insert)

    async def close(self) -> None:
        """Let what is under way end, and close the connections. May be repeated."""
        await self.database.close()

    async def history(self, order_id: int, *, after: int = 0, limit: int = 1000) -> Sequence[tuple[int, HistoryRow]]:
        """What happened to an order."""
        page = packed_page if self.database.is_sqlite else history_page
        return await self.database.run(lambda on: page(on, order_id, after, limit))

    async def prune(self, before_us: int, *, limit: int = 1000) -> int:
        """One step of forgetting, in one short transaction."""
        return await self.database.run(lambda on: prune(on, self._insert, before_us, limit))

    async def horizon_us(self) -> int:
        """Behind the newest version that was forgotten."""
        return await self.database.run(horizon_us, kind=Kind.SINGLE)

    async def pause(self, pause: Pause) -> None:
        """The first one of its kind stays."""
        await self.database.run(lambda on: add_pause(on, self._insert, pause), kind=Kind.SINGLE)

    async def resume(self, queue: str) -> bool:
        """End all pauses of the queue."""
        return await self.database.run(lambda on: end_pauses(on, queue), kind=Kind.SINGLE)

    async def pauses(self, queue: str) -> Sequence[Pause]:
        """The pauses of the queue."""
        return await self.database.run(lambda on: pauses_of(on, queue), kind=Kind.SINGLE)

    async def add(self, letters: Sequence[IndexedLetter]) -> None:
        """Put letters in, all or nothing."""
        await self.database.run(lambda on: add_letters(on, self._add_letters, letters))

    async def page(self, sought: Sought, *, after: int = 0, limit: int = 1000) -> Sequence[IndexedLetter]:
        """The next letters."""
        return await self.database.run(lambda on: letters_page(on, sought, after, limit), kind=Kind.SINGLE)

    async def tallies(self, sought: Sought, by: GroupBy, *, limit: int = 100) -> Sequence[Tally]:
        """Counts, the most frequent first."""
        return await self.database.run(lambda on: letter_tallies(on, sought, by, limit))

    async def mark(self, copy_ids: Sequence[str], state: LetterState, *, wall_us: int) -> int:
        """Say where these letters are now."""
        return await self.database.run(lambda on: mark_letters(on, copy_ids, state, wall_us), kind=Kind.SINGLE)

    async def seen(self, copy_ids: Sequence[str], *, wall_us: int) -> int:
        """These letters are in the queue."""
        return await self.database.run(lambda on: see_letters(on, copy_ids, wall_us), kind=Kind.SINGLE)

    async def forget_unseen(self, queue: str, since_us: int, *, margin_us: int = 0, wall_us: int) -> int:
        """What nobody saw since is gone."""
        failed_us = since_us - margin_us
        return await self.database.run(
            lambda on: remove_unseen(on, queue, since_us, failed_us, wall_us), kind=Kind.SINGLE
        )

    async def begin(self, replay: Replay) -> None:
        """Put a replay down."""
        await self.database.run(lambda on: add_replay(on, replay))

    async def plan(self, replay_id: str, items: Sequence[ReplayItem]) -> None:
        """Add messages to its plan, or say what became of them, all or nothing."""
        await self.database.run(lambda on: put_items(on, self._insert, replay_id, items))

    async def items(self, replay_id: str, *, after: int = -1, limit: int = 1000) -> Sequence[ReplayItem]:
        """The plan behind a place."""
        return await self.database.run(lambda on: items_page(on, replay_id, after, limit), kind=Kind.SINGLE)

    async def find(self, replay_id: str, copy_ids: Sequence[str]) -> Mapping[str, ReplayItem]:
        """Which of these messages are in its plan."""
        return await self.database.run(lambda on: items_of(on, replay_id, copy_ids), kind=Kind.SINGLE)

    async def states(self, replay_id: str) -> Mapping[ItemState, int]:
        """How many of its messages are in which state."""
        return await self.database.run(lambda on: item_states(on, replay_id), kind=Kind.SINGLE)

    async def outcomes(self, replay_id: str, *, after: int = -1, limit: int = 1000) -> Mapping[int, HistoryRow]:
        """The latest history row of the next places."""
        return await self.database.run(lambda on: outcomes_page(on, replay_id, after, limit))

    async def fates(self, replay_id: str) -> Mapping[Fate, int]:
        """How many of its messages met which fate last."""
        return await self.database.run(lambda on: item_fates(on, replay_id))

    async def replays(self, queue: str, *, limit: int = 100) -> Sequence[Replay]:
        """The latest replays of a queue."""
        return await self.database.run(lambda on: replays_page(on, queue, limit), kind=Kind.SINGLE)

    async def replay(self, replay_id: str) -> Replay | None:
        """The replay of that id."""
        return await self.database.run(lambda on: replay_of(on, replay_id), kind=Kind.SINGLE)

    async def turn(self, replay_id: str, state: str, *, wall_us: int) -> None:
        """The replay is in this state now."""
        await self.database.run(lambda on: turn_replay(on, replay_id, state, wall_us), kind=Kind.SINGLE)

    async def hold(self, queue: str, holder: Holder) -> None:
        """This one holds the lock of the queue now."""
        await self.database.run(lambda on: note_holder(on, self._insert, queue, holder), kind=Kind.SINGLE)

    async def holder(self, queue: str) -> Holder | None:
        """Who held it last."""
        return await self.database.run(lambda on: holder_of(on, queue), kind=Kind.SINGLE)

    async def note(self, deed: Deed) -> None:
        """Put down what somebody did."""
        await self.database.run(lambda on: add_deed(on, deed), kind=Kind.SINGLE)

    async def deeds(self, *, before: int | None = None, limit: int = 100) -> Sequence[Deed]:
        """What people did, the latest first."""
        return await self.database.run(lambda on: deeds_page(on, before, limit), kind=Kind.SINGLE)
